"""The mt5 actor as a source: Ray's errors become ours, and a node whose packages do not fit is refused before it answers."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import ray

from actors.handles import Mt5Actor, RayBarSource
from market.bars import empty_bars
from market.errors import MarketUnavailable, NodeDown, NotConnected, UnknownSymbol, VersionsDisagree
from mt5_actor_windows.versions import versions


class Method:
    def __init__(self, actor: Actor, name: str) -> None:
        self._actor, self._name = actor, name

    def remote(self, *arguments: Any) -> Any:
        self._actor.asked.append(self._name)
        return self._actor.answers[self._name]


class Actor:
    """Answers as told; an exception as an answer is raised by `ray.get`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Any] = {"versions": versions(), "prices": [{"symbol": "EURUSD"}], "health": {}}

    def __getattr__(self, name: str) -> Method:
        return Method(self, name)


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> Actor:
    def get(answer: Any, timeout: float) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(ray, "get", get)
    return Actor()


def test_versions_are_compared_once(actor: Actor) -> None:
    source = RayBarSource(lambda: actor)
    assert source.prices(["EURUSD"]) == [{"symbol": "EURUSD"}]
    source.health()
    assert actor.asked == ["versions", "prices", "health"]


def test_another_numpy_is_refused_by_name_before_anything_is_read(actor: Actor) -> None:
    actor.answers["versions"] = versions() | {"numpy": "1.26.4"}
    source = RayBarSource(lambda: actor)
    for _ in range(2):
        with pytest.raises(VersionsDisagree, match=r"numpy .* here, 1\.26\.4 there"):
            source.prices(["EURUSD"])
    assert actor.asked == ["versions", "versions"]


def test_an_actor_that_was_away_is_compared_anew(actor: Actor) -> None:
    source = RayBarSource(lambda: actor)
    source.health()
    actor.answers["prices"] = ray.exceptions.ActorUnavailableError("gone", None)
    with pytest.raises(NodeDown, match="node that holds the terminal is gone"):
        source.prices(["EURUSD"])
    actor.answers["versions"] = versions() | {"ray": "2.59.0"}
    with pytest.raises(VersionsDisagree):
        source.health()


def test_what_ray_raises_becomes_ours(actor: Actor) -> None:
    source = RayBarSource(lambda: actor, seconds=7)
    actor.answers["prices"] = NotConnected("No terminal.", hint="Start it.")
    with pytest.raises(NotConnected, match="No terminal"):
        source.prices(["EURUSD"])
    actor.answers["prices"] = ray.exceptions.GetTimeoutError("late")
    with pytest.raises(NodeDown, match="did not answer within 7 s"):
        source.prices(["EURUSD"])
    actor.answers |= {
        "versions": versions(),
        "prices": ray.exceptions.RayTaskError("prices", "trace", ValueError("odd")),
    }
    with pytest.raises(MarketUnavailable, match="The mt5 actor failed: odd"):
        source.prices(["EURUSD"])


HOUR = datetime(2022, 3, 14, 12, tzinfo=UTC)
QUESTIONS = [("EURUSD", "H1", HOUR, None), ("USDJPY", "H1", HOUR, None)]


def test_expected_questions_are_asked_with_one_call_and_answered_once(actor: Actor) -> None:
    unknown = UnknownSymbol("This account does not offer USDJPY.", hint="Others.")
    actor.answers |= {"closed_bars_of": ["the bars", unknown], "closed_bars": "newer bars"}
    source = RayBarSource(lambda: actor)
    source.expect(QUESTIONS)
    assert source.closed_bars(*QUESTIONS[0]) == "the bars"
    with pytest.raises(UnknownSymbol, match="USDJPY"):
        source.closed_bars(*QUESTIONS[1])
    assert actor.asked == ["versions", "closed_bars_of"]
    assert source.closed_bars(*QUESTIONS[0]) == "newer bars"
    source.expect(QUESTIONS)
    source.expect(QUESTIONS[:1])
    assert source.closed_bars(*QUESTIONS[0]) == "newer bars", (
        "one question gains nothing, and old answers are forgotten"
    )


def test_what_went_wrong_with_the_one_call_is_said_when_they_are_asked(actor: Actor) -> None:
    actor.answers |= {"closed_bars_of": ray.exceptions.GetTimeoutError("late"), "closed_bars": "the bars"}
    source = RayBarSource(lambda: actor)
    source.expect(QUESTIONS)
    for question in QUESTIONS:
        with pytest.raises(NodeDown, match="did not answer"):
            source.closed_bars(*question)
    assert actor.asked.count("closed_bars") == 0, "who hangs is not waited for twice"
    older = ray.exceptions.RayTaskError("closed_bars_of", "trace", AttributeError("no such method"))
    actor.answers["closed_bars_of"] = older
    source.expect(QUESTIONS)
    assert source.closed_bars(*QUESTIONS[0]) == "the bars"


def test_a_terminal_that_is_away_is_asked_once_and_an_unknown_symbol_stops_nobody() -> None:
    node = object.__new__(Mt5Actor)
    asked: list[str] = []

    def closed_bars(symbol: str, *_: Any) -> Any:
        asked.append(symbol)
        if symbol == "NONE":
            raise UnknownSymbol("No NONE.", hint="Others.")
        if symbol == "AWAY":
            raise NotConnected("No terminal.", hint="Start it.")
        return empty_bars()

    node._core = SimpleNamespace(closed_bars=closed_bars)  # type: ignore[assignment]
    answers = node.closed_bars_of(
        [(symbol, "H1", HOUR, None) for symbol in ("EURUSD", "NONE", "USDJPY", "AWAY", "LAST")]
    )
    assert [type(answer) for answer in answers] == [pa.Table, UnknownSymbol, pa.Table, NotConnected, NotConnected]
    assert asked == ["EURUSD", "NONE", "USDJPY", "AWAY"]
