"""The bar store's rules over a list in memory, so that thousands of seeds take minutes. What it cannot show: a disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from market.bar_store import Appended, _dated, _known_at, _newest, classify
from market.bars import empty_bars
from market.coverage import Key


class HeldStore:
    """What MarketData uses of BarStore. `rows`: all revisions, shared by every object that stands for the same store."""

    def __init__(self, rows: list[pa.Table], now: Callable[[], datetime]) -> None:
        self._rows, self._now, self.path = rows, now, Path("held")
        self._newest_of: dict[Key, pa.Table] = {}  # until the next append to that key

    def revisions(self) -> pa.Table:
        if len(self._rows) > 1:
            self._rows[:] = [pa.concat_tables(self._rows).combine_chunks()]
        return self._rows[0] if self._rows else empty_bars()

    def read(
        self,
        symbols: Sequence[str] | None = None,
        timeframe: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        as_of: datetime | None = None,
    ) -> pa.Table:
        """One symbol between two moments, or everything, then also as of a moment."""
        if symbols is None or timeframe is None:
            rows = self.revisions()
            return _newest(rows if as_of is None else _known_at(rows, as_of))
        found = self._newest((symbols[0], timeframe))
        opens = _stamps(found)
        first = 0 if since is None else int(np.searchsorted(opens, _stamp(since)))
        last = len(opens) if until is None else int(np.searchsorted(opens, _stamp(until)))
        return found.slice(first, max(last - first, 0))

    def tail(self, symbol: str, timeframe: str, n: int) -> pa.Table:
        found = self._newest((symbol, timeframe))
        return found.slice(max(found.num_rows - n, 0))

    def opens(
        self, symbol: str, timeframe: str, since: datetime | None = None, until: datetime | None = None
    ) -> np.ndarray:
        return _stamps(self.read([symbol], timeframe, since, until))

    def first_open(self, symbol: str, timeframe: str) -> datetime | None:
        found = self._newest((symbol, timeframe))
        return found["open_time"][0].as_py() if found.num_rows else None

    def counts(self) -> dict[Key, int]:
        rows = self.revisions()
        return {("any", "any"): rows.num_rows} if rows.num_rows else {}

    def append(self, bars: pa.Table) -> Appended:
        if bars.num_rows == 0:
            return Appended(empty_bars(), empty_bars(), 0)
        first = pc.min(bars["open_time"]).as_py()
        keys = _pairs(bars)
        known = [self.read([symbol], timeframe, first) for symbol, timeframe in keys]
        result = _dated(classify(pa.concat_tables(known), bars), self._now())
        if result.changed:
            self._rows += [result.added, result.revised]
            for key in keys:
                self._newest_of.pop(key, None)
        return result

    def quarantine(self, rows: pa.Table) -> int:
        return rows.num_rows

    def _newest(self, key: Key) -> pa.Table:
        if key not in self._newest_of:
            rows = self.revisions()
            self._newest_of[key] = _newest(rows.filter(pc.equal(rows["symbol"], key[0])))
        return self._newest_of[key]


def _pairs(bars: pa.Table) -> list[Key]:
    return list(product(pc.unique(bars["symbol"]).to_pylist(), pc.unique(bars["timeframe"]).to_pylist()))


def _stamps(bars: pa.Table) -> np.ndarray:
    return bars["open_time"].to_numpy().astype("datetime64[s]")


def _stamp(moment: datetime) -> np.datetime64:
    return np.datetime64(moment.replace(tzinfo=None), "s")
