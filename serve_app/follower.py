"""Keeps a board level with the forecaster: takes what is pushed, pulls what was missed.

Pure: `pull(since_version)` is given. A push carries only what changed, so a gap in the versions means a pull.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from market.forecasts import BoardUpdate
from serve_app.board import Board

PULL_SECONDS = 2.0
PULL_TIMEOUT_SECONDS = 10.0
FILL_SECONDS = 60.0
FILL_PAUSE_SECONDS = 0.2
_log = structlog.get_logger("lstmc.api")


class Follower:
    """`problem` says why the last pull failed; empty while all is well. No method raises when the forecaster is away."""

    def __init__(self, board: Board, pull: Callable[[int | None], Awaitable[BoardUpdate]]) -> None:
        self._board = board
        self._pull = pull
        self._missed = asyncio.Event()
        self.problem = "The forecaster has not been asked yet."

    def take(self, update: BoardUpdate) -> bool:
        """A pushed update: applied when it follows what is held, else a pull is due at once.

        It does not wait for that pull: the forecaster may be waiting for this very answer.
        """
        self._board.heard()
        if self._board.follows(update):
            return self._board.apply(update)
        self._missed.set()
        return False

    async def catch_up(self) -> bool:
        """Pull what changed since the board's version; whether anything did."""
        try:
            # Not asyncio.wait_for: in Python 3.11 it can swallow a cancellation.
            async with asyncio.timeout(PULL_TIMEOUT_SECONDS):
                update = await self._pull(self._known_version())
                if self._board.filled and not self._board.same_life(update):
                    update = await self._pull(None)
            self._board.heard()
            changed = self._board.apply(update)
        except Exception as error:  # another process: not there yet, restarting, or of another version
            self._note(
                f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error).strip() else 'no answer'}"
            )
            return False
        self._note(self._board.unrendered)
        return changed

    async def fill(
        self, ask_sibling: Callable[[], Awaitable[BoardUpdate | None]], seconds: float = FILL_SECONDS
    ) -> bool:
        """Before a replica says that it is ready: the forecaster's board or, when that is slow, another replica's.

        False when neither answered in time; then there is nothing to serve, and /readyz says so.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not (await self.catch_up() or self._board.filled):
                    with contextlib.suppress(Exception):  # there may be no other replica
                        update = await ask_sibling()
                        if update is not None and self._board.apply(update):
                            break
                    await asyncio.sleep(FILL_PAUSE_SECONDS)
        return self._board.filled

    async def forever(self) -> None:
        while True:
            self._missed.clear()
            await self.catch_up()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PULL_SECONDS):
                    await self._missed.wait()

    def _known_version(self) -> int | None:
        return self._board.update.version if self._board.filled else None

    def _note(self, problem: str) -> None:
        if problem != self.problem:
            _log.info("forecaster", problem=problem or "none")
        self.problem = problem
