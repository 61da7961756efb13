"""What each process tells Prometheus, out of the real cores: market time, what is unknown is absent, names as listed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from actors.figures import METRICS, Figures, SeriesState, of_forecaster, of_market_data, of_replica, of_schedule
from actors.run_log import Attempt, Run
from market.market_clock import MarketClock
from tests.actors.test_forecaster import HOUR, START, World
from tests.actors.test_market_data import MONDAY, Broken, market_data
from tests.actors.test_market_data import World as MarketWorld

FRIDAY = datetime(2024, 3, 1, 22, tzinfo=UTC)  # 17:00 New York
PAGE = Path(__file__).parent.parent.parent / "docs" / "deployment.md"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.ledger.close()


def value(figures: Figures, name: str, **labels: str) -> float | None:
    return figures.get((name, tuple(labels.items())))


@pytest.mark.parametrize(
    ("last_close", "now", "age"),
    [
        (FRIDAY - HOUR, FRIDAY, 3600),
        (FRIDAY - HOUR, FRIDAY + timedelta(hours=30), 3600),  # Sunday night, closed
        (FRIDAY, FRIDAY + timedelta(hours=48 + 3), 3 * 3600),  # three hours after the new week began
        (FRIDAY, FRIDAY - HOUR, 0),  # a source whose clock is ahead
    ],
)
def test_a_weekend_makes_no_bar_old(last_close: datetime, now: datetime, age: float) -> None:
    found = of_market_data({}, {("EURUSD", "H1"): SeriesState(last_close, 0)}, now)
    assert value(found, "lstmc_bar_age_seconds", symbol="EURUSD", timeframe="H1") == age


def test_an_accelerated_clock_counts_its_own_seconds() -> None:
    clock = MarketClock(wall_start=0.0, market_start=(FRIDAY - HOUR).timestamp(), speed=600)
    found = of_market_data({}, {("EURUSD", "H1"): SeriesState(FRIDAY - HOUR, 0)}, clock.now(wall=7.0))
    assert value(found, "lstmc_bar_age_seconds", symbol="EURUSD", timeframe="H1") == pytest.approx(4200)


def test_a_way_to_the_bars_is_known_once_it_was_tried(tmp_path: Path) -> None:
    world = MarketWorld()
    core = market_data(world, tmp_path, sources=[("ray", Broken()), ("http", world)])
    assert of_market_data(core.status()["transports"], core.series(), world.now) == {}
    core.backfill(None)
    assert core.status()["transports"] == {"ray": False, "http": True}
    world.away = True
    world.now += HOUR
    core.poll()
    assert core.status()["transports"] == {"ray": False, "http": False}
    found = of_market_data(core.status()["transports"], core.series(), world.now)
    assert value(found, "lstmc_source_connected", transport="http") == 0
    assert value(found, "lstmc_bar_age_seconds", symbol="EURUSD", timeframe="H1") == 1.5 * 3600

    first = market_data(MarketWorld(), tmp_path / "other", sources=[("ray", MarketWorld()), ("http", world)])
    first.backfill(None)
    assert first.status()["transports"] == {"ray": True}, "nobody knows about the other"


def test_a_symbol_without_bars_has_no_series(tmp_path: Path) -> None:
    world = MarketWorld(offers=("EURUSD",))
    core = market_data(world, tmp_path)
    core.backfill(None)
    found = of_market_data({}, core.series(), world.now)
    assert {labels for _, labels in found} == {(("symbol", "EURUSD"), ("timeframe", "H1"))}


def test_holes_count_once_the_source_was_asked_often_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, gone = MarketWorld(), MONDAY.replace(minute=0) - timedelta(hours=100)
    answer = world.closed_bars

    def with_a_hole(symbol: str, *span: Any) -> pa.Table:
        bars = answer(symbol, *span)
        keep = [not (symbol == "EURUSD" and opened == gone) for opened in bars["open_time"].to_pylist()]
        return bars.filter(pa.array(keep, pa.bool_()))

    monkeypatch.setattr(world, "closed_bars", with_a_hole)
    counts = []
    for _ in range(3):
        core = market_data(world, tmp_path)
        core.backfill(None)
        counts.append({key[0]: state.gaps for key, state in core.series().items()})
        world.now += timedelta(minutes=2)
    assert counts[0] == {"EURUSD": 0, "USDJPY": 0}, "asked for once, it may still come"
    assert counts[-1] == {"EURUSD": 1, "USDJPY": 0}


def test_the_forecaster_tells_ages_and_cards_and_nothing_that_is_unknown(world: World) -> None:
    forecaster = world.forecaster()
    before = of_forecaster(forecaster.snapshot(), forecaster.status(), START)
    assert before == {("lstmc_ledger_spooled", ()): 0}
    forecaster.step()
    now = START + world.rows * HOUR + timedelta(minutes=10)
    found = of_forecaster(forecaster.snapshot(), forecaster.status(), now)
    assert value(found, "lstmc_forecast_age_seconds", symbol="EURUSD", timeframe="H1") == 600
    assert value(found, "lstmc_gate_passed", target="rv24", timeframe="H1") == 1
    assert value(found, "lstmc_gate_passed", target="sign1", timeframe="H1") == 0
    assert value(found, "lstmc_ledger_lag_rows") == 0
    assert not {name for name, _ in found if "live" in name}, "no outcome is known yet"
    for _ in range(3):
        forecaster.on_bars(world.close_bar())
    found = of_forecaster(forecaster.snapshot(), forecaster.status(), now)
    coverage = value(found, "lstmc_live_coverage", target="r1", timeframe="H1")
    assert coverage == 1
    assert value(found, "lstmc_live_outcomes", target="r1", timeframe="H1") == 4
    assert value(found, "lstmc_live_coverage", target="rv24", timeframe="H1") is None
    assert value(found, "lstmc_live_skill", target="r1", timeframe="H1") is None


def test_live_skill_is_the_cards(world: World) -> None:
    forecaster = world.forecaster()
    forecaster.step()
    board = forecaster.snapshot()
    cards = [card | {"live_value": -0.02} if card["target"] == "sign1" else card for card in board.skill["H1"]]
    coin = {"target": "sign1", "metric": "auc", "passed_gate": True}  # beside the log-loss, which alone counts
    found = of_forecaster(replace(board, skill={"H1": [*cards, coin]}), forecaster.status(), START)
    assert value(found, "lstmc_live_skill", target="sign1", timeframe="H1") == -0.02
    assert value(found, "lstmc_gate_passed", target="sign1", timeframe="H1") == 0


def test_outcomes_that_bars_show_and_nobody_writes_are_counted(world: World) -> None:
    lost = False

    def bars_since(symbol: str, timeframe: str, since: datetime) -> pa.Table:
        assert not lost, "the store is asked only when something is due"
        return world.tail(symbol, timeframe, 1000)

    forecaster = world.forecaster(bars_since=bars_since)
    forecaster.step()
    assert forecaster.status()["ledger_lag"] == 0
    world.predict_error = RuntimeError("no predictor")  # which settling follows
    for bars, lag in ((1, 0), (2, 2), (25, 4)):  # horizons of 1 and 24 bars, two symbols; one bar later they are due
        while world.rows < 10 + bars:
            forecaster.on_bars(world.close_bar())
        world.wall += timedelta(minutes=1)
        forecaster.step()
        assert forecaster.status()["ledger_lag"] == lag, bars
    world.predict_error = None
    forecaster.step()
    lost = True
    world.wall += timedelta(minutes=1)
    forecaster.step()
    assert forecaster.status()["ledger_lag"] == 0


def test_only_a_run_at_work_uses_its_budget() -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    run = Run("daily", began, began + timedelta(days=1), "quick", "30m")
    at_work = replace(run, state="running", attempts=(Attempt("a", began - HOUR, began, "failed"), Attempt("b", began)))
    now = began + timedelta(minutes=45)
    assert of_schedule([replace(run, name="weekly"), at_work], now) == {
        ("lstmc_job_budget_used_ratio", (("run", "daily"),)): 1.5
    }


def test_the_docs_table_is_the_list() -> None:
    rows = re.findall(r"^\| `ray_(lstmc_\w+)` \| (\w+) \| ([^|]+) \| ([^|]*) \| ([^|]+) \|$", PAGE.read_text(), re.M)
    said = [(name, kind, unit, labels.replace("`", ""), text) for name, kind, unit, labels, text in rows]
    assert said == [(m.name, m.kind, m.unit, ", ".join(m.labels), m.help) for m in METRICS]


def test_refusals_are_told_by_their_kind() -> None:
    found = of_replica({"too-many-requests": 3, "too-many-streams": 1})
    assert value(found, "lstmc_rate_limited_total", limit="too-many-requests") == 3
