"""Every hole in the stored bars, and which kind it is by the evidence: closed, no_tick, missing or unfetched.

Joins the trading week, what was asked and answered, and what the other symbols did. Reads; never asks a source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from market.bar_store import BarStore
from market.calendar import Gap, are_among, expected_opens, gaps
from market.coverage import SETTLED, Coverage, Key
from market.market_clock import HOLIDAY_EVES, HOLIDAY_LASTS, HOLIDAY_STARTS, NEW_YORK, OPEN_WEEK, week_open
from market.timeframes import Timeframe

KINDS = ("closed", "no_tick", "missing", "unfetched")
MIN_CLOSED = np.timedelta64(4 * 3600, "s")  # a shorter silence is no holiday
MIN_AT_WEEKEND = np.timedelta64(3600, "s")
MIN_PANEL = 2  # symbols that must all have been silent, for a holiday to be believed


def holidays(since: datetime, until: datetime) -> list[tuple[np.datetime64, np.datetime64]]:
    """The spans [start, end), UTC, in which FX may be closed for Christmas or New Year."""
    found = []
    for year in range(since.year - 1, until.year + 1):
        for month, day in HOLIDAY_EVES:
            start = (datetime(year, month, day, tzinfo=NEW_YORK) + HOLIDAY_STARTS).astimezone(UTC)
            found.append((np.datetime64(start.replace(tzinfo=None), "s"), np.timedelta64(HOLIDAY_LASTS)))
    return [(start, start + length.astype("timedelta64[s]")) for start, length in found]


def on_holiday(opens: np.ndarray) -> np.ndarray:
    """Whether each open (datetime64[s], [n]) lies in a span of `holidays`. [n] bool"""
    inside = np.zeros(len(opens), bool)
    if len(opens):
        first, last = (moment.astype("datetime64[s]").astype(datetime) for moment in (opens.min(), opens.max()))
        for start, end in holidays(first.replace(tzinfo=UTC), last.replace(tzinfo=UTC)):
            inside |= (opens >= start) & (opens < end)
    return inside


def classifier(
    key: Key, coverage: Coverage, panel: Mapping[str, np.ndarray] | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """Absent opens of `key` [n] -> kinds [n]: what `calendar.gaps` needs.

    `panel`: symbol -> its stored opens in the same timeframe, `key`'s own among them. On Christmas and New Year an open
    that no symbol of the panel has, and for which every one was asked and answered, is closed; elsewhere it never is.
    """

    def kinds(absent: np.ndarray) -> np.ndarray:
        settled = coverage.times(key, absent) >= SETTLED
        found = np.where(settled, "missing", "unfetched").astype("<U9")
        found[settled & coverage.is_silent(key, absent)] = "no_tick"
        if panel is not None and len(panel) >= MIN_PANEL:
            closed = settled & on_holiday(absent)
            for symbol, opens in panel.items():
                closed &= ~are_among(absent, opens) & (coverage.times((symbol, key[1]), absent) >= SETTLED)
            found[_long(closed, absent, Timeframe.parse(key[1]).seconds)] = "closed"
        return found

    return kinds


def _long(closed: np.ndarray, absent: np.ndarray, seconds: int) -> np.ndarray:
    """`closed` without runs of less than MIN_CLOSED: that two symbols had no tick in the same minute is chance. [n] bool

    What a weekend leaves of a holiday is shorter: beside one MIN_AT_WEEKEND are enough.
    """
    rows = np.flatnonzero(closed)
    if len(rows) == 0:
        return closed
    step, found = np.timedelta64(seconds, "s"), closed.copy()
    for run in np.split(rows, np.flatnonzero(np.diff(absent[rows]) > step) + 1):
        start, end = absent[run[0]], absent[run[-1]] + step
        if end - start < (MIN_AT_WEEKEND if _at_weekend(_moment(start), _moment(end), seconds) else MIN_CLOSED):
            found[run] = False
    return found


def _at_weekend(start: datetime, end: datetime, seconds: int) -> bool:
    """Whether the first or the last bar of a trading week lies in [start, end). A longer bar may begin before its week."""
    opened = week_open(start + timedelta(seconds=seconds) / 2)
    return start <= opened or end >= opened + OPEN_WEEK


def ledger(
    store: BarStore,
    coverage: Coverage,
    key: Key,
    panel: Mapping[str, np.ndarray] | None = None,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    with_closed: bool = False,
) -> list[Gap]:
    """The holes of one symbol and timeframe in [since, until); by default from the first stored open to the last close."""
    first, last = store.first_open(*key), store.last_close(*key)
    if first is None or last is None:
        if since is None or until is None:
            return []
        first, last = since, until
    return gaps(
        store.opens(*key),
        Timeframe.parse(key[1]),
        since or first,
        until or last,
        kinds=classifier(key, coverage, panel),
        with_closed=with_closed,
    )


def to_ask(
    held: np.ndarray,
    coverage: Coverage,
    key: Key,
    since: datetime,
    until: datetime,
    *,
    fewer_than: int,
    join_bars: int = 500,
) -> list[tuple[datetime, datetime]]:
    """Spans [start, end) of opens, oldest first, that hold every expected open in [since, until) which is neither `held`
    (UTC, ascending, [n]) nor settled and proven silent, and was answered for less than `fewer_than` times. Spans near each other are one."""
    frame = Timeframe.parse(key[1])
    expected = expected_opens(frame, since, until)
    absent = expected[~are_among(expected, held)]
    times = coverage.times(key, absent)
    proven = coverage.is_silent(key, absent) & (times >= SETTLED)
    absent = absent[(times < fewer_than) & ~proven]
    if len(absent) == 0:
        return []
    cuts = np.flatnonzero(np.diff(absent) > join_bars * np.timedelta64(frame.seconds, "s")) + 1
    return [(_moment(run[0]), _moment(run[-1]) + frame.delta) for run in np.split(absent, cuts)]


def _moment(stamp: np.datetime64) -> datetime:
    return datetime.fromtimestamp(int(stamp.astype(np.int64)), UTC)


def panel_of(store: BarStore, symbols: list[str], timeframe: str) -> dict[str, np.ndarray]:
    """Symbol -> stored opens, of those that have any."""
    opens = {symbol: store.opens(symbol, timeframe) for symbol in symbols}
    return {symbol: stored for symbol, stored in opens.items() if len(stored)}


def as_row(key: Key, gap: Gap) -> dict[str, Any]:
    return {"symbol": key[0], "timeframe": key[1]} | gap.to_dict()
