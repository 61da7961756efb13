"""What a bar is: one Arrow schema, and what can be wrong with a row. Knows neither where bars come from nor go to.

A bar is dated by its open, in UTC, and is known at its close: `close_time = open_time + timeframe`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from market.timeframes import Timeframe

UTC_MICROSECONDS = pa.timestamp("us", tz="UTC")

BAR_SCHEMA = pa.schema(
    [
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("timeframe", pa.string(), nullable=False),
        pa.field("open_time", UTC_MICROSECONDS, nullable=False),
        pa.field("close_time", UTC_MICROSECONDS, nullable=False),
        pa.field("open", pa.float64(), nullable=False),
        pa.field("high", pa.float64(), nullable=False),
        pa.field("low", pa.float64(), nullable=False),
        pa.field("close", pa.float64(), nullable=False),
        pa.field("tick_volume", pa.int64()),  # null: the source has none
        pa.field("spread_points", pa.int32()),  # null: the source has none
        pa.field("received_at", UTC_MICROSECONDS, nullable=False),  # wall clock, when we first saw the row
        pa.field("revision", pa.int32(), nullable=False),  # 0, then 1, 2 ... when the source changed the bar
    ]
)

QUARANTINE_SCHEMA = BAR_SCHEMA.append(pa.field("reason", pa.string(), nullable=False))

REASONS = (
    "not_a_number",
    "not_positive",
    "price_jump",
    "misordered_prices",
    "off_grid",
    "duplicate",
    "out_of_order",
)

# A price this far from its neighbours' level is none (a x1000 print, a missing decimal point).
JUMP_LIMIT = 0.25  # |log(price / running median)|


class BarSource(Protocol):
    """Where closed bars come from: the MT5 actor, its HTTP twin, a test's list."""

    def closed_bars(
        self, symbol: str, timeframe: str, since: datetime | None, until: datetime | None = None
    ) -> pa.Table:
        """Closed bars in BAR_SCHEMA with `since < close_time <= until`, oldest first; raises MarketUnavailable, never
        answers "nothing" for "I could not look"."""
        ...

    def prices(self, symbols: list[str]) -> list[dict[str, Any]]:
        """One dict per symbol: symbol, bid, ask, time (aware UTC datetime), age_seconds; null with `reason`."""
        ...

    def health(self) -> dict[str, Any]:
        """`connected`, `simulated`, `account`, `server`, `server_utc_offset`, `clock_rule` (see BrokerClock), `now`, and on
        trouble `reason`."""
        ...


# The arguments of one closed_bars: symbol, timeframe, since, until.
Question = tuple[str, str, datetime | None, datetime | None]


@runtime_checkable
class AsksAhead(Protocol):
    """A BarSource far away, which had rather be asked once for many series."""

    def expect(self, questions: Sequence[Question]) -> None:
        """These are the next questions. Never raises: whatever is wrong is said when they are asked."""
        ...


_NO_BARS, _NONE_BAD = BAR_SCHEMA.empty_table(), QUARANTINE_SCHEMA.empty_table()


def empty_bars() -> pa.Table:
    return _NO_BARS


def bars_from_columns(
    symbol: str,
    timeframe: Timeframe,
    open_time: np.ndarray,
    open: np.ndarray,
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    tick_volume: np.ndarray | None = None,
    spread_points: np.ndarray | None = None,
    *,
    received_at: datetime,
) -> pa.Table:
    """Columns -> BAR_SCHEMA table. `open_time`: datetime64 in UTC, [n]; prices float64 [n]; volume or spread may be None."""
    opened = np.asarray(open_time).astype("datetime64[us]")
    n = len(opened)
    closed = opened + np.timedelta64(timeframe.seconds, "s")
    return pa.table(
        {
            "symbol": pa.repeat(pa.scalar(symbol), n),
            "timeframe": pa.repeat(pa.scalar(timeframe.value), n),
            "open_time": pa.array(opened, UTC_MICROSECONDS),
            "close_time": pa.array(closed, UTC_MICROSECONDS),
            "open": np.asarray(open, float),
            "high": np.asarray(high, float),
            "low": np.asarray(low, float),
            "close": np.asarray(close, float),
            "tick_volume": pa.nulls(n, pa.int64()) if tick_volume is None else pa.array(tick_volume, pa.int64()),
            "spread_points": pa.nulls(n, pa.int32()) if spread_points is None else pa.array(spread_points, pa.int32()),
            "received_at": pa.repeat(pa.scalar(received_at, UTC_MICROSECONDS), n),
            "revision": pa.repeat(pa.scalar(0, pa.int32()), n),
        },
        schema=BAR_SCHEMA,
    )


