"""How often a subject may ask: a moving window of one minute, in the memory of this replica.

Exact with one ingress replica, which is what the local profile runs. With N replicas N times as many requests pass;
one bucket for the whole cluster is later work.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from serve_app.problems import Problem

WINDOW_SECONDS = 60


@dataclass(frozen=True)
class Budget:
    """What a subject has left: `reset_seconds` until the oldest request leaves the window."""

    limit: int
    remaining: int
    reset_seconds: int

    def headers(self) -> dict[str, str]:
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset_seconds),
            "RateLimit-Policy": f"{self.limit};w={WINDOW_SECONDS}",
        }


class RateLimiter:
    """At most `per_minute` requests per subject in any 60 wall seconds."""

    def __init__(self, per_minute: int) -> None:
        self._item = RateLimitItemPerMinute(per_minute)
        self._window = MovingWindowRateLimiter(MemoryStorage())

    def take(self, subject: str) -> Budget:
        """Count one request of `subject`; Problem 429 with Retry-After when the window is full."""
        allowed = self._window.hit(self._item, subject)
        stats = self._window.get_window_stats(self._item, subject)
        wait = max(1, math.ceil(stats.reset_time - time.time()))
        budget = Budget(self._item.amount, max(0, stats.remaining), wait)
        if not allowed:
            raise _too_many(budget)
        return budget


def _too_many(budget: Budget) -> Problem:
    return Problem(
        429,
        "too-many-requests",
        "Too many requests",
        f"This subject may ask {budget.limit} times a minute.",
        hint="Wait as long as Retry-After says, or read /api/v1/stream, which counts once.",
        headers=budget.headers() | {"Retry-After": str(budget.reset_seconds)},
    )
