"""The forecaster with a fake predictor, registry and ledger: what it serves, and what it does when one of them fails."""

from __future__ import annotations

import gc
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.forecast_record import RETRY_SECONDS as LEDGER_RETRY_SECONDS
from actors.forecast_spool import ForecastSpool, SpooledForecast
from actors.forecaster import Forecaster
from actors.ledger_reading import Settled
from actors.model_swap import MOST_TRIES, RETRY_SECONDS, UNREACHED_SECONDS
from actors.prediction_ledger import PredictionLedger
from configs.settings import Settings, make_settings
from market.bars import bars_from_columns
from market.forecasts import BoardUpdate, Forecast, HorizonForecast, SkillCard
from market.timeframes import Timeframe
from tuning.model_version import ModelVersion

START = datetime(2024, 3, 4, tzinfo=UTC)  # a Monday
HOUR = timedelta(hours=1)
NEEDED = 5


def version(model_id: str, symbols: tuple[str, ...] = ("EURUSD", "GBPUSD")) -> ModelVersion:
    cards = (
        SkillCard("rv24", "qlike", "har", 0.03, -2.5, 1000, passed_gate=True),
        SkillCard("r1", "pinball", "unconditional", 0.02, -2.2, 1000, passed_gate=True),
        SkillCard("sign1", "log_loss", "base_rate", -0.01, 0.4, 1000),
    )
    gate = {"sign1": {"promoted": False, "why": "log-loss is no better than the base rate."}}
    return ModelVersion(model_id, "H1", "econometric", symbols, (1, 24), START, START, "bars@0", "d", cards, gate)


def pointer_to(model_id: str) -> dict[str, Any]:
    return {"id": model_id, "since": "2026-01-01T00:00:00Z", "why": f"{model_id} is better"}


class World:
    """Bars, models and clocks that a test moves by hand; records every call."""

    def __init__(self, tmp_path: Path) -> None:
        self.settings: Settings = make_settings(
            home=tmp_path, symbols=("EURUSD", "GBPUSD"), timeframes=("H1",), speed=60
        )
        self.ledger = PredictionLedger(self.settings.ledger_url.get_secret_value(), "key")
        self.rows = 10
        self.models = {name: version(name) for name in ("h1-a", "h1-b")}
        self.pointer: dict[str, Any] | None = pointer_to("h1-a")
        self.demoted: list[tuple[str, str, str]] = []
        self.warm_answer: dict[str, Any] = {"ok": True, "reason": "", "bars_needed": NEEDED}
        self.warmed: list[str] = []
        self.proven: list[str] = []
        self.answers: dict[str, HorizonForecast] = {}  # by model, instead of a sound one
        self.predicted: list[tuple[str, list[str]]] = []
        self.predict_error: Exception | None = None
        self.published: list[BoardUpdate] = []
        self.wall = datetime(2026, 1, 1, tzinfo=UTC)

    def champion_pointer(self, timeframe: str) -> dict[str, Any] | None:
        return self.pointer if timeframe == "H1" else None

    def get(self, model_id: str) -> ModelVersion:
        return self.models[model_id]

    def demote(self, timeframe: str, model_id: str, why: str, evidence: dict[str, Any]) -> ModelVersion | None:
        self.demoted.append((timeframe, model_id, why))
        return None

    def refuse(self, timeframe: str, model_id: str, stays: str, why: str) -> None:
        if self.pointer and self.pointer["id"] == model_id:
            self.pointer = {"id": stays, "since": "2026-01-02T00:00:00Z", "why": why}

    def warm(self, model_id: str, prove: bool) -> dict[str, Any]:
        self.warmed.append(model_id)
        self.proven += [model_id] if prove else []
        return self.warm_answer

    def predict(self, model_id: str, bars: dict[str, pa.Table]) -> dict[str, tuple[HorizonForecast, ...]]:
        self.predicted.append((model_id, sorted(bars)))
        if self.predict_error:
            raise self.predict_error
        q = {"0.05": -0.01, "0.10": -0.005, "0.90": 0.005, "0.95": 0.01}
        as_of = {s: t["close_time"][-1].as_py() for s, t in bars.items()}
        if model_id in self.answers:
            return dict.fromkeys(bars, (self.answers[model_id],))
        return {
            s: tuple(HorizonForecast(h, as_of[s] + h * HOUR, 0.001, 1.0, q, None, 0.5) for h in (1, 24)) for s in bars
        }

    def tails(self, symbols: Sequence[str], timeframe: str, n: int) -> dict[str, pa.Table]:
        return {symbol: self.tail(symbol, timeframe, n) for symbol in symbols}

    def tail(self, symbol: str, timeframe: str, n: int) -> pa.Table:
        opens = np.array([START.replace(tzinfo=None) + i * HOUR for i in range(self.rows)], "datetime64[us]")
        close = 1.1 + 1e-4 * np.arange(self.rows)
        table = bars_from_columns(symbol, Timeframe.H1, opens, close, close, close, close, received_at=START)
        return table.slice(max(0, self.rows - n))

    def close_bar(self) -> list[pa.Table]:
        self.rows += 1
        return [self.tail(symbol, "H1", 1) for symbol in self.settings.symbols]

    def forecaster(self, **changed: Any) -> Forecaster:
        given: dict[str, Any] = {
            "registry": self,
            "tails": self.tails,
            "predict": self.predict,
            "warm": self.warm,
            "publish": self.published.append,
            "ledger": self.ledger,
            "spool": ForecastSpool(self.settings.spool_path, "key"),
            "now": lambda: START + self.rows * HOUR,
            "settings": self.settings,
            "data_version": lambda: "bars@3",
            "wall": lambda: self.wall,
        }
        return Forecaster(**given | changed)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.ledger.close()


