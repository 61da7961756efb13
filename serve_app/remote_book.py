"""The rate limiter's book in the actor of `actors.rate_limiter`, and whether that actor's process has ended."""

from __future__ import annotations

import asyncio
from typing import Any

from actors.life_line import WatchedLine
from serve_app.named_actor import NamedActor

BOOK_SECONDS = 4.0  # for an answer of the rate limiter, which lets a poll wait a second


class RemoteBook:
    """A `serve_app.rate_limit.Book`. Every call raises TimeoutError after BOOK_SECONDS."""

    def __init__(self, actor: NamedActor) -> None:
        self._actor = actor
        self._watched: WatchedLine | None = None

    async def introduce(self, *words: Any) -> Any:
        # No line from a limiter of an older version: a roll leaves it there.
        life, kept, *line = await self._call("introduce", *words)
        if self._watched is not None:
            self._watched.leave()
        self._watched = WatchedLine(line[0]) if line and line[0] else None
        return life, kept

    async def poll(self, *words: Any) -> Any:
        return await self._call("poll", *words)

    async def exchange(self, *words: Any) -> Any:
        return await self._call("exchange", *words)

    async def has_ended(self) -> bool:
        return self._watched is not None and await self._watched.has_ended()

    async def _call(self, method: str, *words: Any) -> Any:
        async with asyncio.timeout(BOOK_SECONDS):
            return await self._actor.call(method, *words)
