"""Is a hole in the bars a time without ticks? Asks the source for its ticks there, a few holes at a time.

An empty answer proves nothing unless the same source shows ticks before and after: its history may not reach so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from market.bar_store import BarStore
from market.bars import BarSource
from market.calendar import Gap, gaps
from market.coverage import Coverage, Key
from market.errors import MarketUnavailable
from market.gap_ledger import classifier
from market.timeframes import Timeframe

PROBES = 40  # holes per run; the rest wait for the next
MOST_TICKS = 20_000

Ask = Callable[[Callable[[BarSource], Any]], Any]


class TickProbe:
    """Turns settled holes of `store` into proven silence in `coverage`, where the ticks say so."""

    def __init__(self, store: BarStore, coverage: Coverage) -> None:
        self._store, self._coverage = store, coverage
        self._tried: set[tuple[Key, datetime, datetime]] = set()

    def run(self, keys: Sequence[Key], since: datetime, until: datetime, ask: Ask, bars: int | None = None) -> int:
        """Probe up to PROBES holes in [since, until), of the newest `bars` only when given; returns how many bars are silent.

        Never raises MarketUnavailable: what could not be looked at stays as it is.
        """
        left, silent = PROBES, 0
        for key in keys:
            for gap, before in self._holes(key, since, until, bars)[:left]:
                left -= 1
                try:
                    seconds = Timeframe.parse(key[1]).seconds
                    found = ask(partial(_silent_opens, symbol=key[0], before=before, gap=gap, seconds=seconds))
                except MarketUnavailable:
                    return silent
                if found is None:  # quiet until now: the next tick will tell
                    continue
                self._tried.add((key, gap.start, gap.end))
                self._coverage.silent(key, found, seconds)
                silent += len(found)
        return silent

    def _holes(self, key: Key, since: datetime, until: datetime, bars: int | None) -> list[tuple[Gap, datetime]]:
        """Missing runs not tried yet, newest first, each with a time before it since when there should be ticks: the open
        of the stored bar before, or of a day that a weekend cannot hide."""
        frame = Timeframe.parse(key[1])
        since = since if bars is None else max(since, until - bars * frame.delta)
        opens = self._store.opens(*key)
        found = []
        for gap in gaps(opens, frame, since, until, kinds=classifier(key, self._coverage)):
            place = int(np.searchsorted(opens, np.datetime64(gap.start.replace(tzinfo=None), "s")))
            if gap.kind == "missing" and (key, gap.start, gap.end) not in self._tried:
                last = opens[place - 1].astype(datetime).replace(tzinfo=UTC) if place else gap.start - timedelta(days=4)
                found.append((gap, last))
        return found[::-1]


def _silent_opens(source: BarSource, symbol: str, before: datetime, gap: Gap, seconds: int) -> list[int] | None:
    """Opens of the gap (epoch seconds) without a tick, if there are ticks before and after; None while none came after.
    No tick source, no proof."""
    ticks = getattr(source, "ticks", None)
    if ticks is None or not len(_times(ticks(symbol, before, gap.start, 1), gap.start)):
        return []
    later = gap.end + timedelta(days=4)
    if not len(_times(ticks(symbol, gap.end, later, 1), later)):
        return None
    times = _times(ticks(symbol, gap.start, gap.end, MOST_TICKS), gap.end)
    seen = int(times[-1]) if len(times) >= MOST_TICKS else int(gap.end.timestamp())
    opens = np.arange(int(gap.start.timestamp()), seen, seconds)
    ticked = np.searchsorted(times, opens) < np.searchsorted(times, opens + seconds)
    return [int(second) for second in opens[~ticked]]


def _times(ticks: pa.Table, end: datetime) -> np.ndarray:
    """Epoch seconds of the ticks before `end`, ascending [n]: a range of ticks holds both its ends."""
    if not isinstance(ticks, pa.Table):
        raise MarketUnavailable("No answer to the question for ticks.", hint="It is asked again by itself.")
    times = np.sort(ticks["time"].to_numpy().astype("datetime64[us]").astype(np.int64) / 1e6)
    return times[times < end.timestamp()]
