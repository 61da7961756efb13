"""The Python client against the real API over HTTP on loopback, and its parts alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from lstmc_client import errors
from lstmc_client.client import Client
from lstmc_client.events import EventReader
from serve_app.examples import EXAMPLES, OTHER_EXAMPLES
from serve_app.responses import PredictionBody
from tests.browser.conftest import Site, make_site, site

__all__ = ["make_site", "site"]  # fixtures
ROOT = Path(__file__).parents[2]
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


class Wire(httpx.HTTPTransport):
    """The real transport, which notes what passes; a stream breaks at the next chunk for which `cut` is true."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int]] = []
        self.resumed: list[str | None] = []
        self.cut: Callable[[], bool] = lambda: False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = super().handle_request(request)
        self.seen.append((request.url.path, answer.status_code))
        if request.url.path.endswith("stream"):
            self.resumed.append(request.headers.get("last-event-id"))
            answer.stream = Cut(answer.stream, self)
        return answer


class Cut(httpx.SyncByteStream):
    def __init__(self, inner: Any, wire: Wire) -> None:
        self._inner, self._wire = inner, wire

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._inner:
            if self._wire.cut():
                raise httpx.ReadError("the cable was pulled")
            yield chunk

    def close(self) -> None:
        self._inner.close()


@pytest.fixture
def make_client(site: Site) -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def make(token: str | None = None, **given: Any) -> Client:
        clients.append(Client(site.url, token or site.token(), **given))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def no_wait(seconds: float) -> None:
    raise AssertionError(f"waited {seconds} s")


def test_every_read_gives_typed_values_and_aware_times(make_client: Callable[..., Client], site: Site) -> None:
    client = make_client(sleep=no_wait)
    prediction = client.prediction("EURUSD")
    assert (prediction.symbol, prediction.as_of, prediction.stale) == ("EURUSD", NOON, False)
    assert [h.bars for h in prediction.horizons] == [1, 24]
    assert set(prediction.horizons[0].quantiles or {}) == {0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95}
    assert prediction.horizons[1].target_time == NOON + timedelta(hours=24)
    assert prediction.skill[0].period_from == datetime(2025, 3, 5, tzinfo=UTC)
    everything = client.predictions("H1")
    assert (set(everything.found), everything.missing) == ({"EURUSD", "GBPUSD", "USDJPY"}, {})
    assert {code: signal.side for code, signal in client.signals().items()} == {
        "EURUSD": "none",
        "GBPUSD": "buy",
        "USDJPY": "none",
    }
    model, status = client.model("EURUSD"), client.status()
    assert (model.id, model.trained_until, model.made_at) == ("h1-2f9c64e1aa07b35d", NOON, None)
    assert (status.ready, status.market, status.market_time) == (True, "simulated", NOON + timedelta(seconds=20))
    skill = client.skill()
    assert list(skill["target"]) == ["rv24", "r24", "sign24", "sign1"]
    assert skill["period_to"].iloc[0] == NOON - timedelta(days=60)
    bars = client.bars("EURUSD", limit=5)
    assert (bars.index[-1], bars.index.name, str(bars.index.tz)) == (NOON, "close_time", "UTC")
    assert list(bars["close"]) == [row[4] for row in site.market.bars["EURUSD"][-5:]]


def test_history_reads_page_after_page(make_client: Callable[..., Client], site: Site, monkeypatch: Any) -> None:
    site.market.write_history(site.settings, 30)
    monkeypatch.setattr("lstmc_client.client.PAGE", 7)
    wire = Wire()
    client = make_client(transport=wire, sleep=no_wait)
    whole = client.history("EURUSD")
    assert (len(whole), whole["seq"].nunique(), len(wire.seen)) == (60, 30, 5)
    assert whole["as_of"].is_monotonic_decreasing
    assert whole["outcome_return"].isna().sum() == 1 + 24
    assert list(client.history("EURUSD", limit=10)["seq"].unique()) == list(range(30, 20, -1))
    some = client.history("EURUSD", since=NOON - timedelta(hours=4), until=NOON)
    assert sorted(some["as_of"].unique()) == [NOON - timedelta(hours=n) for n in (4, 3, 2, 1)]
    assert client.history("GBPUSD").empty
    with pytest.raises(ValueError, match="has no zone"):
        client.history("EURUSD", since=NOON.replace(tzinfo=None))


def test_what_has_not_changed_costs_a_304(make_client: Callable[..., Client], site: Site) -> None:
    wire = Wire()
    client = make_client(transport=wire)
    first, second = client.prediction("EURUSD"), client.prediction("EURUSD")
    client.bars("EURUSD")
    client.bars("EURUSD")
    assert [status for _, status in wire.seen] == [200, 304, 200, 304]
    assert first == second
    site.publish(site.market.close_a_bar())
    assert client.prediction("EURUSD").as_of == NOON + timedelta(hours=1)


