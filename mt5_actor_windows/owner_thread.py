"""One thread for all calls of one terminal, with deadlines. Does not know what it runs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from market.errors import NotConnected

T = TypeVar("T")


class OwnerThread:
    """Runs functions one after another on one thread. A call that outlives its deadline leaves the thread wedged:
    MetaTrader's calls cannot be interrupted, so later calls are refused at once until it returns.

    Where a call also holds the GIL no deadline fires in this process; then only `session_process` helps."""

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._wedged: Future[Any] | None = None
        threading.Thread(target=self._loop, name=name, daemon=True).start()

    def run(self, function: Callable[[], T], deadline_seconds: float) -> T:
        if self._wedged is not None and not self._wedged.done():
            raise NotConnected("The terminal has not answered an earlier call yet.", hint="Restart it if this lasts.")
        future: Future[T] = Future()
        self._work.put((function, future))
        try:
            return future.result(timeout=deadline_seconds)
        except TimeoutError:
            if future.done():
                raise
            self._wedged = future
            raise NotConnected(
                f"The terminal did not answer within {deadline_seconds:g} s.", hint="Restart it if this lasts."
            ) from None

    def _loop(self) -> None:
        while True:
            function, future = self._work.get()
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
