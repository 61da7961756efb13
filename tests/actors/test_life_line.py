"""A process that has ended refuses, one that lives is reached, and what does not answer is neither."""

from __future__ import annotations

import asyncio
import socket

from actors.life_line import LifeLine, is_reached, is_refused


def test_a_listener_is_reached_until_it_has_ended() -> None:
    async def scene() -> None:
        watched = LifeLine("127.0.0.1")
        line = await watched.open()
        assert await watched.open() == line
        assert await is_reached(line)
        assert not await is_refused(line)
        assert watched._server is not None
        watched._server.close()
        await watched._server.wait_closed()
        assert await is_refused(line)
        assert not await is_reached(line)

    asyncio.run(scene())


def test_silence_says_nothing() -> None:
    """A listener whose queue is full lets the next ones wait, as a cut cable does."""

    async def scene() -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            line = full.getsockname()
            with socket.create_connection(line):
                assert not await is_reached(line)
                assert not await is_refused(line)

    asyncio.run(scene())
