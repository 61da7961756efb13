"""An event loop whose clock jumps to the next thing to do: minutes of waiting in milliseconds, in a fixed order."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self._moment = 0.0

    def time(self) -> float:
        return self._moment

    def _run_once(self) -> None:
        due = [timer._when for timer in self._scheduled if not timer._cancelled]  # type: ignore[attr-defined]
        if due and not self._ready:  # type: ignore[attr-defined]
            self._moment = max(self._moment, min(due))
        super()._run_once()  # type: ignore[misc]


def run(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
