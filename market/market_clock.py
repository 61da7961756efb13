"""What time it is in the market. Real time, or a simulated market's time, which can run faster and skips weekends.

Every process computes the same market time from the same four numbers; nobody has to be asked.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")
WEEK = timedelta(hours=168)
OPEN_WEEK = timedelta(hours=120)  # Sunday 17:00 to Friday 17:00, New York; DST changes fall into the closed weekend
# Christmas and New Year, New York: from early afternoon of the eve until London is back on the day after.
HOLIDAY_EVES = ((12, 24), (12, 31))
HOLIDAY_STARTS, HOLIDAY_LASTS = timedelta(hours=13), timedelta(hours=38)


def week_open(moment: datetime) -> datetime:
    """The start (Sunday 17:00 New York, as UTC) of the trading week that `moment` is in or, at a weekend, follows."""
    local = moment.astimezone(NEW_YORK)
    sunday = (local - timedelta(days=(local.weekday() + 1) % 7)).date()
    start = datetime(sunday.year, sunday.month, sunday.day, 17, tzinfo=NEW_YORK)
    if start > local:
        earlier = sunday - timedelta(days=7)
        start = datetime(earlier.year, earlier.month, earlier.day, 17, tzinfo=NEW_YORK)
    return start.astimezone(UTC)


def is_open(moment: datetime) -> bool:
    """Whether the FX week is open. Holidays are not known here."""
    return moment - week_open(moment) < OPEN_WEEK


def closes_or_opens(moment: datetime) -> datetime:
    """When the week closes next or, at a weekend, opens again."""
    return week_open(moment) + OPEN_WEEK if is_open(moment) else next_week_open(moment)


def holiday_at(moment: datetime) -> tuple[datetime, datetime] | None:
    """The span [start, end) around Christmas or New Year that `moment` lies in: FX may be closed then, brokers differ."""
    local = moment.astimezone(NEW_YORK)
    for year in (local.year - 1, local.year):
        for month, day in HOLIDAY_EVES:
            start = (datetime(year, month, day, tzinfo=NEW_YORK) + HOLIDAY_STARTS).astimezone(UTC)
            if start <= moment < start + HOLIDAY_LASTS:
                return start, start + HOLIDAY_LASTS
    return None


def next_week_open(moment: datetime) -> datetime:
    return week_open(week_open(moment) + WEEK + timedelta(hours=2))


def grace(speed: float) -> timedelta:
    """How late a bar may be, in market time: 60 market seconds for the bar, 15 wall seconds for reading and computing."""
    return timedelta(seconds=60 + 15 * speed)


def add_open_time(moment: datetime, span: timedelta) -> datetime:
    """`moment` plus `span` of open market time: closed weekends are stepped over. `span` >= 0."""
    if not is_open(moment):
        moment = next_week_open(moment)
    start = week_open(moment)
    left = start + OPEN_WEEK - moment
    if span < left:
        return moment + span
    weeks, rest = divmod(span - left, OPEN_WEEK)
    return week_open(start + (weeks + 1) * WEEK + timedelta(hours=36)) + rest  # a Tuesday, whatever DST did


def open_time_between(start: datetime, end: datetime) -> timedelta:
    """Open market time in [start, end]; 0 when end <= start."""
    if end <= start:
        return timedelta(0)
    first, last = week_open(start), week_open(end)
    inside = min(end - last, OPEN_WEEK) - min(start - first, OPEN_WEEK)
    weeks = round((last - first) / WEEK)
    return inside + weeks * OPEN_WEEK


@dataclass(frozen=True)
class MarketClock:
    """Market time as a function of wall time.

    At wall time `wall_start` (epoch seconds) the market shows `market_start` (epoch seconds, UTC) and from there runs
    `speed` times as fast. With speed 1 and equal starts it is real time. An accelerated clock steps over closed
    weekends; past the end of recorded bars it goes on, so that forecasts turn stale there.
    """

    wall_start: float
    market_start: float
    speed: float = 1.0

    @classmethod
    def real(cls) -> MarketClock:
        return cls(0.0, 0.0, 1.0)

    def now(self, wall: float | None = None) -> datetime:
        """Aware UTC market time at wall epoch seconds `wall` (default: now)."""
        passed = (time.time() if wall is None else wall) - self.wall_start
        start = datetime.fromtimestamp(self.market_start, UTC)
        if self.is_real:
            return start + timedelta(seconds=passed)
        moment = add_open_time(start, timedelta(seconds=max(passed, 0.0) * self.speed))
        return moment

    @property
    def is_real(self) -> bool:
        return self.speed == 1.0 and self.wall_start == self.market_start

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> MarketClock:
        return cls(**fields)
