"""Server-sent events: their wire format, and the bounded queue between the board and one listener.

Knows nothing about forecasts. A listener that is too slow loses its queue and is told to take a snapshot instead.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

import orjson

QUEUE_LIMIT = 32


@dataclass(frozen=True)
class Event:
    """One event in wire format, with and without signals: not every token may see those."""

    number: int
    public: bytes
    full: bytes

    @classmethod
    def encode(cls, identity: str, number: int, kind: str, said: dict[str, Any], signals: dict[str, Any]) -> Event:
        def wire(body: dict[str, Any]) -> bytes:
            return b"id: %s\nevent: %s\ndata: %s\n\n" % (identity.encode(), kind.encode(), orjson.dumps(body))

        return cls(number, wire(said), wire(said | {"signals": signals}))


class Subscription:
    """One listener's queue. `lagged`: what is queued has a hole, send a snapshot first."""

    def __init__(self, signals: bool, limit: int = QUEUE_LIMIT) -> None:
        self.signals = signals
        self.lagged = False
        self._woken = False
        self._limit = limit
        self._queue: deque[Event] = deque()
        self._arrived = asyncio.Event()

    def offer(self, event: Event) -> None:
        if self.lagged:
            self._arrived.set()
            return  # the snapshot to come contains it
        if len(self._queue) >= self._limit:
            self._queue.clear()
            self.lagged = True
        else:
            self._queue.append(event)
        self._arrived.set()

    def wake(self) -> None:
        """End the wait without an event, also one that is yet to begin."""
        self._woken = True
        self._arrived.set()

    def restart(self) -> None:
        """Forget the hole: the caller sends a snapshot now."""
        self._queue.clear()
        self.lagged = False

    def take(self) -> Event | None:
        return self._queue.popleft() if self._queue else None

    def body(self, event: Event) -> bytes:
        return event.full if self.signals else event.public

    async def wait(self, seconds: float) -> bool:
        """Wait until something was offered, or `wake`; False after `seconds` without."""
        if self._queue or self.lagged or self._woken:
            self._woken = False
            return True
        self._arrived.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._arrived.wait()
        except TimeoutError:
            return False
        self._woken = False
        return True
