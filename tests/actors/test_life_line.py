"""A process that has ended refuses, one that lives is reached, and what does not answer is neither."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

from actors.life_line import LifeLine, WatchedLine, is_reached, is_refused

LISTENER = """
import asyncio
from actors.life_line import LifeLine

async def listen():
    print(*await LifeLine("127.0.0.1").open(), flush=True)
    await asyncio.Event().wait()

asyncio.run(listen())
"""


def test_a_process_is_reached_until_it_is_killed() -> None:
    async def scene(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        host, port = process.stdout.readline().split()
        watched = WatchedLine((host, int(port)))
        await watched._reaching
        assert not await watched.has_ended()
        process.kill()
        process.wait()
        assert await watched.has_ended()

    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", LISTENER], cwd=root, stdout=subprocess.PIPE, text=True) as process:
        asyncio.run(scene(process))


def test_it_listens_on_one_port_from_the_first_question_on() -> None:
    async def scene() -> None:
        life_line = LifeLine("127.0.0.1")
        lines = await asyncio.gather(life_line.open(), life_line.open())
        assert lines[0] == lines[1]
        assert await is_reached(lines[0])
        assert not await is_refused(lines[0])
        assert life_line._server is not None
        life_line._server.close()

    asyncio.run(scene())


def test_a_refusal_counts_only_of_whom_was_reached() -> None:
    """A firewall may refuse as well."""

    async def scene() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # and not listening
            line = taken.getsockname()
            assert await is_refused(line)
            watched = WatchedLine(line, pause=30)
            assert not await watched.has_ended()
            watched.leave()

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
