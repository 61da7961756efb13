"""How often somebody may ask: a moving window of one minute per subject, in this process's memory. Does not know HTTP."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

WINDOW_SECONDS = 60


@dataclass(frozen=True)
class Budget:
    """What a subject has left. `reset_seconds`: until the oldest request leaves the window."""

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


class MinuteWindow:
    """At most `per_minute` requests of each subject in any 60 wall seconds."""

    def __init__(self, per_minute: int) -> None:
        self._item = RateLimitItemPerMinute(per_minute)
        self._window = MovingWindowRateLimiter(MemoryStorage())

    def take(self, subject: str) -> tuple[bool, Budget]:
        """Count one request of `subject`: whether it may pass, and what is left."""
        allowed = self._window.hit(self._item, subject)
        stats = self._window.get_window_stats(self._item, subject)
        wait = max(1, math.ceil(stats.reset_time - time.time()))
        return allowed, Budget(self._item.amount, max(0, stats.remaining), wait)
