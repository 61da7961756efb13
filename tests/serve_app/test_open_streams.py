"""A subject's streams are counted, and those that end, in whatever way, count no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from serve_app.open_streams import OpenStreams
from serve_app.problems import Problem


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b"."
        await asyncio.sleep(0)


async def still(*_: Any) -> Any:
    await asyncio.sleep(3600)


def test_the_sixth_is_refused_until_one_has_ended() -> None:
    async def scene() -> None:
        streams = OpenStreams(5)

        async def send(message: Any) -> None:
            await asyncio.sleep(0)

        answers = [streams.open("desk", endless(), {}) for _ in range(5)]
        with pytest.raises(Problem) as refused:
            streams.open("desk", endless(), {})
        assert (refused.value.status, refused.value.code) == (429, "too-many-streams")
        streams.open("another", endless(), {})
        running = asyncio.create_task(answers[0]({"type": "http"}, still, send))
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert streams.count == 5
        streams.open("desk", endless(), {})

    asyncio.run(scene())


def test_one_whose_client_is_gone_before_it_begins_counts_no_more() -> None:
    async def scene() -> None:
        streams = OpenStreams(1)

        async def broken(message: Any) -> None:
            raise OSError("gone")

        with pytest.raises(BaseException):  # noqa: B017, PT011 - anyio wraps it in a group, or not
            await streams.open("desk", endless(), {})({"type": "http"}, still, broken)
        assert streams.count == 0

    asyncio.run(scene())
