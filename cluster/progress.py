"""What a long command is doing: one line per finished step with its time, and on a terminal a moving last line."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

QUIET_SECONDS = 5.0  # without a terminal: at most one line about the same activity in this time


class Progress:
    """Writes to stderr, so that stdout stays for data. `started`: monotonic seconds that count as zero."""

    def __init__(
        self, stream: TextIO | None = None, *, started: float | None = None, quiet_seconds: float = QUIET_SECONDS
    ) -> None:
        self._quiet_seconds = quiet_seconds
        self._stream = stream or sys.stderr
        self._started = time.monotonic() if started is None else started
        self._status: Any = None
        self._last_line = 0.0
        self._console: Any = None
        if self._stream.isatty():
            from rich.console import Console

            self._console = Console(file=self._stream, highlight=False)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        """A step that is done, or something worth knowing."""
        line = f"{self.seconds:6.1f} s  {text}"
        if self._console is None:
            print(line, file=self._stream, flush=True)
        else:
            self._console.print(line, markup=False, soft_wrap=True)
        self._last_line = time.monotonic()

    def doing(self, text: str) -> None:
        """What is going on now; replaces what was said to go on before."""
        if self._console is not None:
            if self._status is None:
                self._status = self._console.status(text)
                self._status.start()
            self._status.update(f"{text} ({self.seconds:.0f} s)")
        elif time.monotonic() - self._last_line > self._quiet_seconds:
            self.say(text)

    def close(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