def validate(bars: pa.Table, timeframe: Timeframe) -> tuple[pa.Table, pa.Table]:
    """Split one symbol's bars, oldest first, into (good in BAR_SCHEMA, bad in QUARANTINE_SCHEMA).

    Reasons, first match wins: not_a_number, not_positive, price_jump (further than exp(JUMP_LIMIT) from the running median
    of 11 closes), misordered_prices (low <= open, close <= high is broken), off_grid (open not on the timeframe's grid),
    duplicate (the same open again: the first sound row stays), out_of_order (opens before a sound row above it).
    """
    n = bars.num_rows
    if n == 0:
        return bars, _NONE_BAD
    prices = np.stack([bars[name].to_numpy() for name in ("open", "high", "low", "close")])  # [4, n]
    o, h, low, c = prices
    seconds = bars["open_time"].to_numpy().astype("datetime64[s]").astype(np.int64)
    reason = np.zeros(n, np.int8)  # 0 is none, else a place in REASONS plus one

    def mark(bad: np.ndarray, name: str) -> None:
        reason[bad & (reason == 0)] = REASONS.index(name) + 1

    finite = np.isfinite(prices).all(axis=0)
    mark(~finite, "not_a_number")
    mark(np.asarray((prices <= 0).any(axis=0)), "not_positive")
    mark(_far_from_neighbours(prices, reason == 0), "price_jump")
    mark((low > np.minimum(o, c)) | (h < np.maximum(o, c)), "misordered_prices")
    if timeframe.seconds <= 3600:  # longer bars start on the broker's midnight, not on a UTC grid
        mark(seconds % timeframe.seconds != 0, "off_grid")
    mark(_repeated(seconds, reason == 0), "duplicate")
    sound = np.where(reason == 0, seconds, np.iinfo(np.int64).min)
    mark(seconds < np.maximum.accumulate(sound), "out_of_order")

    good = reason == 0
    if good.all():
        return bars, _NONE_BAD
    bad, names = bars.filter(pa.array(~good)), [REASONS[code - 1] for code in reason[~good]]
    return bars.filter(pa.array(good)), bad.append_column(
        QUARANTINE_SCHEMA.field("reason"), pa.array(names, pa.string())
    )


def _repeated(seconds: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Usable rows whose open an earlier usable row has. A rejected row takes nobody's place. [n] bool"""
    rows = np.flatnonzero(usable)
    _, first = np.unique(seconds[rows], return_index=True)
    repeated = usable.copy()
    repeated[rows[first]] = False
    return repeated


def _far_from_neighbours(prices: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Any of a row's four prices further than JUMP_LIMIT (log) from the median close of the 11 rows around it. [n] bool

    The median looks at both sides: this judges stored rows, it is not a feature.
    """
    n = prices.shape[1]
    if n < 3 or not usable.any():
        return np.zeros(n, bool)
    log_prices = np.log(np.where(usable, prices, np.nan))
    half = min(5, (n - 1) // 2)
    padded = np.pad(log_prices[3], half, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    if not usable.all():
        windows = np.where(np.isnan(windows), np.nanmedian(log_prices[3]), windows)
    level = np.median(windows, axis=1)
    distance = np.abs(log_prices - level)
    return np.where(np.isnan(distance), 0.0, distance).max(axis=0) > JUMP_LIMIT


def only(bars: pa.Table, symbol: str, timeframe: Timeframe) -> pa.Table:
    """The rows of one symbol and timeframe."""
    return bars.filter((pc.field("symbol") == symbol) & (pc.field("timeframe") == timeframe.value))
