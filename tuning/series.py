"""Bars as numpy columns, of one symbol or of several side by side, with their place in the New York week. Fits nothing.

All hours are counted from the week's open, Sunday 17:00 New York: clock changes fall into the closed weekend, so a
position in the week always means the same wall-clock hour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from market.errors import NotEnoughBars
from market.market_clock import NEW_YORK, week_open
from market.symbols import CATALOGUE
from market.timeframes import Timeframe

WEEK_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True)
class Series:
    """`n` closed bars, oldest first: [n] of one symbol, or [symbols, n] of several, row k of each being that symbol's own.

    Prices in price units, times datetime64[us] in UTC.
    """

    symbol: str  # of several: joined by commas
    open_time: np.ndarray  # [n]
    close_time: np.ndarray  # [n], the as-of time of a row
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    log_return: np.ndarray  # [n], log(close[t] / close[t-1]), NaN in row 0
    spread: np.ndarray  # [n], round-trip cost as a log-return; NaN where the source has none
    position: (
        np.ndarray
    )  # int, place of the bar in the trading week, in bars; [n] also where all symbols share their times

    def __len__(self) -> int:
        return self.close.shape[-1]

    def rows(self, first: int, last: int) -> Series:
        """Bars first .. last - 1, as views."""
        arrays = {f.name: getattr(self, f.name)[..., first:last] for f in fields(self) if f.name != "symbol"}
        return Series(self.symbol, **arrays)

    def tail(self, rows: int) -> Series:
        return self if rows == len(self) else self.rows(len(self) - rows, len(self))


def positions_per_week(timeframe: Timeframe) -> int:
    return WEEK_SECONDS // timeframe.seconds


def make_series(bars: pa.Table, timeframe: Timeframe) -> Series:
    """A table in BAR_SCHEMA (one symbol and timeframe, oldest first) -> Series [n]. NotEnoughBars when it is empty."""
    if bars.num_rows == 0:
        raise NotEnoughBars("A symbol has no bars.", hint="Import or backfill bars first: `lstmc bars backfill`.")
    return _columns(bars, [bars["symbol"][0].as_py()], (bars.num_rows,), timeframe)


def side_by_side(tables: Sequence[pa.Table], timeframe: Timeframe) -> Series:
    """Tables of equal length, as for make_series -> Series [symbols, n], each symbol's numbers as if it were alone.

    The columns are converted once for all: thirty symbols cost little more than one.
    """
    symbols = [table["symbol"][0].as_py() for table in tables]
    together = pa.concat_tables(tables, promote_options="permissive")  # a store and a feed may differ in nullability
    return _columns(together, symbols, (len(tables), tables[0].num_rows), timeframe)


def _columns(bars: pa.Table, symbols: list[str], shape: tuple[int, ...], timeframe: Timeframe) -> Series:
    opened, closed = (
        bars[name].cast(pa.int64()).to_numpy().astype("datetime64[us]").reshape(shape)
        for name in ("open_time", "close_time")
    )
    first, high, low, close = (bars[name].to_numpy().reshape(shape) for name in ("open", "high", "low", "close"))
    log_return = np.full(shape, np.nan)
    log_return[..., 1:] = np.diff(np.log(close))
    points = bars["spread_points"].cast(pa.float64()).to_numpy(zero_copy_only=False).reshape(shape)
    known = (CATALOGUE.get(symbol) for symbol in symbols)
    point = np.array([one.point if one else np.nan for one in known])
    return Series(
        symbol=",".join(symbols),
        open_time=opened,
        close_time=closed,
        open=first,
        high=high,
        low=low,
        close=close,
        log_return=log_return,
        spread=points * (point[:, None] if len(shape) == 2 else point) / close,
        position=week_position(_shared(opened), timeframe),
    )


def _shared(times: np.ndarray) -> np.ndarray:
    """One symbol's times where all have the same. [..., n] -> [n] or [..., n]"""
    return times[0] if times.ndim > 1 and (times == times[0]).all() else times


def make_all_series(bars: Mapping[str, pa.Table], timeframe: Timeframe) -> list[Series]:
    """Series in the order of the symbols' names, so that the mapping's order never matters. NotEnoughBars: none at all."""
    if not bars:
        raise NotEnoughBars("There are no bars.", hint="Import or backfill bars first: `lstmc bars backfill`.")
    return [make_series(bars[symbol], timeframe) for symbol in sorted(bars)]


def seconds_into_week(moments: np.ndarray) -> np.ndarray:
    """Seconds since the last Sunday 17:00 New York. datetime64 [..., n] -> int64 [..., n]"""
    seconds = np.asarray(moments).astype("datetime64[s]").astype(np.int64)
    if seconds.size == 0:
        return seconds
    opens = _week_opens(int(seconds.min()), int(seconds.max()))
    return seconds - opens[np.searchsorted(opens, seconds, side="right") - 1]


def _week_opens(first: int, last: int) -> np.ndarray:
    """Epoch seconds of every week's open from the one before `first` to the one before `last`. [weeks]"""
    local = week_open(datetime.fromtimestamp(first, UTC)).astimezone(NEW_YORK)
    opens = []
    while (moment := int(local.timestamp())) <= last:
        opens.append(moment)
        local += timedelta(days=7)  # wall-clock arithmetic: stays at 17:00 across clock changes
    return np.array(opens, dtype=np.int64)


def week_position(open_time: np.ndarray, timeframe: Timeframe) -> np.ndarray:
    """Place in the trading week, in bars: 0 is the bar that opens Sunday 17:00 New York. int [..., n]"""
    return seconds_into_week(open_time) // timeframe.seconds


def is_rollover(close_time: np.ndarray) -> np.ndarray:
    """Whether the next bar opens in the rollover hours, 14:00-18:59 New York (21-01 on most servers). bool [n]"""
    hour = (17 + seconds_into_week(close_time) // 3600) % 24
    return (hour >= 14) & (hour <= 18)
