"""The bar store's rules over a list in memory, so that thousands of seeds take minutes. What it cannot show: a disk."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from market.bar_store import Appended, _classify, _dated, _known_at, _newest
from market.bars import empty_bars


class HeldStore:
    """What MarketData uses of BarStore. `rows`: all revisions, shared by every object that stands for the same store."""

    def __init__(self, rows: list[pa.Table], now: Callable[[], datetime]) -> None:
        self._rows, self._now, self.path = rows, now, Path("held")
        self._opens: dict[tuple[str, str], np.ndarray] = {}

    def revisions(self) -> pa.Table:
        if len(self._rows) > 1:
            self._rows[:] = [pa.concat_tables(self._rows).combine_chunks()]
        return self._rows[0] if self._rows else empty_bars()

    def read(self, as_of: datetime | None = None) -> pa.Table:
        rows = self.revisions()
        return _newest(rows if as_of is None else _known_at(rows, as_of))

    def tail(self, symbol: str, timeframe: str, n: int) -> pa.Table:
        found = _newest(self.revisions().filter(pc.equal(self.revisions()["symbol"], symbol)))
        return found.slice(max(found.num_rows - n, 0))

    def opens(self, symbol: str, timeframe: str, since: datetime | None = None) -> np.ndarray:
        key = (symbol, timeframe)
        if key not in self._opens:
            rows = self.revisions()
            opens = rows.filter(pc.equal(rows["symbol"], symbol))["open_time"].to_numpy()
            self._opens[key] = np.unique(opens.astype("datetime64[s]"))
        found = self._opens[key]
        return found if since is None else found[found >= np.datetime64(since.replace(tzinfo=None), "s")]

    def counts(self) -> dict[tuple[str, str], int]:
        rows = self.revisions()
        return {("any", "any"): rows.num_rows} if rows.num_rows else {}

    def append(self, bars: pa.Table) -> Appended:
        rows = self.revisions()
        known = rows.filter(pc.greater_equal(rows["open_time"], pc.min(bars["open_time"])))
        result = _dated(_classify(_newest(known), bars), self._now())
        if result.changed:
            self._rows += [result.added, result.revised]
            self._opens.clear()
        return result

    def quarantine(self, rows: pa.Table) -> int:
        return rows.num_rows