def test_it_waits_as_retry_after_says(make_client: Callable[..., Client], site: Site) -> None:
    site.board._cards.clear()  # as before the first forecast
    waited = []

    def publish_instead(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            site.publish(site.market.close_a_bar())

    assert make_client(sleep=publish_instead).prediction("EURUSD").as_of == NOON + timedelta(hours=1)
    assert waited == [10, 10]


def test_it_does_not_wait_for_ever(make_client: Callable[..., Client], site: Site) -> None:
    site.board._cards.clear()
    waited: list[float] = []
    with pytest.raises(errors.NotReady, match="No forecast yet") as refused:
        make_client(patience=25, sleep=waited.append).prediction("EURUSD")
    assert (waited, refused.value.kind) == ([10, 10], "no-forecast")


def test_the_minute_is_respected(make_site: Callable[..., Site]) -> None:
    narrow = make_site(requests_per_minute=2)
    with Client(narrow.url, narrow.token(), patience=5) as client:
        client.status()
        client.status()
        with pytest.raises(errors.TooManyRequests, match="2 times a minute") as refused:
            client.status()
    assert "Retry-After" in refused.value.hint


def test_problems_become_errors_that_say_what_to_do(make_client: Callable[..., Client], site: Site) -> None:
    with pytest.raises(errors.BadRequest, match=r"'EURXXX' is not served here\. Served: EURUSD") as refused:
        make_client().prediction("EURXXX")
    assert (refused.value.status, refused.value.kind) == (404, "unknown-symbol")
    assert refused.value.more["served"] == ["EURUSD", "GBPUSD", "USDJPY"]
    assert len(refused.value.request_id) == 32
    with pytest.raises(errors.BadRequest, match="is not served here"):
        make_client().prediction("EUR?x=1#y")
    with pytest.raises(errors.NotAuthenticated, match="lstmc token issue"):
        make_client("nonsense").status()
    with pytest.raises(errors.NotAllowed, match="lacks the scope 'signals'"):
        make_client(site.token(scopes=("read",))).signals()
    with pytest.raises(errors.NotAuthenticated):
        next(make_client("nonsense").stream())


def test_nobody_there() -> None:
    with Client("http://127.0.0.1:9", "token", patience=5, sleep=lambda _: None) as client:
        with pytest.raises(errors.Unreachable, match="Is it running"):
            client.status()
        with pytest.raises(errors.Unreachable, match="Is it running"):
            next(client.stream())


def test_a_forecast_by_another_model_is_told_apart() -> None:
    other = OTHER_EXAMPLES[PredictionBody]["on_demand"]
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(dict(request.url.params))
        return httpx.Response(200, json=other if "model" in request.url.params else EXAMPLES[PredictionBody])

    with Client("http://lstmc", "token", transport=httpx.MockTransport(answer)) as client:
        usual, made = client.prediction("EURUSD"), client.prediction("EURUSD", model=other["model_id"])
    assert seen == [{}, {"model": other["model_id"]}]
    assert [(p.on_demand, p.recorded) for p in (usual, made)] == [(False, True), (True, False)]
    assert (made.skill[0].value, made.skill[0].live_value) == (0.031, None)
    assert made.skill[0].live_reason


def test_a_proxys_own_page_is_an_error_too() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(502, text="<h1>Bad Gateway</h1>"))
    client = Client("http://lstmc", "token", transport=transport)
    with pytest.raises(errors.ServerFault, match=r"502 .*Bad Gateway"):
        client.status()
    client.close()


def test_the_stream_goes_on_after_a_break_without_a_gap(make_client: Callable[..., Client], site: Site) -> None:
    wire = Wire()

    def mend(_: float) -> None:
        wire.cut = lambda: False
        site.publish(site.market.close_a_bar())  # while nobody listens

    client = make_client(transport=wire, sleep=mend)
    events = client.stream()
    first = next(events)
    assert (first.kind, set(first.predictions)) == ("snapshot", {"EURUSD/H1", "GBPUSD/H1", "USDJPY/H1"})
    assert (first.signals["GBPUSD/H1"].side, first.market_time) == ("buy", NOON + timedelta(seconds=20))
    site.publish(site.market.close_a_bar())
    second = next(events)
    assert (second.kind, second.predictions["EURUSD/H1"].as_of) == ("update", NOON + timedelta(hours=1))
    wire.cut = lambda: True
    site.publish(site.market.close_a_bar())  # on the wire, lost
    third, fourth = next(events), next(events)
    assert [e.predictions["EURUSD/H1"].as_of.hour for e in (third, fourth)] == [14, 15]
    assert wire.resumed == [None, second.id]


def test_an_event_that_was_cut_off_is_asked_for_again() -> None:
    reader = EventReader()
    lines = 'retry: 500||id: a-1|event: update|data: {"n":|data: 1}||: comment|id: a-2|data: {"n"'.split("|")
    [event] = reader.read(lines)
    assert (event.kind, event.id, event.data) == ("update", "a-1", {"n": 1})
    assert (reader.last_id, reader.retry_seconds) == ("a-1", 0.5)


class Enough(Exception):
    pass


def test_the_example_in_the_docs_runs(site: Site) -> None:
    site.market.write_history(site.settings, 30)
    [example] = re.findall(r"```python\n(.*?lstmc_client.*?)```", (ROOT / "docs" / "api.md").read_text(), re.DOTALL)
    printed: list[tuple[Any, ...]] = []

    def print_three(*said: Any) -> None:
        printed.append(said)
        if len(printed) == 3:  # the stream would go on
            raise Enough

    with pytest.raises(Enough):
        exec(example.replace("http://127.0.0.1:8000", site.url), {"token": site.token(), "print": print_three})
    assert printed[0][0] == NOON
    assert printed[1][0].between(0, 1).all()
    assert printed[2] == ("snapshot", NOON + timedelta(seconds=20), ["EURUSD/H1", "GBPUSD/H1", "USDJPY/H1"])
