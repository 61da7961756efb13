"""The lease book between replicas that wait: one poll of each is always open, so that what is recalled comes back at once.

A plain asyncio class that `actors.handles` makes an actor. A crash loses the book: see `actors.rate_leases`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable

import structlog

from actors.life_line import LifeLine, Line
from actors.rate_leases import Grant, LeaseBook, Lot

_log = structlog.get_logger("lstmc.rate_limiter")
POLL_SECONDS = 1.0
RECALL_SECONDS = 1.0  # a replica that does not answer by then is not waited for


class RateLimiterActor:
    """What replicas call. All answers but the first are None to whoever has to introduce itself. `address`: of its node,
    for a life line."""

    def __init__(
        self,
        per_minute: int,
        *,
        reborn: bool = False,
        address: str | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._life_line = LifeLine(address) if address else None
        self._book = LeaseBook(per_minute, now, reborn=reborn)
        self._recalled: dict[str, set[str]] = defaultdict(set)
        self._polls: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._came_back = asyncio.Condition()

    async def introduce(self, replica: str, shown: dict[str, Lot]) -> tuple[str, dict[str, int], Line | None]:
        """The book's life, how many slots of each subject the replica may keep, and what refuses connections once this
        process has ended; then nobody gets slots of it any more."""
        return self._book.life, self._book.introduce(replica, shown), await self._line()

    async def _line(self) -> Line | None:
        """None when it cannot listen on its node's address: replicas then go by their leases alone."""
        try:
            return await self._life_line.open() if self._life_line else None
        except OSError as error:
            _log.warning("no life line", reason=str(error))
            return None

    async def poll(self, replica: str, life: str) -> list[str] | None:
        """The subjects whose slots are to be given back; empty after POLL_SECONDS."""
        if not self._book.knows(replica, life):
            return None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await self._polls[replica].wait()
        self._polls.pop(replica, None)
        return sorted(self._recalled.pop(replica, ()))

    async def exchange(self, replica: str, life: str, subject: str, lot: Lot, wanted: int) -> Grant | None:
        """Give back all slots of `subject`, and get some when any are `wanted`, from other replicas if need be."""
        if not self._book.knows(replica, life):
            return None
        async with self._came_back:
            self._book.take_back(replica, subject, lot)
            self._came_back.notify_all()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RECALL_SECONDS if wanted else 0):
                    while not self._book.usable(subject) and (others := self._book.holders(subject)):
                        self._recall(subject, others)
                        await self._came_back.wait()
            return self._book.grant(replica, subject, wanted, len(lot.rests)) if wanted else Grant(Lot(), 0, 0.0)

    def _recall(self, subject: str, holders: set[str]) -> None:
        for holder in holders:
            self._recalled[holder].add(subject)
            self._polls[holder].set()
