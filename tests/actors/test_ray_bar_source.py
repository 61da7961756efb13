"""The mt5 actor as a source: Ray's errors become ours, and a node whose packages do not fit is refused before it answers."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from actors.handles import RayBarSource
from market.errors import MarketUnavailable, NodeDown, NotConnected, VersionsDisagree
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
