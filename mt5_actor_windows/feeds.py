"""What a terminal could show at a moment, from a simulated or a recorded market: rates, ticks, the last quote.

Takes `now` with every call and never shows what comes after it. Times are UTC seconds; the server's clock only decides
where long bars begin. Does not know MetaTrader's functions or errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from market.bar_files import RecordedBars
from market.broker_clock import BrokerClock
from market.market_clock import WEEK
from market.timeframes import Timeframe
from mt5_actor_windows.simulated_market import EPOCH, MinuteBars, SimulatedMarket

# The packed 60-byte records that MetaTrader5 returns.
_RATE_FIELDS = "time:i8 open:f8 high:f8 low:f8 close:f8 tick_volume:u8 spread:i4 real_volume:u8"
_TICK_FIELDS = "time:i8 bid:f8 ask:f8 last:f8 volume:u8 time_msc:i8 flags:u4 volume_real:f8"
RATES = np.dtype([(name, "<" + kind) for name, kind in (field.split(":") for field in _RATE_FIELDS.split())])
TICKS = np.dtype([(name, "<" + kind) for name, kind in (field.split(":") for field in _TICK_FIELDS.split())])
BID_AND_ASK = 2 | 4  # TICK_FLAG_BID, TICK_FLAG_ASK
PER_BAR = 4  # ticks shown per shortest bar: open, the two extremes, close
MAX_TICKS = 100_000  # per question, the oldest of them


@dataclass(frozen=True)
class Quote:
    """The last known price: bid, spread in points, and when it was made (UTC seconds)."""

    time: float
    bid: float
    spread: int


class Feed(Protocol):
    """A market to look at. `rates` has the bar forming at `now` last; None: this timeframe is not offered."""

    codes: tuple[str, ...]

    def rates(self, code: str, timeframe: Timeframe, since: int, until: int, now: float) -> np.ndarray | None: ...

    def quotes(self, code: str, since: float, until: float, now: float) -> list[Quote]: ...

    def last_quote(self, code: str, now: float) -> Quote | None: ...


def empty_rates() -> np.ndarray:
    return np.zeros(0, RATES)


def aggregate(rates: np.ndarray, timeframe: Timeframe, clock: BrokerClock) -> np.ndarray:
    """Shorter rates (UTC) -> longer ones on the server's grid; a bar's spread is that of its first part. [n] -> [m]"""
    if len(rates) == 0:
        return rates
    server = rates["time"] + clock.offset_seconds(rates["time"])
    bucket = server // timeframe.seconds
    first = np.flatnonzero(np.r_[True, bucket[1:] != bucket[:-1]])
    merged = rates[first].copy()
    merged["time"] = rates["time"][first] - server[first] % timeframe.seconds
    merged["high"] = np.maximum.reduceat(rates["high"], first)
    merged["low"] = np.minimum.reduceat(rates["low"], first)
    merged["close"] = rates["close"][np.r_[first[1:], len(rates)] - 1]
    merged["tick_volume"] = np.add.reduceat(rates["tick_volume"], first)
    return merged


def _path(rate: np.void) -> list[float]:
    """The four prices of a bar in the order its ticks show them."""
    o, h, low, c = (float(rate[name]) for name in ("open", "high", "low", "close"))
    return [o, low, h, c] if c >= o else [o, h, low, c]


def _ticks_of(rates: np.ndarray, seconds: int, since: float, until: float, known: float) -> list[Quote]:
    """Four quotes per bar, evenly spaced, inside [since, until]. `known`: bars still open then show only their open.

    No more bars are looked at than MAX_TICKS need; the first may lie before `since`.
    """
    step = seconds / PER_BAR
    quotes = []
    for rate in rates[: MAX_TICKS // PER_BAR + 2]:
        opened = int(rate["time"])
        shown = _path(rate) if opened + seconds <= known else _path(rate)[:1]
        quotes += [Quote(opened + i * step, price, int(rate["spread"])) for i, price in enumerate(shown)]
    return [quote for quote in quotes if since <= quote.time <= until]


class SimulatedFeed:
    """The simulated market as a feed. Whole past weeks are aggregated once and kept."""

    def __init__(self, market: SimulatedMarket, codes: Sequence[str], clock: BrokerClock) -> None:
        self.codes = tuple(codes)
        self._market = market
        self._clock = clock
        self._weeks: dict[tuple[str, Timeframe, int], np.ndarray] = {}

    def rates(self, code: str, timeframe: Timeframe, since: int, until: int, now: float) -> np.ndarray | None:
        until = min(until, int(now))
        since = max(since, int(EPOCH.timestamp()) - timeframe.seconds)
        if until < since:
            return empty_rates()
        weeks = range(max(self._week_of(since), 0), self._week_of(until) + 1)
        rates = np.concatenate([empty_rates(), *(self._week(code, timeframe, week, since, now) for week in weeks)])
        return rates[(rates["time"] >= since) & (rates["time"] <= until)]

    def quotes(self, code: str, since: float, until: float, now: float) -> list[Quote]:
        # A week has 7200 minutes: four hold more ticks than are shown, and none is made in vain.
        since = max(since, EPOCH.timestamp())
        minutes = self._minutes(code, since - 60, min(until, now, since + 5 * WEEK.total_seconds()))
        return _ticks_of(minutes, 60, since, min(until, now), np.inf)

    def last_quote(self, code: str, now: float) -> Quote | None:
        minutes = self._minutes(code, now - 60, now)
        if len(minutes) == 0:
            week = self._week_of(now)
            whole = self._market.minutes(code, week)
            minutes = empty_rates() if whole is None else _as_rates(whole, whole.time[-1])
        seen = [quote for quote in _ticks_of(minutes, 60, -np.inf, now, np.inf)]
        return seen[-1] if seen else None

    def _week_of(self, second: float) -> int:
        return self._market.week_of(datetime.fromtimestamp(second, UTC))

    def _minutes(self, code: str, since: float, until: float) -> np.ndarray:
        weeks = range(max(self._week_of(since), 0), self._week_of(until) + 1)
        whole = (self._market.minutes(code, week) for week in weeks)
        return np.concatenate([empty_rates(), *(_as_rates(week, since, until) for week in whole if week is not None)])

    def _week(self, code: str, timeframe: Timeframe, week: int, since: float, now: float) -> np.ndarray:
        """Its bars, all of them once it is over, from `since` while it goes on."""
        key = (code, timeframe, week)
        if key in self._weeks:
            return self._weeks[key]
        minutes = self._market.minutes(code, week)
        if minutes is None:
            return empty_rates()
        if minutes.time[-1] + 60 > now:
            from_its_open = since - timeframe.seconds  # also of the bar that `since` is in
            return aggregate(_until(_as_rates(minutes, from_its_open, now), now), timeframe, self._clock)
        merged = aggregate(_as_rates(minutes), timeframe, self._clock)
        if timeframe.seconds >= 900:  # a year of minutes would be too much to keep
            self._weeks[key] = merged
        return merged


def _as_rates(minutes: MinuteBars, since: float = -np.inf, until: float = np.inf) -> np.ndarray:
    """Those that open from `since` to `until`."""
    part = slice(np.searchsorted(minutes.time, since), np.searchsorted(minutes.time, until, side="right"))
    rates = np.zeros(len(minutes.time[part]), RATES)
    for name in RATES.names or ():
        if name != "real_volume":  # FX brokers send none
            rates[name] = getattr(minutes, name)[part]
    return rates


def _until(minutes: np.ndarray, now: float) -> np.ndarray:
    """Minutes up to `now`; of the running one only the ticks already made."""
    known = minutes[minutes["time"] <= now].copy()
    if len(known) and known["time"][-1] + 60 > now:
        seen = [quote.bid for quote in _ticks_of(known[-1:], 60, -np.inf, now, np.inf)]
        last = known[-1:]
        last["high"], last["low"], last["close"] = max(seen), min(seen), seen[-1]
        last["tick_volume"] = np.maximum(last["tick_volume"] * len(seen) // PER_BAR, 1)
    return known


class RecordedFeed:
    """Recorded bars as a feed. The bar that is forming shows its open, no more: its other prices are the future."""

    def __init__(self, recorded: Sequence[RecordedBars], clock: BrokerClock) -> None:
        self._clock = clock
        self._rates = {(one.symbol, one.timeframe): _recorded_rates(one.bars) for one in recorded}
        self.codes = tuple(sorted({code for code, _ in self._rates}))

    def rates(self, code: str, timeframe: Timeframe, since: int, until: int, now: float) -> np.ndarray | None:
        source = self._source(code, timeframe)
        if source is None:
            return None
        shown = self._shown(code, source, since - timeframe.seconds, until + timeframe.seconds, now)
        merged = shown if source is timeframe else aggregate(shown, timeframe, self._clock)
        return merged[(merged["time"] >= since) & (merged["time"] <= until)]

    def quotes(self, code: str, since: float, until: float, now: float) -> list[Quote]:
        source = self._shortest(code)
        rates = self._shown(code, source, int(since) - source.seconds, int(until), now)
        return _ticks_of(rates, source.seconds, since, min(until, now), now)

    def last_quote(self, code: str, now: float) -> Quote | None:
        source = self._newest_source(code, now)
        rates = self._rates[code, source]
        at = int(np.searchsorted(rates["time"], int(now), side="right")) - 1
        if at < 0:
            return None
        rate = rates[at]
        if rate["time"] + source.seconds > now:
            return Quote(float(rate["time"]), float(rate["open"]), int(rate["spread"]))
        return Quote(float(rate["time"] + source.seconds), float(rate["close"]), int(rate["spread"]))

    def _shown(self, code: str, source: Timeframe, since: int, until: int, now: float) -> np.ndarray:
        rates = self._rates[code, source]
        first, last = (
            np.searchsorted(rates["time"], since),
            np.searchsorted(rates["time"], min(until, int(now)), "right"),
        )
        shown = rates[first:last].copy()
        if len(shown) and shown["time"][-1] + source.seconds > now:
            for name in ("high", "low", "close"):
                shown[name][-1] = shown["open"][-1]
            shown["tick_volume"][-1] = 1
        return shown

    def _sources(self, code: str) -> list[Timeframe]:
        return sorted((frame for known, frame in self._rates if known == code), key=lambda frame: frame.seconds)

    def _source(self, code: str, timeframe: Timeframe) -> Timeframe | None:
        """The recording that a timeframe is read from: itself, else the longest shorter one."""
        shorter = [frame for frame in self._sources(code) if frame.seconds <= timeframe.seconds]
        return shorter[-1] if shorter else None

    def _shortest(self, code: str) -> Timeframe:
        return self._sources(code)[0]

    def _newest_source(self, code: str, now: float) -> Timeframe:
        """The recording that knows most at `now`: files of one symbol may cover different years."""

        def newest(frame: Timeframe) -> tuple[float, int]:
            times = self._rates[code, frame]["time"]
            at = int(np.searchsorted(times, int(now), side="right")) - 1
            return (min(float(times[at]) + frame.seconds, now) if at >= 0 else -np.inf, -frame.seconds)

        return max(self._sources(code), key=newest)


def _recorded_rates(bars: pa.Table) -> np.ndarray:
    rates = np.zeros(bars.num_rows, RATES)
    rates["time"] = bars["open_time"].cast(pa.int64()).to_numpy() // 1_000_000
    for name in ("open", "high", "low", "close"):
        rates[name] = bars[name].to_numpy()
    rates["tick_volume"] = pc.fill_null(bars["tick_volume"], 0).to_numpy()
    rates["spread"] = pc.fill_null(bars["spread_points"], 0).to_numpy()
    return rates
