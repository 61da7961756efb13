"""Whether a process on another node has ended for certain: it listens on a port, and once it has ended its kernel refuses
connections. Silence says nothing, since the cable may be cut.
"""

from __future__ import annotations

import asyncio

import structlog

ANSWER_SECONDS = 0.5
PAUSE_SECONDS = 60.0  # between two attempts to reach it
_log = structlog.get_logger("lstmc.life_line")
Line = tuple[str, int]  # address and port


class LifeLine:
    """The listening side, in the process that is watched."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._opening = asyncio.Lock()
        self._server: asyncio.Server | None = None

    async def open(self) -> Line:
        """Where it listens, from the first call on."""
        async with self._opening:
            if self._server is None:
                self._server = await asyncio.start_server(lambda _, writer: writer.close(), self._address, 0)
        return self._address, self._server.sockets[0].getsockname()[1]


class WatchedLine:
    """The other side. A refusal counts once the listener was reached: a firewall in between must not be taken for its end."""

    def __init__(self, line: Line, pause: float = PAUSE_SECONDS) -> None:
        self._line = line
        self._reaching = asyncio.create_task(self._reach(pause))

    def leave(self) -> None:
        """Try no longer to reach it."""
        self._reaching.cancel()

    async def has_ended(self) -> bool:
        """Whether nobody listens there any more. False where that cannot be said."""
        return self._reaching.done() and not self._reaching.cancelled() and await is_refused(self._line)

    async def _reach(self, pause: float) -> None:
        while not await is_reached(self._line):
            _log.warning("a life line is not reached", address=self._line[0], port=self._line[1])
            await asyncio.sleep(pause)


async def is_reached(line: Line) -> bool:
    """Whether somebody listens there and nothing is in between."""
    try:
        await _connect(line)
    except OSError:  # of which asyncio's TimeoutError is one
        return False
    return True


async def is_refused(line: Line) -> bool:
    """Whether nobody listens there any more. False where that cannot be said."""
    try:
        await _connect(line)
    except ConnectionRefusedError:
        return True
    except OSError:
        pass
    return False


async def _connect(line: Line) -> None:
    async with asyncio.timeout(ANSWER_SECONDS):
        _, writer = await asyncio.open_connection(*line)
    writer.close()