def as_ofs(board: BoardUpdate) -> dict[str, str]:
    return {key: forecast["as_of"] for key, forecast in board.forecasts.items()}


def test_first_forecast_comes_from_stored_bars(world: World) -> None:
    forecaster = world.forecaster()
    forecaster.step()
    assert world.predicted == [("h1-a", ["EURUSD", "GBPUSD"])]  # one call for all symbols
    assert as_ofs(forecaster.snapshot()) == {"EURUSD/H1": "2024-03-04T10:00:00Z", "GBPUSD/H1": "2024-03-04T10:00:00Z"}
    assert world.ledger.count() == 2
    forecaster.step()
    assert len(world.predicted) == 1  # nothing new, nothing asked


def test_a_forecast_carries_model_data_version_and_skill(world: World) -> None:
    forecaster = world.forecaster()
    forecaster.step()
    answer = forecaster.snapshot().forecasts["EURUSD/H1"]
    assert (answer["model_id"], answer["data_version"], answer["market"]) == ("h1-a", "bars@3", "simulated")
    skill = {h["bars"]: [card["target"] for card in h["skill"]] for h in answer["horizons"]}
    assert skill == {1: ["r1", "sign1"], 24: ["rv24"]}
    assert forecaster.snapshot().models["H1"]["id"] == "h1-a"
    assert [card["target"] for card in forecaster.snapshot().skill["H1"]] == ["r1", "sign1", "rv24"]


def test_closed_bars_move_the_forecast_and_settle_the_old_one(world: World) -> None:
    forecaster = world.forecaster()
    forecaster.step()
    forecaster.on_bars(world.close_bar())
    assert set(as_ofs(forecaster.snapshot()).values()) == {"2024-03-04T11:00:00Z"}
    older = world.ledger.history("EURUSD", "H1")[1]
    assert older["outcomes"]["1"]["inside80"] is True
    forecaster.on_bars(world.close_bar())  # live figures are made anew when a forecast is out
    card = forecaster.snapshot().forecasts["EURUSD/H1"]["horizons"][0]["skill"][0]
    assert (card["live_coverage80"], card["live_n"]) == (1.0, 1)


