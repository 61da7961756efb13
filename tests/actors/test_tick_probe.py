"""Whether a hole had ticks: proof needs ticks on both of its sides, and the later one may be yet to come."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.tick_probe import TickProbe
from market.bar_store import BarStore
from market.bars import UTC_MICROSECONDS, bars_from_columns
from market.coverage import SETTLED, Coverage
from market.timeframes import Timeframe

KEY = ("EURUSD", "H1")
T0 = datetime(2024, 1, 8, tzinfo=UTC)


def hour(n: float) -> datetime:
    return T0 + timedelta(hours=n)


@dataclass
class Ticks:
    """A source of ticks at given hours after T0."""

    hours: list[float]
    asked: list[tuple[datetime, datetime]] = field(default_factory=list)

    def ticks(self, symbol: str, since: datetime, until: datetime, limit: int) -> pa.Table:
        self.asked.append((since, until))
        times = [hour(n) for n in self.hours if since <= hour(n) <= until][:limit]
        return pa.table({"time": pa.array(times, UTC_MICROSECONDS)})


def probe(folder: Path, held: list[int]) -> tuple[TickProbe, Coverage]:
    """Over a store with bars at these hours, in which every hole has been answered for."""
    store, coverage = BarStore(folder / "bars"), Coverage()
    opens = np.datetime64("2024-01-08", "s") + np.array(held) * np.timedelta64(3600, "s")
    price = np.full(len(held), 1.1)
    store.append(bars_from_columns("EURUSD", Timeframe.H1, opens, price, price, price, price, received_at=T0))
    for n in range(SETTLED):
        coverage.answered(KEY, hour(0), hour(24), hour(48 + n), grew=False)
    return TickProbe(store, coverage), coverage


def silent(coverage: Coverage) -> list[int]:
    opens = np.datetime64("2024-01-08", "s") + np.arange(24) * np.timedelta64(3600, "s")
    return np.flatnonzero(coverage.is_silent(KEY, opens)).tolist()


@pytest.mark.parametrize(
    ("ticks", "proven"),
    [
        ([0.5, 1.5, 5.1], [2, 3, 4]),
        ([0.5, 1.5, 3.2, 5.1], [2, 4]),
        ([5.1], []),  # its history does not reach so far
        ([0.5, 1.5], []),
    ],
)
def test_silence_is_proven_by_ticks_on_both_sides(tmp_path: Path, ticks: list[float], proven: list[int]) -> None:
    tried, coverage = probe(tmp_path, [0, 1, 5])
    assert tried.run([KEY], hour(0), hour(6), ask(Ticks(ticks))) == len(proven)
    assert silent(coverage) == proven


def test_a_hole_that_is_quiet_until_now_is_looked_at_again(tmp_path: Path) -> None:
    tried, coverage = probe(tmp_path, [0, 1])
    source = Ticks([0.5, 1.5])
    assert tried.run([KEY], hour(0), hour(4), ask(source)) == 0
    source.hours.append(4.2)
    assert tried.run([KEY], hour(0), hour(4), ask(source)) == 2
    assert silent(coverage) == [2, 3]
    asked = len(source.asked)
    tried.run([KEY], hour(0), hour(4), ask(source))
    assert len(source.asked) == asked, "what is proven is not asked for again"


def ask(source: Ticks) -> Any:
    return lambda question: question(source)
