"""What happened after a forecast: its outcomes out of closed bars, a batch at a time. Opens no database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from actors.ledger_chains import LedgerChains
from actors.ledger_tables import forecasts, pending
from market.forecasts import iso_utc, parse_utc

BATCH = 2000  # outcomes that are joined in one transaction
Row = tuple[dict[str, Any], dict[str, Any]]  # columns, body


def settle_some(db: sa.Connection, chains: LedgerChains, bars: Sequence[pa.Table]) -> int:
    """Join at most BATCH outcomes of the series in `bars`, each oldest first; returns how many."""
    rows: list[Row] = []
    for table in bars:
        if table.num_rows and len(rows) < BATCH:
            rows += _due(db, table, BATCH - len(rows))
    if rows:
        chains.link(db, "outcomes", rows)
        mine = sa.and_(pending.c.forecast_seq == sa.bindparam("of"), pending.c.bars == sa.bindparam("ahead"))
        db.execute(sa.delete(pending).where(mine), [{"of": c["forecast_seq"], "ahead": c["bars"]} for c, _ in rows])
    return len(rows)


def _due(db: sa.Connection, bars: pa.Table, limit: int) -> list[Row]:
    """What waits for an outcome that one series' `bars` show, at most `limit`."""
    symbol, timeframe = bars["symbol"][0].as_py(), bars["timeframe"][0].as_py()
    closes, times = bars["close"].to_numpy(), bars["close_time"].to_pylist()
    row_of = {time: row for row, time in enumerate(times)}
    # The as-of is the signed one: what waits is only a list, which nobody signs.
    query = (
        sa.select(pending.c.forecast_seq, pending.c.bars, forecasts.c.as_of)
        .join(forecasts, forecasts.c.seq == pending.c.forecast_seq)
        .where(pending.c.symbol == symbol, pending.c.timeframe == timeframe)
        .order_by(pending.c.forecast_seq, pending.c.bars)
    )
    due: list[tuple[int, int, int]] = []
    for seq, ahead, as_of in db.execute(query):
        start = row_of.get(parse_utc(as_of))
        if start is not None and start + ahead < len(closes) and len(due) < limit:
            due.append((seq, ahead, start))
    bodies = _horizons(db, sorted({seq for seq, _, _ in due}))
    series = {"symbol": symbol, "timeframe": timeframe}
    return [
        _outcome(series, seq, bodies[seq][ahead], closes[start : start + ahead + 1], times[start + ahead])
        for seq, ahead, start in due
    ]


def _horizons(db: sa.Connection, seqs: Sequence[int]) -> dict[int, dict[int, dict[str, Any]]]:
    """Forecast's number -> horizon in bars -> the horizon as recorded."""
    found = {}
    for first in range(0, len(seqs), 500):  # databases take so many values in one question, and not many more
        some = sa.select(forecasts.c.seq, forecasts.c.body).where(forecasts.c.seq.in_(seqs[first : first + 500]))
        for seq, body in db.execute(some):
            found[seq] = {horizon["bars"]: horizon for horizon in json.loads(body)["horizons"]}
    return found


def _outcome(series: dict[str, str], seq: int, horizon: dict[str, Any], path: np.ndarray, closed_at: datetime) -> Row:
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
    return {"forecast_seq": seq, "bars": horizon["bars"], **series, **inside}, body | inside


def _inside(quantiles: dict[str, float] | None, low: float, high: float, value: float) -> bool | None:
    """Whether the return fell into the interval; None when there was none. Keys may be written "0.1" or "0.10"."""
    levels = {float(level): q for level, q in (quantiles or {}).items() if q is not None}
    if low not in levels or high not in levels:
        return None
    return bool(levels[low] <= value <= levels[high])