def test_only_symbols_with_a_new_bar_are_asked(world: World) -> None:
    forecaster = world.forecaster()
    forecaster.step()
    forecaster.on_bars([table for table in world.close_bar() if table["symbol"][0].as_py() == "EURUSD"])
    assert world.predicted[-1] == ("h1-a", ["EURUSD"])


def test_the_same_bars_twice_write_one_forecast(world: World) -> None:
    forecaster = world.forecaster()
    forecaster.step()
    tables = world.close_bar()
    forecaster.on_bars(tables)
    forecaster.on_bars(tables)
    assert world.ledger.count() == 4


def test_no_signal_without_a_gate(world: World) -> None:
    forecaster = world.forecaster()
    forecaster.step()
    signal = forecaster.snapshot().signals["EURUSD/H1"]
    assert signal["side"] == "none"
    assert signal["reason"] == "no edge found: log-loss is no better than the base rate."


def test_no_signal_on_stale_data(world: World) -> None:
    forecaster = world.forecaster(now=lambda: START + (world.rows + 3) * HOUR)
    forecaster.step()
    assert forecaster.snapshot().signals["EURUSD/H1"]["reason"].startswith("the data is stale")


def test_no_champion_yet_is_said_and_costs_nothing(world: World) -> None:
    world.pointer = None
    forecaster = world.forecaster()
    forecaster.step()
    assert world.predicted == []
    assert "no champion yet" in forecaster.status()["problems"]["champion H1"]
    world.pointer = pointer_to("h1-a")
    forecaster.step()
    assert len(forecaster.snapshot().forecasts) == 2
    assert forecaster.status()["problems"] == {}


def test_a_new_champion_forecasts_all_symbols_anew(world: World) -> None:
    forecaster = world.forecaster()
    forecaster.step()
    world.pointer = pointer_to("h1-b")
    forecaster.step()
    assert {f["model_id"] for f in forecaster.snapshot().forecasts.values()} == {"h1-b"}
    assert world.ledger.count() == 4


def models_of(forecaster: Forecaster) -> set[str]:
    return {f["model_id"] for f in forecaster.snapshot().forecasts.values()}


NOT_A_NUMBER = HorizonForecast(1, START, float("nan"), 1.0, {"0.50": 0.0}, None, 0.5)


def test_a_champion_that_is_not_fit_is_refused_and_the_old_one_stays(world: World) -> None:
    forecaster = world.forecaster()
    forecaster.step()
    world.pointer, world.warm_answer = pointer_to("h1-b"), {"ok": False, "reason": "it died of SIGSEGV"}
    forecaster.step()
    forecaster.step()
    assert world.warmed == ["h1-a", "h1-b"]  # not asked again at every step
    assert world.proven == ["h1-b"]  # in a process of its own, since there is a model to protect
    assert world.pointer["id"] == "h1-a"  # the next life of this process begins with what serves
    forecaster.on_bars(world.close_bar())
    assert models_of(forecaster) == {"h1-a"}
    refused = {"id": "h1-b", "reason": "it died of SIGSEGV", "since": "2026-01-01T00:00:00Z"}
    assert forecaster.snapshot().models["H1"]["refused"] == refused
    assert forecaster.status()["refused"] == {"H1": refused}
    assert world.published[-1].models["H1"]["refused"] == refused

    world.pointer, world.warm_answer = pointer_to("h1-b"), {"ok": True, "bars_needed": NEEDED}  # by hand, mended
    forecaster.step()
    assert models_of(forecaster) == {"h1-b"}
    assert forecaster.snapshot().models["H1"]["refused"] is None


def test_a_first_champion_that_does_not_load_is_tried_again(world: World) -> None:
    world.warm_answer = {"ok": False, "reason": "hash differs"}
    forecaster = world.forecaster()
    forecaster.step()
    forecaster.step()
    assert (world.warmed, world.proven) == (["h1-a"], [])
    assert forecaster.status()["problems"]["champion H1"] == "h1-a could not be loaded: hash differs"
    world.wall += timedelta(seconds=RETRY_SECONDS)
    world.warm_answer = {"ok": True, "bars_needed": NEEDED}
    forecaster.step()
    assert forecaster.status()["champion"] == {"H1": "h1-a"}
    assert world.proven == ["h1-a"]  # it may have been what took the predictor down


