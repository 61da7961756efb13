"""While the control store is away, whoever asks for an actor waits; the event loop, on which clients are answered, does not."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from serve_app.named_actor import NamedActor


class Method:
    def __init__(self, actor: Actor) -> None:
        self._actor = actor

    async def remote(self, word: str) -> str:
        if self._actor.dead:
            raise ConnectionError("it has ended")
        return f"{self._actor.name}: {word}"


class Actor:
    def __init__(self, name: str) -> None:
        self.name, self.dead = name, False

    @property
    def say(self) -> Method:
        return Method(self)


def test_it_is_found_once_and_anew_after_an_error() -> None:
    there, found = [Actor("first")], list[str]()

    def find() -> Any:
        found.append(there[0].name)
        return there[0]

    async def scene() -> None:
        actor = NamedActor(find)
        assert await asyncio.gather(actor.call("say", "a"), actor.call("say", "b")) == ["first: a", "first: b"]
        there[0].dead = True
        there[0] = Actor("second")
        with pytest.raises(ConnectionError):
            await actor.call("say", "c")
        assert await actor.call("say", "d") == "second: d"

    asyncio.run(scene())
    assert found == ["first", "second"]


def test_a_search_that_hangs_holds_up_nobody_and_is_not_begun_twice() -> None:
    back, searches = threading.Event(), list[int]()

    def find() -> Any:
        searches.append(1)
        assert back.wait(30)
        return Actor("late")

    async def scene() -> None:
        actor = NamedActor(find)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await actor.call("say", "a")
        back.set()
        assert await actor.call("say", "b") == "late: b"

    asyncio.run(scene())
    assert len(searches) == 1


def test_nobody_by_that_name_is_told_and_asked_for_again() -> None:
    answers: list[Any] = [LookupError("nobody"), Actor("here")]

    def find() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def scene() -> None:
        actor = NamedActor(find)
        with pytest.raises(LookupError):
            await actor.call("say", "a")
        assert await actor.call("say", "b") == "here: b"

    asyncio.run(scene())
