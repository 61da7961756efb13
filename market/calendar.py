"""Which bars the FX week should have, and what became of those that are not there. What fills a hole, gap_ledger knows.

Week: Sunday 17:00 to Friday 17:00, New York. Does not read stores or ask sources.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np

from market.broker_clock import BrokerClock
from market.forecasts import iso_utc
from market.market_clock import OPEN_WEEK, next_week_open, week_open
from market.timeframes import Timeframe


@dataclass(frozen=True)
class Gap:
    """A run of bars that are not there: opens in [start, end), UTC.

    `kind`: closed (the week's end, a holiday), no_tick (the source's ticks were looked at and there was none), missing
    (asked for again and again; the source has none, though the market was open), unfetched (not asked for yet, or not
    often enough to be believed). `bars`: how many.
    """

    start: datetime
    end: datetime
    kind: str
    bars: int

    def to_dict(self) -> dict[str, Any]:
        return {"from": iso_utc(self.start), "to": iso_utc(self.end), "kind": self.kind, "bars": self.bars}


def expected_opens(
    timeframe: Timeframe, since: datetime, until: datetime, clock: BrokerClock | None = None
) -> np.ndarray:
    """Opens in [since, until) that the trading week should have, UTC datetime64[s]. H4 and D1 lie on the server's grid.

    `clock`: the server's, default New York + 7 h, where a day begins with the week.
    """
    server = clock or BrokerClock("new_york")
    parts, start = [np.zeros(0, "datetime64[s]")], week_open(since)
    while start < until:
        parts.append(_week(start, timeframe, server))
        start = _next_week(start)
    opens = np.concatenate(parts)
    return opens[np.searchsorted(opens, _stamp(since)) : np.searchsorted(opens, _stamp(until))]


_next_week = lru_cache(maxsize=1024)(next_week_open)


@lru_cache(maxsize=1024)
def _week(start: datetime, timeframe: Timeframe, server: BrokerClock) -> np.ndarray:
    """The opens of one trading week, ascending; shared by all who ask, so not to be written to."""
    first = int(start.timestamp())
    opens = np.arange(first, first + int(OPEN_WEEK.total_seconds()), min(timeframe.seconds, 3600))
    wall = opens + server.offset_seconds(opens)
    week = np.unique(opens - wall % timeframe.seconds).astype("datetime64[s]")
    week.flags.writeable = False
    return week


def are_among(opens: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """Whether each open [n] is one of the `ascending` ones [m], of the same unit. [n] bool"""
    if len(ascending) == 0:
        return np.zeros(len(opens), bool)
    place = np.minimum(np.searchsorted(ascending, opens), len(ascending) - 1)
    found: np.ndarray = ascending[place] == opens
    return found


def gaps(
    open_times: np.ndarray,
    timeframe: Timeframe,
    since: datetime,
    until: datetime,
    *,
    kinds: Callable[[np.ndarray], np.ndarray] | None = None,
    with_closed: bool = False,
    clock: BrokerClock | None = None,
) -> list[Gap]:
    """Runs of expected opens in [since, until) that `open_times` (UTC, any order) lacks, oldest first.

    `kinds`: absent opens (datetime64[s], [n]) -> the kind of each, [n] str (see gap_ledger); without it all are missing.
    A run ends where the kind changes. `with_closed` lists the weekends as well.
    """
    expected = expected_opens(timeframe, since, until, clock)
    absent = expected[~are_among(expected, np.sort(np.asarray(open_times).astype("datetime64[s]")))]
    names = np.full(len(absent), "missing") if kinds is None else kinds(absent)
    step = np.timedelta64(timeframe.seconds, "s")
    found = []
    for run in _runs(absent, names, expected, step):
        rows = absent[run]
        found.append(Gap(_moment(rows[0]), _moment(rows[-1] + step), str(names[run[0]]), len(run)))
    if with_closed:
        found += _weekends(since, until, timeframe)
    return sorted(found, key=lambda gap: gap.start)


def _runs(absent: np.ndarray, names: np.ndarray, expected: np.ndarray, step: np.timedelta64) -> list[np.ndarray]:
    """Rows of absent opens of one kind that follow each other in the expected grid without a weekend between."""
    if len(absent) == 0:
        return []
    place = np.searchsorted(expected, absent)
    breaks = (np.diff(place) > 1) | (np.diff(absent) > 2 * step) | (names[1:] != names[:-1])
    return np.split(np.arange(len(absent)), np.flatnonzero(breaks) + 1)


def _weekends(since: datetime, until: datetime, timeframe: Timeframe) -> list[Gap]:
    found, start = [], week_open(since)
    while start + OPEN_WEEK < until:
        opened = next_week_open(start)
        begin, end = max(start + OPEN_WEEK, since), min(opened, until)
        if begin < end:
            found.append(Gap(begin, end, "closed", int((end - begin) / timeframe.delta)))
        start = opened
    return found


def _stamp(moment: datetime) -> np.datetime64:
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "s")


def _moment(stamp: np.datetime64) -> datetime:
    return datetime.fromtimestamp(int(stamp.astype("datetime64[s]").astype(np.int64)), UTC)
