"""An actor that is known by its name, which may be away for a while or be another one when it is back. Knows nothing about Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class NamedActor:
    """`find` gives its handle, or raises. It is met anew after an error: `lstmc up` may have made another.

    The control store is asked in a thread, and once at a time: while the head is away it keeps whoever asks for minutes.
    """

    def __init__(self, find: Callable[[], Any]) -> None:
        self._find = find
        self._actor: Any = None
        self._finding: asyncio.Task[Any] | None = None

    async def call(self, method: str, *words: Any) -> Any:
        """Raises what the actor raises, or that there is none. To be given up after a time of the caller's own."""
        actor = self._actor
        if actor is None:
            if self._finding is None:
                self._finding = asyncio.create_task(asyncio.to_thread(self._find))
                self._finding.add_done_callback(self._found)
            actor = self._actor = await asyncio.shield(self._finding)
        try:
            return await getattr(actor, method).remote(*words)
        except BaseException:
            if self._actor is actor:
                self._actor = None
            raise

    def _found(self, finding: asyncio.Task[Any]) -> None:
        self._finding = None
        if not finding.cancelled():
            finding.exception()  # nobody may be waiting for it any more
