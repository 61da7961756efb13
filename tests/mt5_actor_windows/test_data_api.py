"""The same bars over HTTP: key, forms, limits, what is said to bad requests, and the client that reads it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from market.bars import BAR_SCHEMA
from market.errors import ConfigError, InputError, NodeDown, NotConnected, PortInUse, UnknownSymbol
from mt5_actor_windows import client as client_module
from mt5_actor_windows.admission import Admission
from mt5_actor_windows.api_keys import PLAIN_VARIABLE, KeyRing
from mt5_actor_windows.client import HttpBarSource
from mt5_actor_windows.data_api import ARROW, create_app
from mt5_actor_windows.listening import DataApi, serve_in_thread
from mt5_actor_windows.session import Mt5Session

KEY = "a-key-of-some-length"
DAY = "from=2022-03-15T00:00:00Z&to=2022-03-16T00:00:00Z"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PLAIN_VARIABLE, KEY)


def serve(source: Any, port: int = 0) -> DataApi:
    return serve_in_thread(create_app(source, Admission(KeyRing(Path("no-home")), 1200)), "127.0.0.1", port)


def client_of(served: DataApi) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{served.port}", headers={"X-API-Key": KEY}, trust_env=False)


@pytest.fixture
def session(simulated: Callable[..., Any]) -> Mt5Session:
    stand = simulated()
    return Mt5Session(lambda: stand.terminal, stand.broker, stand.clock)


@pytest.fixture
def served(session: Mt5Session) -> Iterator[DataApi]:
    running = serve(session)
    yield running
    running.stop()


@pytest.fixture
def api(served: DataApi) -> Iterator[httpx.Client]:
    with client_of(served) as client:
        yield client


@pytest.fixture
def source(served: DataApi) -> Iterator[HttpBarSource]:
    made = HttpBarSource(f"http://127.0.0.1:{served.port}/", KEY)
    yield made
    made.close()


@pytest.mark.parametrize("key", ["", "wrong", KEY + "x", "ключ".encode()])
@pytest.mark.parametrize("path", ["/mt5/health", "/mt5/prices/EURUSD", "/nothing"])
def test_without_the_key_nothing_is_said(api: httpx.Client, key: str | bytes, path: str) -> None:
    answer = api.get(path, headers={"X-API-Key": key})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert "X-API-Key" in answer.json()["hint"]


def test_history_as_json(api: httpx.Client) -> None:
    found = api.get(f"/mt5/history/eurusd/h1?{DAY}").json()
    assert found["count"] == len(found["bars"]) == 24
    first = found["bars"][0]
    assert (first["open_time"], first["close_time"]) == ("2022-03-15T00:00:00Z", "2022-03-15T01:00:00Z")
    assert first["symbol"] == "EURUSD"
    assert found["reason"] == ""
    nothing = api.get("/mt5/history/EURUSD/H1?from=2022-03-12T00:00:00Z&to=2022-03-13T00:00:00Z").json()
    assert nothing == {"bars": [], "count": 0, "reason": "The source has no bars in this range."}


@pytest.mark.parametrize(("query", "accept"), [("&format=arrow", "*/*"), ("", ARROW)])
def test_history_as_arrow(api: httpx.Client, query: str, accept: str) -> None:
    answer = api.get(f"/mt5/history/EURUSD/H1?{DAY}{query}", headers={"Accept": accept})
    assert answer.headers["content-type"] == ARROW
    with pa.ipc.open_stream(answer.content) as reader:
        assert reader.read_all().cast(BAR_SCHEMA).num_rows == 24


def test_default_range_ends_at_the_markets_now(api: httpx.Client) -> None:
    bars = api.get("/mt5/history/EURUSD/H1").json()["bars"]
    assert bars[-1]["close_time"] == "2022-03-16T14:00:00Z"
    assert len(bars) > 300


def test_health_prices_ticks(api: httpx.Client) -> None:
    assert api.get("/mt5/health").json()["connected"] is True
    assert api.get("/mt5/prices/EURUSD").json()["time"] == "2022-03-16T14:37:45Z"
    assert len(api.get("/mt5/prices?symbols=EURUSD,USDJPY").json()["prices"]) == 2
    ticks = api.get("/mt5/ticks/EURUSD?from=2022-03-16T14:00:00Z&limit=5").json()
    assert ticks["count"] == 5
    assert ticks["ticks"][0]["time"] == "2022-03-16T14:00:00Z"


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/mt5/history/EURXXX/H1", 404, "Unknown symbol 'EURXXX'"),
        ("/mt5/history/GBPUSD/H1", 404, "does not offer GBPUSD"),
        ("/mt5/history/EURUSD/H7", 400, "Unknown timeframe 'H7'"),
        ("/mt5/history/EURUSD/H1?from=yesterday", 400, "from='yesterday' is not a time"),
        ("/mt5/history/EURUSD/H1?from=2022-03-16", 400, "2020-03-02T14:00:00Z"),
        ("/mt5/history/EURUSD/H1?from=2022-03-16T10:00:00", 400, "with a zone"),
        ("/mt5/history/EURUSD/H1?to=2022-13-45T10:00:00Z", 400, "to='2022-13-45T10:00:00Z' is not a time"),
        ("/mt5/history/EURUSD/H1?from=2022-03-16T00:00:00Z&to=2022-03-15T00:00:00Z", 400, "before from"),
        ("/mt5/history/EURUSD/M1?from=2012-03-16T00:00:00Z&to=2022-03-15T00:00:00Z", 400, "too long"),
        ("/mt5/history/EURUSD/H1?from=0001-01-01T00:00:00Z&to=0001-02-01T00:00:00Z", 400, "out of range"),
        ("/mt5/history/EURUSD/H1?to=0001-01-01T00:00:00Z", 400, "out of range"),
        ("/mt5/history/EURUSD/H1?from=9999-12-01T00:00:00Z", 400, "out of range"),
        ("/mt5/ticks/EURUSD?from=9999-12-31T23:59:59Z", 400, "out of range"),
        ("/mt5/ticks/EURUSD?from=2022-03-16T00:00:00Z&to=2022-03-15T00:00:00Z", 400, "before from"),
        ("/mt5/history/EURUSD/H1?format=xml", 400, "json or arrow"),
        ("/mt5/ticks/EURUSD", 400, "from is missing"),
        ("/mt5/ticks/EURUSD?from=2022-03-16T00:00:00Z&limit=0", 400, "limit=0"),
        ("/mt5/ticks/EURUSD?from=2022-03-16T00:00:00Z&limit=many", 400, "limit"),
        ("/mt5/nothing", 404, "Not Found"),
    ],
)
def test_bad_requests_say_what_to_do(api: httpx.Client, path: str, status: int, says: str) -> None:
    answer = api.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert says in problem["detail"] + problem["hint"]
    assert problem["status"] == status


def test_an_unescaped_plus_is_understood(api: httpx.Client) -> None:
    query = "from=2022-03-15T01:00:00+01:00&to=2022-03-16T01:00:00+0100"
    assert api.get(f"/mt5/history/EURUSD/H1?{query}").json()["count"] == 24


def test_a_terminal_that_is_away_is_503() -> None:
    class Away:
        def prices(self, symbols: list[str]) -> list[dict[str, Any]]:
            raise NotConnected("No connection to the terminal.", hint="Start it.")

    running = serve(Away())
    with client_of(running) as client:
        answer = client.get("/mt5/prices/EURUSD")
    running.stop()
    assert (answer.status_code, answer.json()["hint"]) == (503, "Start it.")


def test_the_client_reads_what_the_session_says(session: Mt5Session, source: HttpBarSource) -> None:
    since = datetime(2022, 3, 9, tzinfo=UTC)
    here, there = session.closed_bars("EURUSD", "H1", since), source.closed_bars("EURUSD", "H1", since)
    assert there.schema == BAR_SCHEMA
    assert there.drop_columns(["received_at"]).equals(here.drop_columns(["received_at"]))
    assert source.prices(["EURUSD", "USDJPY"]) == session.prices(["EURUSD", "USDJPY"])
    assert source.health()["now"] == session.health()["now"]
    assert source.ticks("EURUSD", since, since + timedelta(minutes=2)).num_rows == 9


def test_long_ranges_come_in_pieces_without_seams(
    source: HttpBarSource, session: Mt5Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "PIECE_BARS", 100)
    since = datetime(2022, 2, 1, tzinfo=UTC)
    whole = session.closed_bars("EURUSD", "H1", since)
    assert source.closed_bars("EURUSD", "H1", since)["open_time"].equals(whole["open_time"])


def test_errors_come_back_as_what_they_were(served: DataApi, source: HttpBarSource) -> None:
    since = datetime(2022, 3, 16, tzinfo=UTC)
    with pytest.raises(UnknownSymbol, match="does not offer"):
        source.closed_bars("GBPUSD", "H1", since)
    with pytest.raises(InputError, match="before from"):
        source.closed_bars("EURUSD", "H1", since, since - timedelta(days=1))
    stranger = HttpBarSource(f"http://127.0.0.1:{served.port}", "wrong")
    with pytest.raises(NotConnected, match="API key"):
        stranger.prices(["EURUSD"])
    assert stranger.health()["connected"] is False
    stranger.close()


def test_a_key_that_was_changed_is_read_again(monkeypatch: pytest.MonkeyPatch, session: Mt5Session) -> None:
    file = ["old"]
    monkeypatch.setenv(PLAIN_VARIABLE, "old")
    running = serve(session)
    client = HttpBarSource(running.url, lambda: file[0])
    assert client.health()["connected"] is True
    running.stop()
    monkeypatch.setenv(PLAIN_VARIABLE, "new")
    again = serve(session, running.port)
    with pytest.raises(NotConnected, match="API key"):
        client.prices(["EURUSD"])
    file[0] = "new"
    assert client.prices(["EURUSD"])[0]["symbol"] == "EURUSD"
    client.close()
    again.stop()


def test_a_host_that_is_gone_is_node_down() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    gone = HttpBarSource("http://10.0.0.1:8001", KEY, transport=httpx.MockTransport(refuse))
    with pytest.raises(NodeDown, match="cannot be reached"):
        gone.closed_bars("EURUSD", "H1", datetime(2022, 3, 16, tzinfo=UTC))
    assert gone.health()["connected"] is False


@pytest.mark.parametrize(
    ("answers", "waits", "passes"),
    [
        ([("7", 429), ("", 200)], [7.0], True),
        ([("600", 429), ("0", 429), ("", 200)], [30.0, 0.0], True),
        ([("soon", 429), ("", 200)], [1.0], True),
        ([("2", 429), ("3", 429), ("4", 429), ("", 200)], [2.0, 3.0], False),
        ([("5", 503)], [], False),
    ],
)
def test_too_many_requests_are_asked_again_within_reason(
    answers: list[tuple[str, int]], waits: list[float], passes: bool
) -> None:
    script, paused = iter(answers), []

    def answer(request: httpx.Request) -> httpx.Response:
        wait, status = next(script)
        body = {"prices": [], "detail": "This key may ask 3 times a minute."}
        return httpx.Response(status, json=body, headers={"Retry-After": wait} if wait else {})

    source = HttpBarSource("http://host:1", KEY, transport=httpx.MockTransport(answer), pause=paused.append)
    if passes:
        assert source.prices(["EURUSD"]) == []
    else:
        with pytest.raises(NotConnected, match="3 times a minute"):
            source.prices(["EURUSD"])
    assert paused == waits


def test_something_else_on_that_port_is_no_market() -> None:
    page = httpx.MockTransport(lambda request: httpx.Response(200, text="<html>"))
    source = HttpBarSource("http://host:80", KEY, transport=page)
    since = datetime(2022, 3, 16, tzinfo=UTC)
    with pytest.raises(NotConnected, match="not Arrow"):
        source.closed_bars("EURUSD", "H1", since, since + timedelta(days=1))
    with pytest.raises(NotConnected, match="not JSON"):
        source.prices(["EURUSD"])
    with pytest.raises(ConfigError, match="not a URL"):
        HttpBarSource("host:80", KEY)


def test_a_taken_port_is_named(served: DataApi, session: Mt5Session) -> None:
    with pytest.raises(PortInUse, match=str(served.port)):
        serve(session, served.port)
