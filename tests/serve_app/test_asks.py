"""Forecasts on demand over HTTP, with an injected predictor and in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from market.forecasts import iso_utc
from serve_app import asks
from serve_app.api import make_api
from serve_app.asks import Busy
from serve_app.hot_path import HotPath
from serve_app.lookups import ledger_lookups
from serve_app.on_demand import UNRECORDED, Batch
from serve_app.rate_limit import RateLimiter
from serve_app.responses import PredictionBody, ProblemBody
from tests.made_bundles import new_bundle
from tests.serve_app.made_board import SYMBOLS, skill_cards
from tests.virtual_time import run
from tuning.bundle_signature import BundleKeys
from tuning.registry import Registry

PATH = "/api/v1/predictions"
UNKNOWN = "h1-0123456789abcdef"
Ask = Callable[..., Awaitable[httpx.Response]]


class Inline(ThreadPoolExecutor):
    """Threads know no virtual time."""

    def submit(self, call: Any, /, *given: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(call(*given, **named))
        except BaseException as error:
            done.set_exception(error)
        return done


class Bench:
    """The API over a made board, a real registry of two models, and a predictor that does as it is told."""

    def __init__(self, desk: Any, folder: Path) -> None:
        self.desk, self._folder = desk, folder
        self.registry = Registry(desk.settings.registry_path, BundleKeys(desk.settings.model_keys_path))
        self.first, self.second = self.add(1.0, symbols=SYMBOLS, skill=skill_cards()), self.add(2.0, symbols=SYMBOLS)
        self.calls: list[tuple[str, list[str]]] = []
        self.seconds, self.trouble = 0.0, list[Exception]()
        self.lacking: dict[str, tuple[str, str]] = {}
        self.refused = ""
        app = make_api(
            desk.settings,
            desk.board,
            RateLimiter(10**6),
            desk.clock,
            ledger_lookups(desk.settings),
            compute=self.compute,
        )
        self.app = HotPath(app, desk.settings, desk.board, app.state.admission)

    def add(self, value: float, **card: Any) -> str:
        return self.registry.add(new_bundle(self._folder / f"new-{value}", value, **card)).id

    async def compute(self, model_id: str, symbols: Sequence[str]) -> Batch:
        self.calls.append((model_id, list(symbols)))
        await asyncio.sleep(self.seconds)
        if self.trouble:
            raise self.trouble.pop()
        if not self.desk.market.bars:
            self.desk.market.update()
        made = {s: self.desk.market.forecast(s).to_dict() | {"model_id": model_id} | UNRECORDED for s in symbols}
        forecasts = {s: f for s, f in made.items() if s not in self.lacking}
        return Batch(forecasts, [card.to_dict() for card in skill_cards()], self.lacking, self.refused)

    def run(self, main: Callable[[Ask], Awaitable[Any]]) -> Any:
        """`main` in virtual time, given what asks."""

        async def inside() -> Any:
            asyncio.get_running_loop().set_default_executor(Inline())
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://lstmc", headers=self.desk.bearer()
            ) as web:

                async def ask(symbol: str = "EURUSD", **asked: str) -> httpx.Response:
                    headers = {"If-None-Match": asked.pop("etag")} if "etag" in asked else {}
                    return await web.get(f"{PATH}/{symbol}", params=asked, headers=headers)

                return await main(ask)

        return run(inside())

    def ask(self, symbol: str = "EURUSD", **asked: str) -> httpx.Response:
        answer: httpx.Response = self.run(lambda ask: ask(symbol, **asked))
        return answer


@pytest.fixture
def bench(desk: Any, tmp_path: Path) -> Bench:
    return Bench(desk, tmp_path)


@pytest.fixture
def cold(make_desk: Any, tmp_path: Path) -> Bench:
    return Bench(make_desk(), tmp_path)


def is_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body.get("type")) == (status, f"urn:lstmc:problem:{code}"), body
    ProblemBody.model_validate(body)
    assert body["hint"]
    assert ("retry-after" in answer.headers) == (status == 503)
    return body


def moment() -> float:
    return asyncio.get_running_loop().time()


# What is answered


def test_another_model_forecasts_the_newest_bars(bench: Bench) -> None:
    answer = bench.ask(model=bench.first)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    PredictionBody.model_validate(body)
    assert (body["model_id"], body["data_version"], body["market"]) == (bench.first, "bars@412", "simulated")
    assert (body["on_demand"], body["recorded"], body["signal"]["side"]) == (True, False, "none")
    assert (body["signal"]["reason_code"], body["reason_code"], body["data_age_seconds"]) == ("on_demand", "", 20)
    assert body["skill"][0]["in_words"].startswith("Volatility, next 24 bars")
    assert (answer.headers["cache-control"], answer.headers["ratelimit-limit"]) == ("private, no-cache", "1000000")
    assert bench.calls == [(bench.first, ["EURUSD"])]


def test_the_usual_question_asks_nobody(bench: Bench) -> None:
    usual = bench.ask()
    assert usual.status_code == 200
    assert not {"on_demand", "recorded", "signal"} & usual.json().keys()
    assert bench.calls == []


def test_the_model_that_serves_has_its_answer_on_the_board(bench: Bench) -> None:
    bench.desk.board.update.forecasts["EURUSD/H1"]["model_id"] = bench.first
    bench.desk.board._render("EURUSD/H1")
    named, usual = bench.ask(model=bench.first), bench.ask()
    assert named.headers["etag"] == usual.headers["etag"]
    assert "on_demand" not in named.json()
    assert bench.calls == []
    assert bench.ask(model=bench.second).json()["on_demand"]


def test_a_champion_answers_before_the_forecaster_has_come_to_it(cold: Bench) -> None:
    cold.registry.promote(cold.first, "first")
    answer = cold.ask()
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["model_id"], body["on_demand"], body["reason_code"]) == (cold.first, True, "forecaster_away")
    cold.desk.fill()
    assert "on_demand" not in cold.ask().json()
    assert len(cold.calls) == 1


@pytest.mark.parametrize(("code", "status"), [("model_missing", 200), ("forecast_failed", 503), ("data_refused", 503)])
def test_where_the_forecaster_has_failed_nobody_else_is_asked(cold: Bench, code: str, status: int) -> None:
    cold.registry.promote(cold.first, "first")
    series = {"EURUSD/H1": {"code": code, "reason": "so it is"}}
    cold.desk.board.apply(cold.desk.market.update(with_forecasts=False, series=series))
    answer = cold.ask()
    assert answer.status_code == status
    assert answer.json().get("detail", "so it is") == "so it is"
    assert len(cold.calls) == (status == 200)


def test_what_is_wrong_is_judged_at_every_answer(bench: Bench) -> None:
    bench.desk.board.update.status["series"] = {
        "EURUSD/H1": {"code": "forecast_failed", "reason": "the champion's own"}
    }
    fresh = bench.ask(model=bench.first)
    assert fresh.json()["reason"] == ""
    bench.desk.clock.advance(hours=3)
    stale = bench.ask(model=bench.first, etag=fresh.headers["etag"])
    assert (stale.status_code, stale.json()["stale"], stale.json()["reason_code"]) == (200, True, "late_bar")
    bench.desk.clock.advance(days=3)
    assert bench.ask(model=bench.first).json()["market_open"] is False


# Problems


def test_models_that_cannot_be_asked(bench: Bench) -> None:
    hourly, tampered = bench.add(3.0), bench.add(4.0)
    other_frame = bench.add(5.0, timeframe="M15", symbols=SYMBOLS)
    daily = bench.add(6.0, timeframe="D1")
    manifest = bench.registry.path(tampered) / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"2020", b"2021"))
    is_problem(bench.ask(model=UNKNOWN), 404, "unknown-model")
    for strange in ("", "../h1-0123456789abcdef", "h1-" + "0" * 300, "h1-0123456789ABCDEF"):
        is_problem(bench.ask(model=strange), 422, "bad-input")
    body = is_problem(bench.ask("GBPUSD", model=hourly), 422, "model-mismatch")
    assert body["trained_on"] == {"symbols": ["EURUSD"], "timeframe": "H1"}
    is_problem(bench.ask(model=other_frame, timeframe="H1"), 422, "model-mismatch")
    is_problem(bench.ask(model=daily), 422, "unknown-timeframe")
    is_problem(bench.ask(model=tampered), 422, "model-refused")
    is_problem(bench.ask("EURXXX", model=hourly), 404, "unknown-symbol")
    assert bench.calls == []
    assert bench.ask(model=other_frame).status_code == 200  # without a timeframe: the model's own


def test_a_bundle_that_is_refused_when_it_is_loaded(bench: Bench) -> None:
    bench.refused = "weights.json was changed after it was saved."
    assert "weights.json" in is_problem(bench.ask(model=bench.first), 422, "model-refused")["detail"]


def test_the_champions_own_trouble_is_not_the_callers(cold: Bench) -> None:
    cold.registry.promote(cold.first, "first")
    cold.refused = "weights.json was changed after it was saved."
    is_problem(cold.ask(), 503, "starting")
    cold.registry.path(cold.first).rename(cold.registry.root / "elsewhere")
    is_problem(cold.ask(timeframe="M15"), 503, "starting")


def test_too_few_bars(bench: Bench) -> None:
    bench.lacking = {"EURUSD": ("too-few-bars", "12 bars of EURUSD are stored, 300 are needed.")}

    async def main(ask: Ask) -> Any:
        answers = [await ask(symbol, model=bench.first) for symbol in ("EURUSD", "GBPUSD", "EURUSD")]
        await asyncio.sleep(asks.RECHECK_SECONDS)
        bench.lacking = {}
        return [*answers, await ask(model=bench.first)]

    few, good, again, later = bench.run(main)
    assert "12 bars" in is_problem(few, 503, "too-few-bars")["detail"]
    is_problem(again, 503, "too-few-bars")
    assert (good.status_code, later.status_code) == (200, 200)
    assert len(bench.calls) == 3


def test_no_champion(bench: Bench, cold: Bench) -> None:
    is_problem(bench.ask(timeframe="M15"), 503, "no-champion")
    is_problem(cold.ask(), 503, "starting")


def test_scope_and_token_as_for_the_board(bench: Bench) -> None:
    client, path = type(bench.desk.client)(bench.app), f"{PATH}/EURUSD?model={bench.first}"
    assert client.get(path).status_code == 401
    assert client.get(path, bench.desk.bearer(scopes=["signals"])).status_code == 403
    assert bench.calls == []


# Who travels together


def test_asks_of_the_same_moment_are_one_call(bench: Bench) -> None:
    bench.seconds = 0.5

    async def main(ask: Ask) -> Any:
        return await asyncio.gather(*(ask(SYMBOLS[i % 3], model=bench.first) for i in range(150)))

    answers = bench.run(main)
    assert {answer.status_code for answer in answers} == {200}
    assert bench.calls == [(bench.first, sorted(SYMBOLS))]
    assert len({answer.headers["etag"] for answer in answers}) == 3


def test_who_comes_later_joins_or_waits_for_the_next_call(bench: Bench) -> None:
    bench.seconds = 1.0

    async def main(ask: Ask) -> Any:
        async def late(symbol: str, seconds: float) -> float:
            await asyncio.sleep(seconds)
            assert (await ask(symbol, model=bench.first)).status_code == 200
            return moment()

        return await asyncio.gather(
            late("EURUSD", 0), late("EURUSD", 0.5), late("GBPUSD", 0.5), late("USDJPY", 0.9), late("GBPUSD", 1.5)
        )

    ended = bench.run(main)
    assert bench.calls == [(bench.first, ["EURUSD"]), (bench.first, ["GBPUSD", "USDJPY"])]
    assert ended == pytest.approx([1.01, 1.01, 2.01, 2.01, 2.01])


def test_models_do_not_wait_for_each_other(bench: Bench) -> None:
    bench.seconds = 1.0

    async def main(ask: Ask) -> float:
        await asyncio.gather(ask(model=bench.first), ask(model=bench.second))
        return moment()

    assert bench.run(main) == pytest.approx(1.01)
    assert sorted(bench.calls) == sorted([(bench.first, ["EURUSD"]), (bench.second, ["EURUSD"])])


# How long, and how many


def test_a_full_queue_is_said_at_once(bench: Bench) -> None:
    bench.trouble = [Busy()]
    is_problem(bench.ask(model=bench.first), 503, "on-demand-busy")
    assert bench.ask(model=bench.first).status_code == 200


def test_so_many_wait_and_no_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asks, "MOST_WAITING", 5)
    bench.seconds = 1.0

    async def main(ask: Ask) -> Any:
        answers = await asyncio.gather(*(ask(model=bench.first) for _ in range(200)))
        return answers, await ask("GBPUSD", model=bench.first)

    answers, after = bench.run(main)
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [503] * 195
    is_problem(next(answer for answer in answers if answer.status_code == 503), 503, "on-demand-busy")
    assert after.status_code == 200


def test_a_slow_model_is_ready_when_it_is_asked_again(bench: Bench) -> None:
    bench.seconds = 20.0

    async def main(ask: Ask) -> Any:
        first = await ask(model=bench.first)
        given_up = moment()
        await asyncio.sleep(13)
        return first, given_up, await ask(model=bench.first), moment()

    first, given_up, second, ready = bench.run(main)
    is_problem(first, 503, "on-demand-under-way")
    assert (given_up, ready) == (pytest.approx(8.0), pytest.approx(21.0))
    assert (second.status_code, len(bench.calls)) == (200, 1)


def test_a_model_that_hangs_is_left_alone_for_a_while(bench: Bench) -> None:
    bench.seconds = 10**6

    async def main(ask: Ask) -> Any:
        hung = [await ask(model=bench.first) for _ in range(8)]
        assert moment() == pytest.approx(60.01)  # four seconds after the eighth had come, the call was given up
        before, calls = moment(), len(bench.calls)
        bench.seconds = 0.0
        paused, other = await ask(model=bench.first), await ask(model=bench.second)
        assert moment() - before < 0.1
        assert len(bench.calls) == calls + 1
        await asyncio.sleep(float(paused.headers["retry-after"]))
        return hung, paused, other, await ask(model=bench.first)

    hung, paused, other, later = bench.run(main)
    assert [answer.json()["type"].rpartition(":")[2] for answer in hung] == ["on-demand-under-way"] * 7 + [
        "on-demand-failed"
    ]
    assert (
        59 <= int(is_problem(paused, 503, "on-demand-failed").get("status", 0) and paused.headers["retry-after"]) <= 60
    )
    assert (other.status_code, later.status_code) == (200, 200)


def test_a_model_that_takes_its_process_with_it(bench: Bench) -> None:
    bench.trouble = [RuntimeError("The replica died.")]

    async def main(ask: Ask) -> Any:
        return await asyncio.gather(*(ask(SYMBOLS[i % 3], model=bench.first) for i in range(6)))

    for answer in bench.run(main):
        body = is_problem(answer, 503, "on-demand-failed")
        assert "died" not in body["detail"]  # what another process says is for the log
    assert len(bench.calls) == 1


# What is kept


def test_polls_cost_nothing_until_a_bar_closes(bench: Bench) -> None:
    async def main(ask: Ask) -> None:
        first = await ask(model=bench.first)
        for _ in range(5):
            await asyncio.sleep(30)
            again = await ask(model=bench.first, etag=first.headers["etag"])
            assert (again.status_code, again.content) == (304, b"")
        assert len(bench.calls) == 1
        bench.desk.board.apply(bench.desk.market.close_a_bar())  # the board has a newer bar
        newer = await ask(model=bench.first, etag=first.headers["etag"])
        assert (newer.status_code, newer.json()["as_of"]) == (200, iso_utc(bench.desk.market.as_of))
        assert len(bench.calls) == 2

    bench.run(main)


def test_a_bar_that_is_due_is_looked_for_now_and_then(bench: Bench) -> None:
    async def main(ask: Ask) -> None:
        first = await ask(model=bench.first)
        bench.desk.clock.advance(minutes=59, seconds=50)  # within the grace: nothing is stale
        for _ in range(10):
            await asyncio.sleep(0.5)
            again = await ask(model=bench.first)
            assert again.headers["etag"] == first.headers["etag"]
        assert len(bench.calls) == 3
        bench.desk.clock.advance(hours=1)
        await asyncio.sleep(asks.RECHECK_SECONDS)
        late = (await ask(model=bench.first)).json()
        assert (late["as_of"], late["stale"], len(bench.calls)) == (first.json()["as_of"], True, 4)

    bench.run(main)


def test_the_oldest_answers_make_room(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asks, "ANSWERS_KEPT", 2)

    async def main(ask: Ask) -> None:
        for symbol in ("EURUSD", "GBPUSD", "EURUSD", "USDJPY", "EURUSD", "GBPUSD"):
            assert (await ask(symbol, model=bench.first)).status_code == 200
        assert [symbols for _, symbols in bench.calls] == [["EURUSD"], ["GBPUSD"], ["USDJPY"], ["GBPUSD"]]

    bench.run(main)
