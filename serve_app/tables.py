"""Bars and past forecasts as Arrow tables, for those who calculate with them. Pure.

A table has no envelope, so every row says its symbol, timeframe and market.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from market.bars import UTC_MICROSECONDS
from market.forecasts import QUANTILE_LEVELS, parse_utc

_SERIES = [pa.field(name, pa.string()) for name in ("symbol", "timeframe", "market")]
BARS = pa.schema(
    [
        *_SERIES,
        pa.field("close_time", UTC_MICROSECONDS),
        *(pa.field(name, pa.float64()) for name in ("open", "high", "low", "close")),
    ]
)
_QUANTILES = {f"return_q{round(level * 100):02d}": level for level in QUANTILE_LEVELS}
HISTORY = pa.schema(
    [
        *_SERIES,
        pa.field("seq", pa.int64()),
        pa.field("as_of", UTC_MICROSECONDS),
        pa.field("last_close", pa.float64()),
        pa.field("bars", pa.int32()),
        pa.field("target_time", UTC_MICROSECONDS),
        *(pa.field(name, pa.float64()) for name in ("volatility", "volatility_ratio", *_QUANTILES, "p_up")),
        pa.field("outcome_close", pa.float64()),
        pa.field("outcome_return", pa.float64()),
        pa.field("outcome_volatility", pa.float64()),
        pa.field("inside80", pa.bool_()),
        pa.field("inside90", pa.bool_()),
        pa.field("model_id", pa.string()),
        pa.field("data_version", pa.string()),
        pa.field("made_at", UTC_MICROSECONDS),
        pa.field("recorded_at", UTC_MICROSECONDS),
        pa.field("recorded_late", pa.bool_()),
        pa.field("reason", pa.string()),
    ]
)
_TIMES = [field.name for field in HISTORY if field.type == UTC_MICROSECONDS]


def bars_table(symbol: str, timeframe: str, market: str, rows: Sequence[Sequence[Any]]) -> pa.Table:
    """`rows` as the board holds them: [close_time, open, high, low, close]."""
    series = {"symbol": symbol, "timeframe": timeframe, "market": market}
    return pa.Table.from_pylist(
        [series | dict(zip(BARS.names[3:], [parse_utc(row[0]), *row[1:]], strict=True)) for row in rows], BARS
    )


def history_table(forecasts: Sequence[dict[str, Any]]) -> pa.Table:
    """One row per forecast and horizon, in the order given: what was said beside what happened."""
    return pa.Table.from_pylist([row for forecast in forecasts for row in _horizons(forecast)], HISTORY)


def _horizons(forecast: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for horizon in forecast["horizons"]:
        quantiles = {float(level): value for level, value in (horizon["quantiles"] or {}).items()}
        outcome = forecast["outcomes"].get(str(horizon["bars"]), {})
        row = forecast | horizon | {name: quantiles.get(level) for name, level in _QUANTILES.items()}
        row |= {f"outcome_{name}": outcome.get(name) for name in ("close", "return", "volatility")}
        row |= {name: outcome.get(name) for name in ("inside80", "inside90")}
        row |= {"reason": " ".join(filter(None, (forecast["reason"], horizon["reason"])))}
        row |= {name: parse_utc(row[name]) for name in _TIMES if row.get(name)}
        yield {name: row.get(name) for name in HISTORY.names}
