"""A small market whose bars are known to the last digit, told by a server in its own clock, with every fault a feed can have.

The truth is made by plain zone arithmetic, hour by hour, not by this project's calendar and clock: those are on trial.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from market.bars import UTC_MICROSECONDS, bars_from_columns, empty_bars
from market.broker_clock import BrokerClock
from market.errors import NodeDown
from market.timeframes import Timeframe

NEW_YORK, ATHENS = ZoneInfo("America/New_York"), ZoneInfo("Europe/Athens")
MODES = ("ok", "away", "none", "partial", "doubled", "shuffled", "frozen", "slipped")
ODDS = (0.36, 0.12, 0.08, 0.14, 0.08, 0.08, 0.06, 0.08)
_FESTIVE = ("12-24", "12-25", "12-26", "12-31", "01-01", "01-02")  # hours of silence there are a holiday to anyone
LATEST_REVISION = 30 * 86400  # seconds after the close; half of all revisions come within hours, the others up to then
CLOSED, TRADED, NO_TICK, MISSING = 0, 1, 2, 3  # what is true of an open


def is_weekend(moment: datetime) -> bool:
    local = moment.astimezone(NEW_YORK)
    return (
        local.weekday() == 5
        or (local.weekday() == 4 and local.hour >= 17)
        or (local.weekday() == 6 and local.hour < 17)
    )


def server_time(moment: datetime, rule: str) -> int:
    """The server's wall clock at a UTC moment, encoded as epoch."""
    if rule == "eu":
        wall = moment.astimezone(ATHENS)
    elif rule == "new_york":
        wall = moment.astimezone(NEW_YORK) + timedelta(hours=7)
    else:
        wall = moment.astimezone(UTC) + timedelta(hours=int(rule[3:] or 0))
    return int(wall.replace(tzinfo=UTC).timestamp())


@dataclass
class Series:
    """One symbol's truth on the grid of opens: state [n]; final prices [4, n]; earlier prices of those that get revised."""

    state: np.ndarray
    final: np.ndarray
    early: np.ndarray
    available: np.ndarray  # epoch second from which a bar is answered
    revised: np.ndarray  # epoch second from which it is answered as `final`


@dataclass
class FaultyFeed:
    """A BarSource with ticks. `mode` is the fault of the moment; `now` is set by the experiment.

    `answers[symbol]`: how often each open was answered for, [n].
    """

    rule: str
    frame: Timeframe
    opens: np.ndarray  # UTC epoch seconds [n]
    server: np.ndarray  # the same in the server's clock [n]
    series: dict[str, Series]
    rng: np.random.Generator
    now: datetime
    mode: str = "ok"
    frozen_at: datetime | None = None
    slip_hours: int = 1
    answers: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.answers = {symbol: np.zeros(len(self.opens), int) for symbol in self.series}
        self.clock = BrokerClock(self.rule)

    def closed_bars(
        self, symbol: str, timeframe: str, since: datetime | None, until: datetime | None = None
    ) -> pa.Table:
        if self.mode == "away":
            raise NodeDown("The node is gone.", hint="Bring it back.")
        if self.mode == "none" and self.rng.random() < 0.7:
            return None
        end = min(until or self.now, self.now).timestamp()
        begin = since.timestamp() if since is not None else 0.0
        told = self._told()
        closed = told + self.frame.seconds
        one, seen = self.series[symbol], self._seen()
        asked = (closed > begin) & (closed <= end)
        rows = np.flatnonzero(
            asked & (one.state == TRADED) & (one.available <= seen) & (closed <= self.now.timestamp())
        )
        if self.mode == "partial":
            rows = self._part(rows)
        if self.mode != "slipped":  # refused; what else came looked like an answer
            self.answers[symbol] += asked
        if self.mode == "doubled" and len(rows):
            rows = np.sort(np.concatenate([rows, self.rng.choice(rows, min(3, len(rows)))]))
        if self.mode == "shuffled":
            rows = self.rng.permutation(rows)
        return self._table(symbol, rows, told)

    def prices(self, symbols: list[str]) -> list[dict[str, Any]]:
        if self.mode == "away":
            raise NodeDown("The node is gone.", hint="Bring it back.")
        return [{"symbol": symbol, "bid": 1.0, "time": self._newest_tick(symbol)} for symbol in symbols]

    def health(self) -> dict[str, Any]:
        return {"connected": True, "simulated": False, "market": "mt5", "server": "Faulty"}

    def ticks(self, symbol: str, since: datetime, until: datetime | None = None, limit: int = 10_000) -> pa.Table:
        """One tick at the first instant of every bar that had any."""
        if self.mode in ("away", "none"):
            raise NodeDown("The node is gone.", hint="Bring it back.")
        one = self.series[symbol]
        told = self._told()
        had = np.isin(one.state, (TRADED, MISSING)) & (self.opens <= self._seen())
        end = (until or self.now).timestamp()
        found = told[had & (told >= since.timestamp()) & (told <= end)][:limit]
        return pa.table({"time": pa.array(found.astype("datetime64[s]").astype("datetime64[us]"), UTC_MICROSECONDS)})

    def settle(self) -> None:
        """The faults end: whatever was late or to be revised is there."""
        self.mode = "ok"
        for one in self.series.values():
            one.available[:] = one.revised[:] = 0

    def ticks_fresh(self) -> bool:
        """Whether some symbol has ticked within the last half hour."""
        seen = [self._newest_tick(symbol) for symbol in self.series]
        return any(tick is not None and abs(self.now - tick) < timedelta(minutes=30) for tick in seen)

    # -- how it tells

    def _told(self) -> np.ndarray:
        """Opens in UTC as the session would make them of the server's clock. [n]"""
        told = self.clock.to_utc(self.server.astype("datetime64[s]")).astype(np.int64)
        return told + self.slip_hours * 3600 if self.mode == "slipped" else told

    def _seen(self) -> float:
        moment = self.frozen_at if self.mode == "frozen" and self.frozen_at is not None else self.now
        return moment.timestamp()

    def _part(self, rows: np.ndarray) -> np.ndarray:
        """What a terminal answers that has not loaded all: the head, the tail, or a run inside is not there."""
        if len(rows) < 2:
            return rows[:0]
        a, b = sorted(self.rng.integers(0, len(rows) + 1, 2))
        return (rows[a:], rows[:a], np.concatenate([rows[:a], rows[b:]]))[self.rng.integers(3)]

    def _newest_tick(self, symbol: str) -> datetime | None:
        seen, state = self._seen(), self.series[symbol].state
        begun = np.flatnonzero((self.opens <= seen) & np.isin(state, (TRADED, MISSING)))
        if len(begun) == 0:
            return None
        last = min(seen - 1, float(self.opens[begun[-1]] + self.frame.seconds - 1))
        slip = self.slip_hours * 3600 if self.mode == "slipped" else 0
        return datetime.fromtimestamp(max(last, float(self.opens[begun[-1]])) + slip, UTC)

    def _table(self, symbol: str, rows: np.ndarray, told: np.ndarray) -> pa.Table:
        if len(rows) == 0:
            return empty_bars()
        one = self.series[symbol]
        prices = np.where(one.revised[rows] <= self._seen(), one.final[:, rows], one.early[:, rows])
        stamps = told[rows].astype("datetime64[s]")
        return bars_from_columns(symbol, self.frame, stamps, *prices, received_at=self.now)


