"""How far a run is, for a terminal or a log: one line per step, with the time since the start. Knows no steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO


class Progress:
    """Callable as cross_validate's `on_progress(text, done, total)`. Repeats within `every` seconds are dropped."""

    def __init__(self, out: TextIO, *, every: float = 0.5, now: Callable[[], float] = time.monotonic) -> None:
        self._out, self._every, self._now = out, every, now
        self._started = now()
        self._last = float("-inf")

    def __call__(self, text: str, done: int, total: int) -> None:
        moment = self._now()
        if moment - self._last < self._every and done < total:
            return
        self._last = moment
        self.line(f"{text}: {done} of {total}")

    def line(self, text: str) -> None:
        print(f"[{self._now() - self._started:6.1f} s] {text}", file=self._out, flush=True)
