"""What the deployment OnDemand makes of stored bars, and what it says where it makes nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from market.bars import empty_bars
from serve_app.on_demand import LIVE_REASON, UNRECORDED, OnDemand
from serve_app.predictor import probe_bars
from tests.serve_app.made_board import NOON
from tests.serve_app.test_predictor import SOUND, Loads, StubModel

MODEL = "h1-0000000000000001"


class Bars:
    """A store that has as many bars as it is told to."""

    def __init__(self, **rows: int) -> None:
        self.rows = rows

    def data_version(self) -> str:
        return "bars@7"

    def tail(self, symbol: str, timeframe: str, n: int) -> pa.Table:
        rows = self.rows.get(symbol, 0)
        return probe_bars(symbol, timeframe, min(n, rows)) if rows else empty_bars()


def ask(bars: Bars, load: Any = None, symbols: tuple[str, ...] = ("EURUSD", "GBPUSD")) -> Any:
    made = OnDemand(load or Loads(), lambda: bars, wall=lambda: NOON)
    return asyncio.run(made.forecast(MODEL, symbols))


def test_a_forecast_has_its_models_cards_and_says_that_it_is_not_recorded() -> None:
    batch = ask(Bars(EURUSD=400, GBPUSD=400))
    assert (batch.lacking, batch.refused, sorted(batch.forecasts)) == ({}, "", ["EURUSD", "GBPUSD"])
    said = batch.forecasts["EURUSD"]
    assert {name: said[name] for name in UNRECORDED} == UNRECORDED
    assert (said["model_id"], said["data_version"], said["made_at"]) == (MODEL, "bars@7", "2026-03-04T12:00:00Z")
    assert said["as_of"] == "2024-01-13T12:00:00Z"  # the 300 bars of the newest tail, around the clock
    assert not {"baseline", "model_quantiles", "widths"} & said["horizons"][0].keys()
    cards = [card for horizon in said["horizons"] for card in horizon["skill"]]
    assert [card["target"] for card in cards] == ["sign1", "rv24", "r24", "sign24"]
    assert [card["target"] for card in batch.skill] == ["sign1", "rv24", "r24", "sign24"]
    assert {(card["live_value"], card["live_n"], card["live_coverage80"], card["live_reason"]) for card in cards} == {
        (None, 0, None, LIVE_REASON)
    }


def test_one_call_for_all_that_have_enough_bars() -> None:
    calls: list[list[str]] = []

    class Counting(StubModel):
        def forecast(self, bars: dict[str, pa.Table]) -> Any:
            calls.append(sorted(bars))
            return super().forecast(bars)

    def load(model_id: str) -> StubModel:
        return Counting(Loads()(model_id).version)

    batch = ask(Bars(EURUSD=400, GBPUSD=300, USDJPY=299), load, ("EURUSD", "GBPUSD", "USDJPY"))
    assert calls[1:] == [["EURUSD", "GBPUSD"]]  # the first is the probe
    assert batch.lacking == {"USDJPY": ("too-few-bars", "299 bars of USDJPY are stored, 300 are needed.")}


def test_nonsense_is_not_handed_out() -> None:
    class Odd(StubModel):
        def forecast(self, bars: dict[str, pa.Table]) -> Any:
            good = super().forecast(bars)
            probed = bars["EURUSD"]["open_time"].equals(probe_bars("EURUSD", "H1", 300)["open_time"])
            return good | ({"EURUSD": (replace(SOUND, volatility=float("nan")),)} if probed and len(bars) < 3 else {})

    batch = ask(Bars(EURUSD=400, GBPUSD=400), lambda model_id: Odd(Loads()(model_id).version))
    assert list(batch.forecasts) == ["GBPUSD"]
    assert batch.lacking["EURUSD"][0] == "unsound-forecast"
    assert "volatility nan" in batch.lacking["EURUSD"][1]


def test_a_bundle_that_is_refused_is_no_fault() -> None:
    refused = OnDemand(Loads(), lambda: Bars())
    assert asyncio.run(refused.forecast("bad", ["EURUSD"])).refused == "A hash differs."


def test_what_the_model_raises_reaches_the_caller() -> None:
    class Broken(StubModel):
        def forecast(self, bars: dict[str, pa.Table]) -> Any:
            if len(bars) < 3:
                raise ValueError("singular matrix")
            return super().forecast(bars)

    with pytest.raises(ValueError, match="singular"):
        ask(Bars(EURUSD=400), lambda model_id: Broken(Loads()(model_id).version), ("EURUSD",))


def test_a_model_that_hangs_makes_its_replica_unhealthy() -> None:
    seconds = [0.0]
    made = OnDemand(Loads(), lambda: Bars(EURUSD=400), clock=lambda: seconds[0])

    class Hanging(Bars):
        def tail(self, *given: Any) -> pa.Table:
            seconds[0] += 100
            with pytest.raises(RuntimeError, match="has not come back"):
                asyncio.run(made.check_health())
            return super().tail(*given)

    made._open = lambda: Hanging(EURUSD=400)
    assert asyncio.run(made.forecast(MODEL, ["EURUSD"])).forecasts
    asyncio.run(made.check_health())
