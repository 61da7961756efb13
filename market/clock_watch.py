"""Does a source still tell our time? By its newest tick against now, and by bars we hold that come again at another hour.

Judges what a source already turned into UTC; knows neither its rule nor its server.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from market.calendar import are_among
from market.market_clock import OPEN_WEEK, is_open, week_open

HOUR = timedelta(hours=1)
TOLERANCE = timedelta(minutes=3)  # of clocks that are not synchronised, and of a quiet market
FARTHEST = timedelta(hours=14)  # no two time zones differ by more
_CONTENT = ("open", "high", "low", "close")


@dataclass
class TickWatch:
    """The newest tick of the panel against now. A feed that stands still is not a wrong clock, though it may be an hour old.

    While the market is open a tick that is new and yet whole hours old has been dated by the wrong rule; so has one from
    the future. The rule may also have been right and the feed frozen exactly so long: then there is nothing to lose.
    """

    _seen: datetime | None = None
    _bad: bool = False

    def look(self, newest: datetime | None, now: datetime) -> int | None:
        """Hours by which the source's clock is off, or None when nothing speaks against it. `newest`: UTC."""
        if newest is None:
            return None
        moved, self._seen = newest != self._seen, newest
        off = newest - now
        hours = round(off / HOUR)
        whole = hours != 0 and abs(off - hours * HOUR) <= TOLERANCE and abs(off) <= FARTHEST
        if off > TOLERANCE:
            self._bad = True
            return max(hours, 1)
        self._bad = whole and is_open(now) and (moved or self._bad)
        return hours if self._bad else None


def slipped_hours(stored: pa.Table, answer: pa.Table) -> int | None:
    """Hours by which an answer dates bars otherwise than the stored ones of the same symbol and timeframe; None: it does not.

    That is so when no bar is what we hold at its time, while at one other hour at least half of them are, to the last digit.
    """
    held, ours = _seconds(stored), _prices(stored)
    given, theirs = _seconds(answer), _prices(answer)
    moved = theirs[1] > theirs[2]  # bars without movement are alike
    if len(held) == 0 or _equal(held, ours, given, theirs):
        return None
    found = []
    for hours in _hours_between(held, ours[3], given, theirs[3]):
        then = given[moved] - hours * 3600
        equal, there = _equal(held, ours, then, theirs[:, moved]), are_among(then, held).sum()
        if equal and 2 * equal >= there:
            found.append((equal, -abs(hours), hours))
    return max(found)[2] if found else None


def confirmed(stored: pa.Table, answer: pa.Table) -> bool:
    """Some bar of the answer is as it is held, to the last digit."""
    return _equal(_seconds(stored), _prices(stored), _seconds(answer), _prices(answer)) > 0


def contradicts(stored: pa.Table, answer: pa.Table) -> bool:
    """Two or more bars come again, and not one of them as it is held: another clock, or another account."""
    held, given = _seconds(stored), _seconds(answer)
    return int(are_among(given, held).sum()) > 1 and not _equal(held, _prices(stored), given, _prices(answer))


def _hours_between(held: np.ndarray, ours: np.ndarray, given: np.ndarray, theirs: np.ndarray) -> list[int]:
    """Whole hours, up to FARTHEST, between bars of the same close: the only shifts worth a look."""
    order = np.argsort(ours, kind="stable")
    place = order[np.minimum(np.searchsorted(ours[order], theirs), len(ours) - 1)]
    off = (given - held[place])[ours[place] == theirs]
    hours = np.unique(off[off % 3600 == 0] // 3600)
    return [int(hour) for hour in hours if hour and abs(hour) <= FARTHEST / HOUR]


def slipped_weeks(answer: pa.Table) -> int | None:
    """Hours by which every weekend in an answer begins and ends too late (or early, negative); None when one does not.

    Friday's last close and Sunday's first open must be off by the same whole hours: a late opening or an early close is not.
    """
    opens, closes = _seconds(answer), answer["close_time"].to_numpy().astype("datetime64[s]").astype(np.int64)
    off = set()
    for place in np.flatnonzero(np.diff(opens) > 40 * 3600):
        opened = week_open(datetime.fromtimestamp(int(opens[place + 1]) + 12 * 3600, UTC))
        shut = week_open(datetime.fromtimestamp(int(opens[place]) - 12 * 3600, UTC)) + OPEN_WEEK
        off.add((int(opens[place + 1]) - int(opened.timestamp()), int(closes[place]) - int(shut.timestamp())))
    late, ended = off.pop() if len(off) == 1 else (0, 1)
    return late // 3600 if late == ended and late and late % 3600 == 0 else None


def _equal(held: np.ndarray, ours: np.ndarray, given: np.ndarray, theirs: np.ndarray) -> int:
    """How many given bars are, at their time, exactly what is held."""
    if len(held) == 0:
        return 0
    place = np.minimum(np.searchsorted(held, given), len(held) - 1)
    same = (held[place] == given) & (ours[:, place] == theirs).all(axis=0)
    return int(same.sum())


def _seconds(bars: pa.Table) -> np.ndarray:
    return bars["open_time"].to_numpy().astype("datetime64[s]").astype(np.int64)


def _prices(bars: pa.Table) -> np.ndarray:
    return np.stack([bars[name].to_numpy() for name in _CONTENT])