def test_a_champion_that_gives_nan_on_the_newest_bars_never_serves(world: World) -> None:
    forecaster = world.forecaster()
    forecaster.step()
    world.pointer, world.answers = pointer_to("h1-b"), {"h1-b": NOT_A_NUMBER}
    forecaster.step()
    assert models_of(forecaster) == {"h1-a"}
    assert forecaster.status()["refused"]["H1"]["reason"] == "EURUSD, 1 bars: volatility nan"
    assert world.ledger.count() == 2


def test_a_champion_that_turns_to_nan_later_is_sent_back(world: World) -> None:
    forecaster = world.forecaster()
    forecaster.step()
    world.pointer = pointer_to("h1-b")
    forecaster.step()
    world.answers = {"h1-b": NOT_A_NUMBER}
    forecaster.on_bars(world.close_bar())
    forecaster.step()
    assert models_of(forecaster) == {"h1-a"}
    assert set(as_ofs(forecaster.snapshot()).values()) == {"2024-03-04T11:00:00Z"}
    assert "h1-b forecast nonsense: EURUSD, 1 bars: volatility nan" in forecaster.status()["refused"]["H1"]["reason"]
    assert world.pointer["id"] == "h1-a"


def test_nonsense_of_the_only_model_is_not_published(world: World) -> None:
    world.answers = {"h1-a": NOT_A_NUMBER}
    forecaster = world.forecaster()
    forecaster.step()
    assert forecaster.snapshot().forecasts == {}
    assert "It is not published." in forecaster.status()["problems"]["forecast H1"]
    world.answers = {}
    forecaster.step()
    assert len(forecaster.snapshot().forecasts) == 2
    assert forecaster.status()["problems"] == {}


def test_a_champion_that_takes_the_predictor_down_is_sent_back(world: World) -> None:
    dies = {"h1-b": False}

    def predict(model_id: str, bars: dict[str, pa.Table]) -> Any:
        if dies.get(model_id):
            raise RuntimeError("the replica died")
        return world.predict(model_id, bars)

    forecaster = world.forecaster(predict=predict)
    forecaster.step()
    world.pointer = pointer_to("h1-b")
    forecaster.step()
    assert models_of(forecaster) == {"h1-b"}
    dies["h1-b"] = True
    forecaster.on_bars(world.close_bar())
    for _ in range(MOST_TRIES):
        forecaster.step()
    assert models_of(forecaster) == {"h1-a"}
    assert "the replica died" in forecaster.status()["refused"]["H1"]["reason"]


def test_a_predictor_that_is_away_is_not_the_models_fault(world: World) -> None:
    forecaster = world.forecaster()
    forecaster.step()
    world.pointer = pointer_to("h1-b")
    forecaster.step()
    world.predict_error = RuntimeError("no replica")
    forecaster.on_bars(world.close_bar())
    for _ in range(3 * MOST_TRIES):
        forecaster.step()
    assert forecaster.status()["champion"] == {"H1": "h1-b"}
    assert forecaster.status()["refused"] == {}


def test_the_old_model_goes_on_while_a_new_one_is_tried(world: World) -> None:
    trials: list[tuple[Any, Future[Any]]] = []

    def beside(call: Any) -> Future[Any]:
        trials.append((call, Future()))
        return trials[-1][1]

    forecaster = world.forecaster(beside=beside)
    forecaster.step()
    call, future = trials.pop()
    future.set_result(call())
    forecaster.step()
    world.pointer = pointer_to("h1-b")
    forecaster.step()
    forecaster.on_bars(world.close_bar())
    forecaster.step()
    assert models_of(forecaster) == {"h1-a"}
    assert set(as_ofs(forecaster.snapshot()).values()) == {"2024-03-04T11:00:00Z"}
    [(call, future)] = trials
    future.set_result(call())
    forecaster.step()
    assert models_of(forecaster) == {"h1-b"}