def made_feed(
    seed: int, anchor: datetime, days: int, frame: Timeframe, rule: str, symbols: tuple[str, ...]
) -> FaultyFeed:
    """A market of `days` days around `anchor`, with quiet bars, bars the terminal lacks, late and revised ones, holidays."""
    rng = np.random.default_rng([seed, 7])
    first = anchor.replace(minute=0, second=0, microsecond=0) - timedelta(days=days - 8)
    hours = [first + timedelta(hours=h) for h in range(days * 24)]
    weekend = np.array([is_weekend(hour) for hour in hours])
    ahead = np.array([server_time(hour, rule) - int(hour.timestamp()) for hour in hours])
    per_hour = 3600 // frame.seconds
    opens = int(first.timestamp()) + np.arange(len(hours) * per_hour) * frame.seconds
    holiday = _holiday(hours, per_hour, rng)
    closed = np.repeat(weekend, per_hour) | holiday
    series = {symbol: _made_series(closed, holiday, opens, frame, rng) for symbol in symbols}
    return FaultyFeed(rule, frame, opens, opens + np.repeat(ahead, per_hour), series, rng, anchor)


def _holiday(hours: list[datetime], per_hour: int, rng: np.random.Generator) -> np.ndarray:
    """Christmas and New Year, closed from some hour of the eve's afternoon for about a day, in most years. [n]"""
    begins, lasts, off = int(rng.integers(13, 18)), int(rng.integers(20, 30)), rng.random() < 0.8
    closed = np.zeros(len(hours), bool)
    for i, hour in enumerate(hours):
        local = hour.astimezone(NEW_YORK)
        for month, day in ((12, 24), (12, 31)):
            year = local.year - (1 if (local.month == 1 and month == 12) else 0)
            eve = datetime(year, month, day, begins, tzinfo=NEW_YORK)
            closed[i] |= off and timedelta(0) <= hour - eve < timedelta(hours=lasts)
    return np.repeat(closed, per_hour)


def _made_series(
    closed: np.ndarray, holiday: np.ndarray, opens: np.ndarray, frame: Timeframe, rng: np.random.Generator
) -> Series:
    n = len(opens)
    state = np.where(closed, CLOSED, TRADED)
    for kind, share in ((NO_TICK, 0.012), (MISSING, 0.008)):
        for start in np.flatnonzero(rng.random(n) < share):
            festive = datetime.fromtimestamp(int(opens[start]), UTC).strftime("%m-%d") in _FESTIVE
            length = 1 if festive or rng.random() < 0.7 else int(rng.integers(2, 6))
            run = slice(start, start + length)
            edge = max(start - 2, 0), start + length + 2  # beside a holiday nobody could tell a quiet bar from it
            if not holiday[slice(*edge)].any():
                state[run] = np.where(state[run] == TRADED, kind, state[run])
    close = 1.1 * np.exp(np.cumsum(rng.normal(0, 1e-3, n)))
    final = np.stack([close, close * 1.002, close * 0.998, close * (1 + rng.normal(0, 3e-4, n))])
    shut = opens + frame.seconds
    late = np.where(rng.random(n) < 0.05, rng.integers(1, 6 * 3600, n), 0)
    changes = rng.random(n) < 0.05
    early = np.where(changes, final * 1.0005, final)
    after = np.where(rng.random(n) < 0.5, rng.integers(60, 36_000, n), rng.integers(60, LATEST_REVISION, n))
    return Series(state, final, early, shut + late, np.where(changes, shut + late + after, 0))
