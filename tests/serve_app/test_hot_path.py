"""What is answered without FastAPI is the answer that FastAPI gives, with the same headers."""

from __future__ import annotations

from typing import Any

import pytest

from serve_app import hot_path
from serve_app.api import make_api
from serve_app.hot_path import HotPath
from serve_app.lookups import Lookups
from serve_app.rate_limit import RateLimiter

PATH = "/api/v1/predictions/EURUSD"
NAMED = {"X-Request-Id": "req-1"}


class Pair:
    """The same question to both: the hot path around an app, and an app of its own. `slow`: questions passed on."""

    def __init__(self, desk: Any, bare: type, per_minute: int = 60) -> None:
        self.desk, self.slow = desk, 0
        desk.board.wall = lambda: 1_772_625_600.0  # both are asked in the same second
        apps = [
            make_api(desk.settings, desk.board, RateLimiter(per_minute), desk.clock, Lookups(None))  # type: ignore[arg-type]
            for _ in range(2)
        ]

        async def inside(*messages: Any) -> None:
            self.slow += messages[0]["type"] == "http"
            await apps[0](*messages)

        self.hot = bare(HotPath(inside, desk.settings, desk.board, apps[0].state.admission))
        self.plain = bare(apps[1])

    def ask(self, path: str = PATH, method: str = "GET", **headers: str) -> tuple[Any, bool]:
        """(the answer, whether it came by the hot path), after both were found to be the same."""
        before = self.slow
        given = NAMED | {name.replace("_", "-"): value for name, value in headers.items()}
        hot, plain = self.hot.request(method, path, given), self.plain.request(method, path, given)
        assert hot.status_code == plain.status_code
        assert hot.content == plain.content
        assert sorted(hot.headers.multi_items()) == sorted(plain.headers.multi_items())
        return hot, self.slow == before

    def bearer(self, **given: Any) -> str:
        """A token that both have seen."""
        token = self.desk.bearer(**given)["Authorization"]
        for client in (self.hot, self.plain):
            client.get("/api/v1/status", {"Authorization": token})
        return str(token)


@pytest.fixture
def pair(desk: Any) -> Pair:
    return Pair(desk, type(desk.client))


@pytest.mark.parametrize("path", [PATH, f"{PATH}?timeframe=H1", "/api/v1/predictions/USDJPY"])
def test_the_usual_question(pair: Pair, path: str) -> None:
    token = pair.bearer()
    answer, fast = pair.ask(path, authorization=token)
    assert (answer.status_code, fast) == (200, True)
    assert answer.headers["ratelimit-remaining"] == "58"
    assert answer.headers["x-request-id"] == "req-1"
    again, fast = pair.ask(path, authorization=token, if_none_match=answer.headers["etag"])
    assert (again.status_code, again.content, fast) == (304, b"", True)
    other, fast = pair.ask(path, authorization=token, if_none_match='W/"another"')
    assert (other.status_code, fast) == (200, True)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/api/v1/predictions/eurusd", {}, 200),
        ("/api/v1/predictions/EUR%2FUSD", {}, 404),
        (f"{PATH}?timeframe=h1", {}, 200),
        (f"{PATH}?timeframe=H1&timeframe=H1", {}, 200),
        (f"{PATH}?more=1", {}, 200),
        (f"{PATH}?timeframe=M15", {}, 503),
        (f"{PATH}?model=h1-0123456789abcdef", {}, 404),
        (f"{PATH}?timeframe=H7", {}, 422),
        (f"{PATH}/", {}, 404),
        ("/api/v1/predictions/EURXXX", {}, 404),
        (PATH, {"if_none_match": '"a", "b"'}, 200),
        (PATH, {"if_none_match": "*"}, 304),
        (PATH, {"content_length": "5000"}, 413),
        (PATH, {"content_length": "0"}, 200),
        (PATH, {"transfer_encoding": "chunked"}, 411),
    ],
)
def test_an_unusual_question_is_passed_on(pair: Pair, path: str, headers: dict[str, str], status: int) -> None:
    answer, fast = pair.ask(path, authorization=pair.bearer(), **headers)
    assert (answer.status_code, fast) == (status, False)


def test_an_id_that_may_not_be_logged_is_replaced(pair: Pair) -> None:
    given = {"Authorization": pair.bearer(), "X-Request-Id": "no id!"}
    for client in (pair.hot, pair.plain):
        assert len(client.get(PATH, given).headers["x-request-id"]) == 32


def test_what_is_worth_compressing_is_passed_on(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    token = pair.bearer()
    assert pair.ask(authorization=token, accept_encoding="gzip")[1]
    monkeypatch.setattr(hot_path, "COMPRESSED_FROM", 100)
    assert not pair.ask(authorization=token, accept_encoding="gzip")[1]


def test_who_may_not_ask(pair: Pair) -> None:
    assert pair.ask()[0].status_code == 401
    assert pair.ask(authorization="Bearer nonsense")[0].status_code == 401
    assert pair.ask(authorization=pair.bearer(scopes=["signals"]))[0].status_code == 403
    assert pair.ask(authorization=pair.bearer(), method="HEAD")[0].status_code == 200
    assert pair.ask(authorization=pair.bearer(), method="POST")[0].status_code == 405


def test_the_61st_is_refused_alike(desk: Any) -> None:
    pair = Pair(desk, type(desk.client), per_minute=4)
    token = pair.bearer()
    seen = [pair.ask(authorization=token) for _ in range(5)]
    assert [(answer.status_code, fast) for answer, fast in seen] == [(200, True)] * 3 + [(429, False)] * 2


def test_a_board_without_forecasts_is_starting(make_desk: Any) -> None:
    desk = make_desk()
    pair = Pair(desk, type(desk.client))
    answer, fast = pair.ask(authorization=pair.bearer())
    assert (answer.status_code, answer.headers["retry-after"], fast) == (503, "5", False)


def test_a_stale_forecast_says_so(pair: Pair) -> None:
    token = pair.bearer()
    fresh, _ = pair.ask(authorization=token)
    pair.desk.clock.advance(hours=3)
    stale, fast = pair.ask(authorization=token, if_none_match=fresh.headers["etag"])
    assert (stale.status_code, stale.json()["stale"], fast) == (200, True, True)


@pytest.mark.parametrize("origin", ["https://desk.example", "https://evil.example"])
def test_other_origins_are_passed_on(make_desk: Any, origin: str) -> None:
    desk = make_desk(cors_origins="https://desk.example").fill()
    pair = Pair(desk, type(desk.client))
    token = pair.bearer()
    assert pair.ask(authorization=token)[1]
    answer, fast = pair.ask(authorization=token, origin=origin)
    assert not fast
    assert ("access-control-allow-origin" in answer.headers) == (origin == "https://desk.example")


def test_a_fault_is_answered_by_the_app_inside(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    token = pair.bearer()

    def fail(*_: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(pair.desk.board, "forecast", fail)
    answer, fast = pair.ask(authorization=token)
    assert (answer.status_code, fast) == (500, False)
