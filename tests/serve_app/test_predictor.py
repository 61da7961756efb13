"""Models are loaded once, probed before they answer, kept in a bounded shelf, and never take the replica down."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from market.bars import BAR_SCHEMA, validate
from market.errors import BundleRefused
from market.forecasts import HorizonForecast
from market.symbols import CATALOGUE
from market.timeframes import Timeframe
from serve_app.predictor import HUNG_SECONDS, BundleShelf, Predictor, probe_bars, wrong_with
from tests.serve_app.made_board import MadeMarket
from tuning.model_version import ModelVersion

SOUND = HorizonForecast(
    1, datetime(2026, 3, 4, tzinfo=UTC), 0.001, 1.0, {"0.05": -0.002, "0.50": 0.0, "0.95": 0.002}, None, 0.5
)


@dataclass
class StubModel:
    version: ModelVersion
    answer: HorizonForecast = SOUND
    bars_needed: int = 300

    def forecast(self, bars: dict[str, pa.Table]) -> dict[str, tuple[HorizonForecast, ...]]:
        assert all(table.num_rows >= self.bars_needed for table in bars.values())
        return {code: (self.answer, replace(self.answer, bars=24)) for code in bars}


class Loads:
    """A loader that counts; ids with "bad" are refused."""

    def __init__(self, answer: HorizonForecast = SOUND) -> None:
        self.seen: list[str] = []
        self.answer = answer

    def __call__(self, model_id: str) -> StubModel:
        self.seen.append(model_id)
        if "bad" in model_id:
            raise BundleRefused("A hash differs.", hint="Train again.")
        return StubModel(replace(MadeMarket().model(), id=model_id), self.answer)


def test_a_model_is_loaded_once() -> None:
    loads = Loads()
    shelf = BundleShelf(loads)
    assert shelf.get("a") is shelf.get("a")
    assert loads.seen == ["a"]


def test_the_shelf_keeps_the_last_used() -> None:
    loads = Loads()
    shelf = BundleShelf(loads, limit=2)
    for model_id in ("a", "b", "a", "c", "a"):
        shelf.get(model_id)
    assert (shelf.held, loads.seen) == (["c", "a"], ["a", "b", "c"])


def test_warming_reports_and_never_raises() -> None:
    predictor = Predictor(Loads())
    assert asyncio.run(predictor.warm("good")) == {"ok": True, "reason": "", "bars_needed": 300}
    assert asyncio.run(predictor.warm("bad")) == {
        "ok": False,
        "reason": "A hash differs. Train again.",
        "bars_needed": 0,
    }
    assert asyncio.run(predictor.held()) == ["good"]


def test_a_forecast_names_its_model() -> None:
    loads = Loads()
    predictor = Predictor(loads)
    bars = {"EURUSD": probe_bars("EURUSD", "H1", 300)}
    for model_id in ("a", "b"):
        answer = asyncio.run(predictor.forecast(model_id, bars))
        assert [h.bars for h in answer["EURUSD"]] == [1, 24]
    assert loads.seen == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"volatility": None}, "volatility None"),
        ({"volatility": float("nan")}, "volatility nan"),
        ({"volatility": 0.0}, "volatility 0.0"),
        ({"quantiles": None}, "missing"),
        ({"quantiles": {"0.05": float("inf")}}, "not finite"),
        ({"quantiles": {"0.05": 0.1, "0.95": -0.1}}, "out of order"),
        ({"p_up": 1.2}, "probability 1.2"),
        ({"p_up": None}, "probability None"),
    ],
)
def test_an_unsound_forecast_fails_the_probe(change: dict[str, object], why: str) -> None:
    unsound = replace(SOUND, **change)  # type: ignore[arg-type]
    assert why in wrong_with(unsound)
    answer = asyncio.run(Predictor(Loads(unsound)).warm("m"))
    assert answer["ok"] is False
    assert why in answer["reason"]


def test_a_sound_forecast_passes() -> None:
    assert wrong_with(SOUND) == ""


@pytest.mark.parametrize("code", CATALOGUE)
def test_probe_bars_are_real_bars(code: str) -> None:
    bars = probe_bars(code, "H1", 400)
    assert bars.schema == BAR_SCHEMA
    good, bad = validate(bars, Timeframe.H1)
    assert (good.num_rows, bad.num_rows) == (400, 0)


def test_a_model_that_is_here_answers_while_another_is_loaded() -> None:
    started, may_end = threading.Event(), threading.Event()
    loads = Loads()

    def load(model_id: str) -> StubModel:
        if model_id == "slow":
            started.set()
            assert may_end.wait(30)
        return loads(model_id)

    shelf = BundleShelf(load)
    here = shelf.get("here")
    loader = threading.Thread(target=shelf.get, args=("slow",))
    loader.start()
    found: list[object] = []
    try:
        assert started.wait(30)
        asker = threading.Thread(target=lambda: found.append(shelf.get("here")), daemon=True)
        asker.start()
        asker.join(5)
    finally:
        may_end.set()
        loader.join(30)
    assert found == [here]
    assert shelf.held == ["here", "slow"]


def test_a_model_is_proven_elsewhere_before_it_is_loaded_here() -> None:
    loads, proven = Loads(), list[str]()

    def prove(model_id: str) -> None:
        proven.append(model_id)
        if model_id == "crashes":
            raise BundleRefused("It died of SIGSEGV.", hint="Train again.")

    predictor = Predictor(loads, prove)
    for model_id in ("good", "good", "crashes"):  # what is here has been proven
        answer = asyncio.run(predictor.warm(model_id, prove=True))
    assert answer == {"ok": False, "reason": "It died of SIGSEGV. Train again.", "bars_needed": 0}
    assert (proven, loads.seen) == (["good", "crashes"], ["good"])


def test_a_model_that_hangs_makes_the_replica_unhealthy() -> None:
    started, may_end, seconds = threading.Event(), threading.Event(), [0.0]

    def load(_: str) -> StubModel:
        started.set()
        assert may_end.wait(30)
        return Loads()("m")

    predictor = Predictor(load, clock=lambda: seconds[0])
    caller = threading.Thread(target=lambda: asyncio.run(predictor.warm("m")))
    caller.start()
    try:
        assert started.wait(30)
        asyncio.run(predictor.check_health())
        seconds[0] = HUNG_SECONDS + 1
        with pytest.raises(RuntimeError, match="has not come back"):
            asyncio.run(predictor.check_health())
    finally:
        may_end.set()
        caller.join(30)
    asyncio.run(predictor.check_health())
