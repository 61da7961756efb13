"""A program that shall run for ever: started, watched until it is up, started again after a pause when it ends.

One step at a time with an injected clock; knows neither processes nor what the program is.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Protocol

PAUSES = (3.0, 5.0, 10.0, 30.0, 60.0)  # seconds before the next start; the last one goes on
STEADY_SECONDS = 120.0  # up for so long: the next end is a new trouble, not the old one again


class Running(Protocol):
    """A program that was started. `up`: it has said that it works; `last_line`: what it said last."""

    @property
    def up(self) -> bool: ...

    @property
    def last_line(self) -> str: ...

    def ended(self) -> str | None:
        """With what it ended, such as "code 1"; None while it runs. Called at every step."""
        ...

    def end(self) -> None:
        """End it and whatever it started."""
        ...


class KeptProgram:
    """`start()` starts it; one that is not up within `start_seconds` is ended and started again: Ray's raylet gives its own
    helpers 15 s, and on a busy machine loses. `say(text)` tells people. `monotonic()`: seconds; `jitter()` in [0, 1)."""

    def __init__(
        self,
        name: str,
        start: Callable[[], Running],
        say: Callable[[str], None],
        *,
        start_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name, self.starts = name, 0
        self._start, self._say, self._start_seconds = start, say, start_seconds
        self._monotonic, self._jitter = monotonic, jitter
        self._running: Running | None = None
        self._since, self._up, self._failures, self._next = 0.0, False, 0, float("-inf")

    @property
    def is_up(self) -> bool:
        return self._running is not None and self._up

    @property
    def is_first_start(self) -> bool:
        return self.starts == 1 and self._running is not None and not self._up

    def step(self) -> None:
        """Look once and do the one thing that is due. Whatever a start raises counts as an end."""
        if self._running is None:
            if self._monotonic() >= self._next:
                self._begin()
            return
        end = self._running.ended()
        seconds = self._monotonic() - self._since
        if end is not None:
            self._again(f"ended with {end} after {seconds:.0f} s")
        elif not self._up and self._running.up:
            self._up = True
            self._say(f"{self.name} is up after {seconds:.0f} s")
        elif not self._up and seconds > self._start_seconds:
            self._again(f"is not up after {seconds:.0f} s")
        elif self._up and seconds > STEADY_SECONDS:
            self._failures = 0

    def end(self) -> None:
        if self._running is not None:
            self._running.end()
            self._running = None

    def _begin(self) -> None:
        self.starts += 1
        self._since, self._up = self._monotonic(), False
        try:
            self._running = self._start()
        except OSError as error:
            self._again(f"could not be started ({error})")

    def _again(self, why: str) -> None:
        last = f": {self._running.last_line}" if self._running is not None and self._running.last_line else ""
        self.end()
        pause = PAUSES[min(self._failures, len(PAUSES) - 1)] * (0.8 + 0.4 * self._jitter())
        self._failures += 1
        self._next = self._monotonic() + pause
        self._say(f"{self.name} {why}; it is started again in {pause:.0f} s{last}")
