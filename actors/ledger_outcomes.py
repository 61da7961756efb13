"""What happened after a forecast: its outcomes out of closed bars, a batch at a time. Opens no database."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from actors.answers import moment_of, stamp_of
from actors.ledger_chains import LedgerChains
from actors.ledger_tables import forecasts, pending
from market.forecasts import iso_utc, parse_utc

BATCH = 2000  # outcomes that are joined in one transaction
Series = tuple[str, str]  # symbol, timeframe
Row = tuple[dict[str, Any], dict[str, Any]]  # columns, body


def settle_some(db: sa.Connection, chains: LedgerChains, bars: Sequence[pa.Table]) -> int:
    """Join at most BATCH outcomes of the series in `bars`, each oldest first; returns how many."""
    shown = {_series(table): _Closes(table) for table in bars if table.num_rows}
    due = _due(db, shown)
    bodies = _horizons(db, sorted({seq for _, seq, _, _ in due}))
    rows = [shown[series].outcome(series, seq, bodies[seq][ahead], start) for series, seq, ahead, start in due]
    if rows:
        chains.link(db, "outcomes", rows)
        mine = sa.and_(pending.c.forecast_seq == sa.bindparam("of"), pending.c.bars == sa.bindparam("ahead"))
        db.execute(sa.delete(pending).where(mine), [{"of": c["forecast_seq"], "ahead": c["bars"]} for c, _ in rows])
    return len(rows)


def _series(bars: pa.Table) -> Series:
    return bars["symbol"][0].as_py(), bars["timeframe"][0].as_py()


class _Closes:
    """One series' closed bars, oldest first."""

    def __init__(self, bars: pa.Table) -> None:
        self._times = bars["close_time"].to_numpy().astype("datetime64[s]")  # [n]
        self._prices = bars["close"].to_numpy()  # [n]

    def start(self, as_of: np.datetime64, ahead: int) -> int | None:
        """Row of the as-of bar, when it and the bar `ahead` of it are among ours."""
        row = int(np.searchsorted(self._times, as_of))
        return row if row + ahead < len(self._times) and self._times[row] == as_of else None

    def outcome(self, series: Series, seq: int, horizon: dict[str, Any], start: int) -> Row:
        end = start + horizon["bars"]
        return _outcome(series, seq, horizon, self._prices[start : end + 1], moment_of(self._times[end]))


def _due(db: sa.Connection, shown: Mapping[Series, _Closes]) -> list[tuple[Series, int, int, int]]:
    """(series, forecast's number, bars ahead, row of its as-of) of what waits for an outcome that is shown, at most BATCH."""
    symbols, frames = sorted({symbol for symbol, _ in shown}), sorted({frame for _, frame in shown})
    # The as-of is the signed one: what waits is only a list, which nobody signs.
    query = (
        sa.select(pending.c.forecast_seq, pending.c.bars, pending.c.symbol, pending.c.timeframe, forecasts.c.as_of)
        .join(forecasts, forecasts.c.seq == pending.c.forecast_seq)
        .where(pending.c.symbol.in_(symbols), pending.c.timeframe.in_(frames))
        .order_by(pending.c.forecast_seq, pending.c.bars)
    )
    due: list[tuple[Series, int, int, int]] = []
    stamp = cache(lambda as_of: stamp_of(parse_utc(as_of)))  # many forecasts are as of the same close
    for seq, ahead, symbol, frame, as_of in db.execute(query):
        closes = shown.get((symbol, frame))
        start = closes.start(stamp(as_of), ahead) if closes and len(due) < BATCH else None
        if start is not None:
            due.append(((symbol, frame), seq, ahead, start))
    return due


def _horizons(db: sa.Connection, seqs: Sequence[int]) -> dict[int, dict[int, dict[str, Any]]]:
    """Forecast's number -> horizon in bars -> the horizon as recorded."""
    found = {}
    for first in range(0, len(seqs), 500):  # databases take so many values in one question, and not many more
        some = sa.select(forecasts.c.seq, forecasts.c.body).where(forecasts.c.seq.in_(seqs[first : first + 500]))
        for seq, body in db.execute(some):
            found[seq] = {horizon["bars"]: horizon for horizon in json.loads(body)["horizons"]}
    return found


def _outcome(series: Series, seq: int, horizon: dict[str, Any], path: np.ndarray, closed_at: datetime) -> Row:
    """`path`: closes from the as-of bar to the horizon's end, [bars + 1]."""
    steps = np.diff(np.log(path))  # [bars] 1-bar log-returns
    realised = float(steps.sum())
    inside = {
        "inside80": _inside(horizon.get("quantiles"), 0.1, 0.9, realised),
        "inside90": _inside(horizon.get("quantiles"), 0.05, 0.95, realised),
    }
    body = {
        "bars": horizon["bars"],
        "closed_at": iso_utc(closed_at),
        "close": float(path[-1]),
        "return": realised,
        "volatility": float(np.sqrt(np.square(steps).sum())),
    }
    of = {"forecast_seq": seq, "bars": horizon["bars"], "symbol": series[0], "timeframe": series[1]}
    return of | inside, body | inside


def _inside(quantiles: dict[str, float] | None, low: float, high: float, value: float) -> bool | None:
    """Whether the return fell into the interval; None when there was none. Keys may be written "0.1" or "0.10"."""
    levels = {float(level): q for level, q in (quantiles or {}).items() if q is not None}
    if low not in levels or high not in levels:
        return None
    return bool(levels[low] <= value <= levels[high])
