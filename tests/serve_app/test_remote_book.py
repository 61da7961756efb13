"""The book as a replica meets it: an actor that may be of an older version, hang, or have ended for certain."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from actors.life_line import LifeLine, Line
from serve_app.named_actor import NamedActor
from serve_app.remote_book import BOOK_SECONDS, RemoteBook
from tests.virtual_time import run


def book_that_says(answer: Any) -> RemoteBook:
    async def introduce(*_: Any) -> Any:
        return answer

    return RemoteBook(NamedActor(lambda: SimpleNamespace(introduce=SimpleNamespace(remote=introduce))))


async def eventually(true: Any) -> None:
    async with asyncio.timeout(10):
        while not await true():
            await asyncio.sleep(0.01)


def test_a_book_has_ended_when_its_process_refuses_and_not_before() -> None:
    async def scene() -> None:
        life_line = LifeLine("127.0.0.1")
        line: Line | None = await life_line.open()
        book = book_that_says(("life", {"desk": 3}, line))
        assert not await book.has_ended()
        assert await book.introduce("replica", {}) == ("life", {"desk": 3})
        assert book._watched is not None
        await book._watched._reaching
        assert not await book.has_ended()
        assert life_line._server is not None
        life_line._server.close()
        await eventually(book.has_ended)

    asyncio.run(scene())


@pytest.mark.parametrize("answer", [("life", {}), ("life", {}, None)])
def test_without_a_line_nobody_knows(answer: Any) -> None:
    """Of an older version, or that could not listen."""

    async def scene() -> None:
        book = book_that_says(answer)
        assert await book.introduce("replica", {}) == ("life", {})
        assert not await book.has_ended()

    asyncio.run(scene())


def test_a_question_that_hangs_is_given_up() -> None:
    async def scene() -> None:
        async def poll(*_: Any) -> Any:
            await asyncio.Event().wait()

        book = RemoteBook(NamedActor(lambda: SimpleNamespace(poll=SimpleNamespace(remote=poll))))
        began = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await book.poll("replica", "life")
        assert asyncio.get_running_loop().time() - began == pytest.approx(BOOK_SECONDS, abs=0.1)

    run(scene())
