"""Which bars the FX week should have, and what became of those that are not there. Holidays are not known here.

Week: Sunday 17:00 to Friday 17:00, New York. Does not read stores or ask sources.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from market.broker_clock import BrokerClock
from market.forecasts import iso_utc
from market.market_clock import OPEN_WEEK, next_week_open, week_open
from market.timeframes import Timeframe


@dataclass(frozen=True)
class Gap:
    """A run of bars that are not there: opens in [start, end), UTC.

    `kind`: closed (the week's end), no_tick (the source was asked and the minute had no tick), missing (the source has
    none, though the market was open: a holiday or a hole), unfetched (nobody asked yet). `bars`: how many.
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
        first = int(start.timestamp())
        opens = np.arange(first, first + int(OPEN_WEEK.total_seconds()), min(timeframe.seconds, 3600))
        wall = opens + server.offset_seconds(opens)
        parts.append(np.unique(opens - wall % timeframe.seconds).astype("datetime64[s]"))
        start = next_week_open(start)
    opens = np.concatenate(parts)
    return opens[(opens >= _stamp(since)) & (opens < _stamp(until))]


def gaps(
    open_times: np.ndarray,
    timeframe: Timeframe,
    since: datetime,
    until: datetime,
    *,
    fetched_until: datetime | None = None,
    has_ticks: Callable[[datetime, datetime], bool] | None = None,
    with_closed: bool = False,
    clock: BrokerClock | None = None,
) -> list[Gap]:
    """Runs of expected opens in [since, until) that `open_times` (UTC, any order) lacks, oldest first.

    After `fetched_until` a hole is unfetched; where `has_ticks(start, end)` is given and says no, it is no_tick; else
    missing. `with_closed` lists the weekends as well.
    """
    expected = expected_opens(timeframe, since, until, clock)
    absent = ~np.isin(expected, np.asarray(open_times).astype("datetime64[s]"))
    step = np.timedelta64(timeframe.seconds, "s")
    found = []
    for run in _runs(expected[absent], expected, step):
        start, end = _moment(run[0]), _moment(run[-1] + step)
        found.append(Gap(start, end, _kind(start, end, fetched_until, has_ticks), len(run)))
    if with_closed:
        found += _weekends(since, until, timeframe)
    return sorted(found, key=lambda gap: gap.start)


def _kind(
    start: datetime,
    end: datetime,
    fetched_until: datetime | None,
    has_ticks: Callable[[datetime, datetime], bool] | None,
) -> str:
    if fetched_until is not None and start >= fetched_until:
        return "unfetched"
    return "no_tick" if has_ticks is not None and not has_ticks(start, end) else "missing"


def _runs(absent: np.ndarray, expected: np.ndarray, step: np.timedelta64) -> list[np.ndarray]:
    """Absent opens that follow each other in the expected grid without a weekend between."""
    if len(absent) == 0:
        return []
    place = np.searchsorted(expected, absent)
    breaks = (np.diff(place) > 1) | (np.diff(absent) > 2 * step)
    return np.split(absent, np.flatnonzero(breaks) + 1)


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
