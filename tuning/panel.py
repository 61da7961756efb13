"""Several symbols' bars side by side: one long axis of (symbol, bar) rows for folds and learners. Fits nothing.

The flat axis is symbol-major: symbol 0's bars, then symbol 1's, so a symbol is a slice. Only rows past the look-back
are `usable`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from market.timeframes import Timeframe
from tuning.series import Series, is_rollover, make_all_series
from tuning.splits import Fold, Scheme, purged_walk_forward
from tuning.targets import Targets, make_targets


@dataclass(frozen=True)
class Panel:
    """`n` rows in all; symbol s owns rows `starts[s] : starts[s + 1]`."""

    timeframe: Timeframe
    horizons: tuple[int, ...]
    series: list[Series]
    targets: list[Targets]
    starts: np.ndarray  # int [symbols + 1]
    symbol: np.ndarray  # int [n]
    time: np.ndarray  # datetime64[us] [n], as-of close
    label_end: np.ndarray  # datetime64[us] [n], of the longest horizon
    rv: dict[int, np.ndarray]  # [n]
    ret: dict[int, np.ndarray]  # [n]
    lookback: int

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(series.symbol for series in self.series)

    def __len__(self) -> int:
        return len(self.time)

    def slice(self, s: int) -> slice:
        return slice(int(self.starts[s]), int(self.starts[s + 1]))

    def own_rows(self, rows: np.ndarray, s: int) -> np.ndarray:
        """Of ascending flat `rows`, those of symbol s, counted from the symbol's own first bar."""
        first, last = np.searchsorted(rows, self.starts[s : s + 2])
        return rows[first:last] - self.starts[s]

    def pool(self, name: str) -> np.ndarray:
        """A Series column of all symbols on the flat axis. [n]"""
        return np.concatenate([getattr(series, name) for series in self.series])

    def rollover(self) -> np.ndarray:
        return np.concatenate([is_rollover(series.close_time) for series in self.series])


def make_panel(bars: Mapping[str, pa.Table], timeframe: Timeframe, horizons: tuple[int, ...], lookback: int) -> Panel:
    """Tables in BAR_SCHEMA, one symbol each -> Panel with labels. Symbols are sorted by name."""
    series = make_all_series(bars, timeframe)
    targets = [make_targets(one, horizons) for one in series]
    lengths = [len(one) for one in series]
    return Panel(
        timeframe=timeframe,
        horizons=horizons,
        series=series,
        targets=targets,
        starts=np.concatenate([[0], np.cumsum(lengths)]),
        symbol=np.repeat(np.arange(len(series)), lengths),
        time=np.concatenate([one.close_time for one in series]),
        label_end=np.concatenate([one.label_end for one in targets]),
        rv={h: np.concatenate([one.rv[h] for one in targets]) for h in horizons},
        ret={h: np.concatenate([one.ret[h] for one in targets]) for h in horizons},
        lookback=lookback,
    )


def recent(bars: Mapping[str, pa.Table], scheme: Scheme, lookback: int) -> dict[str, pa.Table]:
    """Drop bars older than any fold of a rolling `scheme` can reach; an expanding one keeps everything.

    A symbol whose bars all lie before that drops out.
    """
    if scheme.max_train_bars is None or not any(table.num_rows for table in bars.values()):
        return dict(bars)
    opens = [table["open_time"].cast(pa.int64()).to_numpy() for table in bars.values()]
    axis = np.unique(np.concatenate(opens))
    days = int((scheme.test_days + scheme.lockbox_days + 1) * 86400e6)
    tested = len(axis) - int(np.searchsorted(axis, axis[-1] - days))
    burn_in = tested // scheme.folds if scheme.burn_in else 0
    keep = tested + burn_in + scheme.max_train_bars + 2 * (scheme.purge + scheme.embargo) + 2 * lookback
    oldest = axis[max(len(axis) - keep, 0)]
    kept = {
        symbol: table.slice(int(np.searchsorted(o, oldest)))
        for (symbol, table), o in zip(bars.items(), opens, strict=True)
    }
    return {symbol: table for symbol, table in kept.items() if table.num_rows}


def usable_rows(panel: Panel) -> np.ndarray:
    """Flat rows whose look-back is filled, ascending."""
    own = np.arange(len(panel)) - panel.starts[panel.symbol]
    return np.flatnonzero(own >= panel.lookback)


def make_folds(panel: Panel, scheme: Scheme) -> list[Fold]:
    """Walk-forward folds over usable rows, as flat row numbers. NotEnoughBars when history is too short."""
    usable = usable_rows(panel)
    folds = purged_walk_forward(panel.time[usable], panel.label_end[usable], scheme, warm_up=panel.lookback)
    return [Fold(f.number, *(usable[part] for part in (f.train, f.test, f.purged, f.embargoed))) for f in folds]
