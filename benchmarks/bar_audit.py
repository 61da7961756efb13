"""Stored bars against the played market's own, which anybody can compute from the settings. Knows no cluster."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from deltalake import DeltaTable

from configs.settings import Settings
from market.bar_store import CONTENT, KEY, BarStore
from mt5_actor_windows.actor import make_session

TIMEFRAME = "H1"


@dataclass(frozen=True)
class Audit:
    """`lost`: bars that the market has between the first and the last stored one; `doubled`: rows of one bar and revision
    beyond the first; `other`: stored with other prices."""

    bars: int
    lost: int
    doubled: int
    other: int

    @property
    def clean(self) -> bool:
        return self.bars > 0 and not (self.lost or self.doubled or self.other)


def audit(settings: Settings) -> Audit:
    store, session = BarStore(settings.bars_path), make_session(settings)
    rows = DeltaTable(settings.bars_path).to_pyarrow_table(columns=[*KEY, "revision"])
    doubled = sum(n - 1 for n in Counter(zip(*(column.to_pylist() for column in rows.columns), strict=True)).values())
    lost = other = bars = 0
    for symbol in settings.symbols:
        stored = store.read([symbol], TIMEFRAME)
        if not stored.num_rows:
            continue
        truth = session.closed_bars(symbol, TIMEFRAME, stored["open_time"][0].as_py(), stored["close_time"][-1].as_py())
        told, real = (
            {row["open_time"]: row for row in table.select(["open_time", *CONTENT]).to_pylist()}
            for table in (stored, truth)
        )
        bars += len(told)
        lost += len(real.keys() - told.keys())
        other += sum(real.get(moment) != row for moment, row in told.items())
    return Audit(bars, lost, doubled, other)


def closes(settings: Settings, since: datetime) -> dict[tuple[str, datetime], float]:
    """(symbol, close time) -> the market's own close, of all bars that have closed since."""
    session = make_session(settings)
    found: dict[tuple[str, datetime], float] = {}
    for symbol in settings.symbols:
        bars = session.closed_bars(symbol, TIMEFRAME, since)
        times, prices = bars["close_time"].to_pylist(), bars["close"].to_pylist()
        found |= {(symbol, time): price for time, price in zip(times, prices, strict=True)}
    return found
