"""How often a subject may ask: a moving window of one minute, in the memory of this replica.

Exact with one ingress replica, which is what the local profile runs. With N replicas N times as many requests pass;
one bucket for the whole cluster is later work.
"""

from __future__ import annotations

from mt5_actor_windows.request_budget import Budget, MinuteWindow
from serve_app.problems import Problem


class RateLimiter:
    """At most `per_minute` requests per subject in any 60 wall seconds."""

    def __init__(self, per_minute: int) -> None:
        self._window = MinuteWindow(per_minute)

    def take(self, subject: str) -> Budget:
        """Count one request of `subject`; Problem 429 with Retry-After when the window is full."""
        allowed, budget = self._window.take(subject)
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