def test_a_trial_that_was_overtaken_counts_for_nothing(world: World) -> None:
    waiting: list[tuple[Any, Future[Any]]] = []

    def beside(call: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if world.pointer == pointer_to("h1-b"):
            waiting.append((call, future))
        else:
            future.set_result(call())
        return future

    forecaster = world.forecaster(beside=beside)
    forecaster.step()
    world.pointer = pointer_to("h1-b")
    forecaster.step()
    world.pointer = pointer_to("h1-a")  # rolled back meanwhile
    [(call, future)] = waiting
    future.set_result(call())
    forecaster.step()
    forecaster.step()
    assert forecaster.status()["champion"] == {"H1": "h1-a"}


def test_a_predictor_that_is_still_starting_is_asked_again_soon(world: World) -> None:
    def unreachable(_: str) -> dict[str, Any]:
        world.warmed.append("unreachable")
        raise ConnectionError("no replica yet")

    forecaster = world.forecaster(warm=lambda m, prove: world.warm(m, prove) if world.warmed else unreachable(m))
    forecaster.step()
    assert "no replica yet" in forecaster.status()["problems"]["champion H1"]
    world.wall += timedelta(seconds=UNREACHED_SECONDS)
    forecaster.step()
    assert len(forecaster.snapshot().forecasts) == 2


def test_a_champion_that_takes_the_predictor_with_it_while_loading_is_refused(world: World) -> None:
    def warm(model_id: str, prove: bool) -> dict[str, Any]:
        if model_id == "h1-b":
            raise ConnectionError("the replica died")
        return world.warm(model_id, prove)

    forecaster = world.forecaster(warm=warm)
    forecaster.step()
    world.pointer = pointer_to("h1-b")
    for _ in range(MOST_TRIES):
        assert forecaster.status()["refused"] == {}
        forecaster.step()
        world.wall += timedelta(seconds=RETRY_SECONDS)
    assert forecaster.status()["refused"]["H1"]["reason"] == "the replica died"
    assert (world.pointer["id"], models_of(forecaster)) == ("h1-a", {"h1-a"})


def test_a_silent_predictor_keeps_the_bars_due(world: World) -> None:
    forecaster = world.forecaster()
    forecaster.step()
    world.predict_error = RuntimeError("replica died")
    forecaster.on_bars(world.close_bar())
    assert set(as_ofs(forecaster.snapshot()).values()) == {"2024-03-04T10:00:00Z"}
    assert "replica died" in forecaster.status()["problems"]["forecast H1"]
    world.predict_error = None
    forecaster.step()
    assert set(as_ofs(forecaster.snapshot()).values()) == {"2024-03-04T11:00:00Z"}


def test_too_few_bars_wait_with_a_reason(world: World) -> None:
    world.rows = NEEDED - 1
    forecaster = world.forecaster()
    forecaster.step()
    assert world.predicted == []
    assert forecaster.status()["problems"]["bars EURUSD/H1"] == "4 bars of EURUSD are stored, 5 are needed."
    forecaster.on_bars(world.close_bar())
    assert len(forecaster.snapshot().forecasts) == 2


def test_a_symbol_the_model_does_not_know_is_named(world: World) -> None:
    world.models["h1-a"] = version("h1-a", ("EURUSD",))
    forecaster = world.forecaster()
    forecaster.step()
    assert set(forecaster.snapshot().forecasts) == {"EURUSD/H1"}
    assert "not trained on GBPUSD" in forecaster.status()["problems"]["bars GBPUSD/H1"]


class BrokenLedger:
    """Fails until `works`; then remembers. `asked` counts every call."""

    def __init__(self) -> None:
        self.works, self.asked, self.written = False, 0, list[Forecast | SpooledForecast]()

    def _check(self) -> None:
        self.asked += 1
        if not self.works:
            raise OSError("disk full")

    def append(self, forecasts: Iterable[Forecast | SpooledForecast]) -> int:
        self._check()
        self.written += list(forecasts)
        return len(self.written)

    def oldest_pending(self) -> dict[tuple[str, str], datetime]:
        self._check()
        return {}

    def settle(self, *bars: pa.Table) -> int:
        return 0

    def waiting(self) -> dict[tuple[str, str], list[tuple[datetime, int]]]:
        return {}

    def newest(self, timeframe: str, symbols: Iterable[str]) -> dict[str, dict[str, Any]]:
        return {}

    def settled(self, timeframe: str, after: int = 0) -> list[Settled]:
        return []

    def settled_of(self, *_: Any) -> list[Settled]:
        return []

    def closes(self, model_id: str, timeframe: str) -> list[tuple[datetime, int]]:
        return []

    def made_at(self, seq: int) -> datetime:
        raise AssertionError("there is no forecast")


def symbols_of(written: Iterable[Forecast | SpooledForecast]) -> list[str]:
    return [f.body["symbol"] if isinstance(f, SpooledForecast) else f.symbol for f in written]


def test_a_broken_ledger_does_not_stop_serving_and_loses_nothing(world: World) -> None:
    ledger = BrokenLedger()
    forecaster = world.forecaster(ledger=ledger)
    forecaster.step()
    assert len(forecaster.snapshot().forecasts) == 2
    assert forecaster.status()["spooled"] == 2
    assert forecaster.status()["problems"]["ledger"] == "2 forecasts wait in the spool: disk full"
    assert ledger.asked == 1  # a ledger behind a dead network makes every call wait
    ledger.works = True
    world.wall += timedelta(seconds=LEDGER_RETRY_SECONDS)
    forecaster.step()
    assert symbols_of(ledger.written) == ["EURUSD", "GBPUSD"]
    assert forecaster.status()["problems"] == {}


def test_what_waits_for_the_ledger_survives_the_forecaster(world: World) -> None:
    world.forecaster(ledger=BrokenLedger()).step()
    world.rows += 1
    world.wall += timedelta(minutes=1)
    again = world.forecaster()  # the ledger is back
    assert again.status()["spooled"] == 2
    again.step()
    older = world.ledger.history("EURUSD", "H1")[1]
    assert (older["as_of"], older["spooled_at"]) == ("2024-03-04T10:00:00Z", "2026-01-01T00:00:00Z")
    assert (older["made_at"], older["spooled_market_time"]) == ("2026-01-01T00:00:00Z", "2024-03-04T10:00:00Z")
    assert world.ledger.verify().intact


def test_a_newer_forecast_is_not_written_before_those_that_wait(world: World) -> None:
    ledger = BrokenLedger()
    forecaster = world.forecaster(ledger=ledger)
    forecaster.step()
    ledger.works = True
    world.wall += timedelta(seconds=LEDGER_RETRY_SECONDS)
    forecaster.on_bars(world.close_bar())
    assert ledger.written == []
    forecaster.step()
    as_of = [f.body["as_of"][11:13] for f in ledger.written if isinstance(f, SpooledForecast)]
    assert as_of == ["10", "10", "11", "11"]


def test_a_full_spool_withholds_new_forecasts_until_there_is_room(world: World) -> None:
    ledger = BrokenLedger()
    forecaster = world.forecaster(ledger=ledger, spool=ForecastSpool(world.settings.spool_path, "key", limit=3))
    forecaster.step()
    forecaster.on_bars(world.close_bar())
    asked = len(world.predicted)
    forecaster.step()
    assert set(as_ofs(forecaster.snapshot()).values()) == {"2024-03-04T10:00:00Z"}  # what is on record, and no more
    assert "none are published: 2 forecasts wait" in forecaster.snapshot().status["problems"]["forecasts withheld"]
    assert len(world.predicted) == asked  # not made at every step only to be thrown away
    ledger.works = True
    world.wall += timedelta(seconds=LEDGER_RETRY_SECONDS)
    forecaster.step()
    assert set(as_ofs(forecaster.snapshot()).values()) == {"2024-03-04T11:00:00Z"}
    assert symbols_of(ledger.written) == ["EURUSD", "GBPUSD"] * 2
    assert forecaster.status()["problems"] == {}


def test_without_ledger_and_disk_nothing_is_published(world: World) -> None:
    ledger = BrokenLedger()
    forecaster = world.forecaster(ledger=ledger)
    world.settings.spool_path.mkdir(parents=True)  # in the way
    forecaster.step()
    assert forecaster.snapshot().forecasts == {}
    assert "none are published" in forecaster.snapshot().status["problems"]["forecasts withheld"]
    world.settings.spool_path.rmdir()
    world.wall += timedelta(seconds=LEDGER_RETRY_SECONDS)
    forecaster.step()
    assert len(forecaster.snapshot().forecasts) == 2
    assert "forecasts withheld" not in forecaster.status()["problems"]


def test_another_forecast_in_the_spool_is_no_news(world: World) -> None:
    forecaster = world.forecaster(ledger=BrokenLedger())
    forecaster.step()
    forecaster.on_bars(world.close_bar())
    told = len(world.published)
    forecaster.step()
    assert len(world.published) == told


def test_a_new_champions_coverage_is_its_own(world: World) -> None:
    forecaster = world.forecaster()
    forecaster.step()
    forecaster.on_bars(world.close_bar())
    world.pointer = pointer_to("h1-b")
    forecaster.step()
    card = forecaster.snapshot().skill["H1"][0]
    assert (card["target"], card["live_n"], card["live_coverage80"], card["live_since"]) == ("r1", 0, None, None)
    for _ in range(2):
        forecaster.on_bars(world.close_bar())
    card = forecaster.snapshot().skill["H1"][0]
    assert (card["live_n"], card["live_since"]) == (2, "2024-03-04T11:00:00Z")


def test_a_deaf_http_side_does_not_stop_the_forecaster(world: World) -> None:
    def refuse(_: BoardUpdate) -> None:
        raise ConnectionError("no replica")

    forecaster = world.forecaster(publish=refuse)
    forecaster.step()
    assert len(forecaster.snapshot().forecasts) == 2
    assert "no replica" in forecaster.status()["problems"]["publish"]


def test_a_lost_source_is_published_once(world: World) -> None:
    forecaster = world.forecaster()
    forecaster.on_source({"connected": True, "reason": "", "transport": "ray", "prices": {"EURUSD": {"bid": 1.1}}})
    forecaster.step()
    before = len(world.published)
    forecaster.on_source({"connected": False, "reason": "the mt5 node is gone", "transport": "ray"})
    forecaster.step()
    forecaster.step()
    assert len(world.published) == before + 1
    assert world.published[-1].status["source"]["reason"] == "the mt5 node is gone"


def test_over_http_a_forecast_names_the_market_behind_it(world: World) -> None:
    world.settings = make_settings(
        home=world.settings.home, market="http", data_api_url="http://10.8.0.2:8001", symbols="EURUSD"
    )
    forecaster = world.forecaster()
    forecaster.on_source(
        {"connected": True, "reason": "", "transport": "http", "market": "simulated", "simulated": True}
    )
    forecaster.step()
    assert forecaster.snapshot().forecasts["EURUSD/H1"]["market"] == "simulated"


def test_another_way_to_the_bars_is_published(world: World) -> None:
    forecaster = world.forecaster()
    for transport in ("ray", "http", "http"):
        forecaster.on_source({"connected": True, "reason": "", "transport": transport})
        forecaster.step()
        assert world.published[-1].status["transport"] == transport


def test_a_problem_of_the_source_is_published_when_it_comes_and_goes(world: World) -> None:
    forecaster = world.forecaster()
    source = {"connected": True, "reason": "", "transport": "ray"}
    for problems in ({}, {"evidence": "No space left."}, {}):
        forecaster.on_source(source | {"problems": problems})
        forecaster.step()
        assert world.published[-1].status["source"]["problems"] == problems


def test_versions_rise_and_a_reader_gets_what_it_missed(world: World) -> None:
    forecaster = world.forecaster()
    forecaster.step()
    seen = forecaster.snapshot().version
    assert forecaster.snapshot(since_version=seen).forecasts == {}
    forecaster.on_bars([world.close_bar()[0]])
    missed = forecaster.snapshot(since_version=seen)
    assert set(missed.forecasts) == {"EURUSD/H1"}
    assert missed.version > seen
    assert set(forecaster.snapshot(since_version=-99).forecasts) == {"EURUSD/H1", "GBPUSD/H1"}


def test_a_second_life_serves_at_once_and_writes_nothing_twice(world: World) -> None:
    world.forecaster().step()
    world.wall += timedelta(seconds=5)
    again = world.forecaster()
    again.step()
    assert len(again.snapshot().forecasts) == 2
    assert world.ledger.count() == 2
    assert again.snapshot().status["started_at"] == "2026-01-01T00:00:05Z"


def test_a_symbol_that_cannot_be_forecast_is_no_news_at_every_step(world: World) -> None:
    def tails(symbols: Sequence[str], timeframe: str, n: int) -> dict[str, pa.Table]:
        return {symbol: world.tail(symbol, timeframe, n if symbol == "EURUSD" else 1) for symbol in symbols}

    forecaster = world.forecaster(tails=tails)
    forecaster.step()
    told = len(world.published)
    for _ in range(5):
        forecaster.step()
    assert len(world.published) == told
    assert "1 bars of GBPUSD are stored" in forecaster.status()["problems"]["bars GBPUSD/H1"]


def test_a_symbol_that_the_model_leaves_out_is_named(world: World) -> None:
    def predict(model_id: str, bars: dict[str, pa.Table]) -> dict[str, tuple[HorizonForecast, ...]]:
        return {s: h for s, h in world.predict(model_id, bars).items() if s == "EURUSD"}

    forecaster = world.forecaster(predict=predict)
    forecaster.step()
    assert set(forecaster.snapshot().forecasts) == {"EURUSD/H1"}
    assert "no forecast of GBPUSD" in forecaster.status()["problems"]["bars GBPUSD/H1"]


def test_a_version_is_never_given_out_without_its_content(world: World) -> None:
    """A replica that pulls while a forecast is announced must not believe that it has it already."""
    forecaster = world.forecaster()
    forecaster.step()
    known = forecaster.snapshot().version
    seen: list[BoardUpdate] = []

    class Peeking(deque[BoardUpdate]):
        def append(self, update: BoardUpdate) -> None:
            seen.append(forecaster.snapshot(known))
            super().append(update)
            seen.append(forecaster.snapshot(known))

    forecaster._recent = Peeking(forecaster._recent)
    forecaster.on_bars(world.close_bar())
    seen.append(forecaster.snapshot(known))
    assert seen[-1].version == known + 1
    assert all(update.forecasts for update in seen if update.version > known)


def test_what_replicas_missed_is_known_without_keeping_updates_and_all_their_bars(world: World) -> None:
    told: list[weakref.ref[BoardUpdate]] = []
    forecaster = world.forecaster(publish=lambda update: told.append(weakref.ref(update)))
    forecaster.step()
    seen = forecaster.snapshot().version
    for _ in range(3):
        forecaster.on_bars(world.close_bar())
        forecaster.step()
    gc.collect()
    assert len(told) == 4
    assert [update() for update in told] == [None] * 4
    missed = forecaster.snapshot(since_version=seen)
    assert set(missed.bars) == set(missed.forecasts) == {"EURUSD/H1", "GBPUSD/H1"}
    assert missed.bars == forecaster.snapshot().bars
