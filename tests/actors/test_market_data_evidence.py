"""What MarketData makes of answers that cannot be believed: half ones, none, and those of another clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from market.bar_store import BarStore
from market.coverage import Coverage
from market.gap_ledger import ledger
from tests.actors.test_market_data import MONDAY, World, market_data, stored

KEY = ("EURUSD", "H1")


def kinds(folder: Path, until: datetime) -> dict[str, int]:
    store = BarStore(folder / "bars")
    holes = ledger(store, Coverage.beside(store.path), KEY, since=MONDAY - timedelta(days=3), until=until)
    return {gap.kind: gap.bars for gap in holes}


def test_a_terminal_that_answers_half_at_first_is_asked_until_it_is_stable(tmp_path: Path) -> None:
    world = World()
    whole, lacks = world.closed_bars, [10, 4, 0]

    def half(*given: Any) -> pa.Table:
        bars = whole(*given)
        return bars.slice(0, bars.num_rows // 2) if lacks and lacks.pop() is not None else bars

    world.closed_bars = half  # type: ignore[method-assign]
    market_data(world, tmp_path, symbols=("EURUSD",)).backfill(None)
    assert kinds(tmp_path, MONDAY - timedelta(minutes=30)) == {}


def test_two_questions_of_one_start_do_not_take_each_other_back(tmp_path: Path) -> None:
    """A bar that is new to both answers makes neither of them late: the hole beside it stays settled."""
    world = World()
    whole = world.closed_bars
    hole = pa.scalar(MONDAY.replace(hour=10, minute=0), pa.timestamp("us", "UTC"))
    world.closed_bars = lambda *given: (bars := whole(*given)).filter(pa.compute.not_equal(bars["open_time"], hole))  # type: ignore[method-assign]
    core = market_data(world, tmp_path, symbols=("EURUSD",))
    for _ in range(3):
        core.backfill(None)
        world.now += timedelta(minutes=2)
    assert kinds(tmp_path, MONDAY - timedelta(hours=1)) == {"missing": 1}
    world.now = MONDAY.replace(hour=13, minute=2)
    core.backfill(None)
    assert kinds(tmp_path, MONDAY - timedelta(hours=1)) == {"missing": 1}


def test_none_is_an_outage_and_no_evidence(tmp_path: Path) -> None:
    world = World()
    core = market_data(world, tmp_path, symbols=("EURUSD",))
    core.backfill(None)
    world.closed_bars = lambda *_: None  # type: ignore[method-assign, assignment, return-value]
    for _ in range(6):
        world.now += timedelta(hours=1)
        assert core.poll() == []
    assert "No answer" in core.status()["reason"]
    assert set(kinds(tmp_path, world.now)) <= {"unfetched"}


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_live_source_with_another_clock_is_refused_and_believed_again(tmp_path: Path, hours: int) -> None:
    world = World()
    off = [0]
    world.health = lambda: {"connected": True, "simulated": False, "market": "mt5"}  # type: ignore[method-assign]
    world.prices = lambda symbols: [  # type: ignore[method-assign]
        {"symbol": symbol, "time": world.now + timedelta(hours=off[0], seconds=-2)} for symbol in symbols
    ]
    core = market_data(world, tmp_path, symbols=("EURUSD",))
    core.backfill(None)
    before = stored(tmp_path)
    off[0] = hours
    world.now += timedelta(minutes=70)
    assert core.poll() == []
    assert f"{hours:+d} h" in core.status()["problems"]["clock"]
    assert core.status()["connected"] is False
    assert stored(tmp_path) == before
    off[0] = 0
    assert len(core.poll()) == 1
    assert core.status()["problems"] == {}
    assert datetime(2022, 3, 14, 12, tzinfo=UTC) in stored(tmp_path)
