"""A seeded FX market that never was: one-minute bars from currency paths with GARCH volatility, fat tails and sessions.

Directions are unpredictable by construction. A bar depends on (seed, symbol, time) only, never on when it is asked for.
Knows UTC and the trading week; does not know terminals, brokers or their clocks.
"""

from __future__ import annotations

import math
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import numpy as np

from market.market_clock import WEEK, week_open
from market.symbols import Symbol, symbol

EPOCH = week_open(datetime(2022, 1, 3, 12, tzinfo=UTC))  # the first week; earlier there is no history
HOURS, MINUTES = 120, 60
# What one unit was worth in USD at EPOCH, and its own yearly volatility; a pair's is the root of the sum of squares.
CURRENCIES: dict[str, tuple[float, float]] = {
    "USD": (1.0, 0.045),
    "EUR": (1.10, 0.055),
    "GBP": (1.27, 0.065),
    "JPY": (1 / 140.0, 0.075),
    "CHF": (1.10, 0.060),
    "CAD": (0.74, 0.050),
    "AUD": (0.67, 0.080),
    "NZD": (0.62, 0.082),
    "XAU": (1950.0, 0.13),
    "XAG": (23.5, 0.25),
}
ALPHA, BETA, DEGREES = 0.05, 0.93, 5.0  # GARCH(1,1) on hourly returns with Student-t shocks
# Relative volatility of the 24 hours after 17:00 New York: rollover, Tokyo, London, the overlap, New York's afternoon.
SESSION = np.array(
    [
        0.45,
        0.5,
        0.6,
        0.85,
        0.8,
        0.7,
        0.65,
        0.65,
        0.7,
        0.9,
        1.25,
        1.3,
        1.15,
        1.05,
        1.0,
        1.35,
        1.75,
        1.65,
        1.5,
        1.15,
        0.9,
        0.8,
        0.7,
        0.55,
    ]
)
SPREAD = np.array([4.0, 2.2, 1.5, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 1.1] + [1.0] * 11 + [1.1, 1.2, 1.6])
TICKS_PER_MINUTE = 45.0
SPREAD_BP = {"EURUSD": 0.7, "USDJPY": 0.8, "GBPUSD": 0.9, "XAUUSD": 1.2, "XAGUSD": 6.0}  # quiet hours; others 1.4

T = TypeVar("T")


@dataclass(frozen=True)
class MinuteBars:
    """One week of one symbol: `time` UTC seconds [7200], prices [7200], volume and spread whole numbers [7200]."""

    time: np.ndarray
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    tick_volume: np.ndarray
    spread: np.ndarray


@dataclass(frozen=True)
class _Hourly:
    """A currency's hours of one week: log value before the open (after the weekend gap), returns and sigmas [120]."""

    start: float
    returns: np.ndarray
    sigma: np.ndarray


class SimulatedMarket:
    """`minutes(symbol, week)` gives week number `week` since EPOCH. Weeks are generated in order and kept (hours only);
    minutes are filled in by a Brownian bridge from a stream of their own, so asking for less changes nothing."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._hours: dict[str, list[_Hourly]] = {}
        self._variance: dict[str, float] = {}  # GARCH state after the last generated week
        self._paths: OrderedDict[Any, Any] = OrderedDict()
        self._minutes: OrderedDict[Any, Any] = OrderedDict()

    def week_of(self, moment: datetime) -> int:
        """Number of the trading week that `moment` is in or, at a weekend, follows. Negative before EPOCH."""
        return round((week_open(moment) - EPOCH) / WEEK)

    def minutes(self, code: str, week: int) -> MinuteBars | None:
        """The week's minute bars, all of it; None before EPOCH. Cutting off the future is the caller's duty."""
        if week < 0:
            return None
        return _kept(self._minutes, (code, week), 64, lambda: self._make_minutes(symbol(code), week))

    def _make_minutes(self, pair: Symbol, week: int) -> MinuteBars:
        base_start, base, base_sigma = self._path(pair.base, week)
        quote_start, quote, quote_sigma = self._path(pair.quote, week)
        close = base - quote  # log price at each minute's end
        sigma = np.sqrt(base_sigma**2 + quote_sigma**2)
        rng = self._stream(pair.code, week, 2)
        opened = np.concatenate([[base_start - quote_start], close[:-1]])
        reach = np.abs(rng.standard_normal((2, len(close)))) * sigma * 0.45
        prices = np.stack([opened, np.maximum(opened, close) + reach[0], np.minimum(opened, close) - reach[1], close])
        rounded = np.round(np.exp(prices), pair.digits)
        hour = np.repeat(np.arange(HOURS) % 24, MINUTES)
        activity = SESSION[hour] * (0.5 + 0.5 * np.abs(close - opened) / sigma)
        volume = 1 + rng.poisson(TICKS_PER_MINUTE * activity)
        usual = SPREAD_BP.get(pair.code, 1.4) * 1e-4 * rounded[3] / pair.point
        noise = np.exp(0.15 * rng.standard_normal(len(close)))
        spread = np.maximum(1, np.round(usual * SPREAD[hour] * noise)).astype(np.int64)
        start = int(self._start(week).timestamp())
        time = start + 60 * np.arange(len(close))
        o, h, low, c = rounded
        return MinuteBars(time, o, h, low, c, volume.astype(np.int64), spread)

    def _path(self, currency: str, week: int) -> tuple[float, np.ndarray, np.ndarray]:
        """(log value at the open, log value at each minute's end [7200], one-minute sigma [7200])."""
        return _kept(self._paths, (currency, week), 24, lambda: self._bridge(currency, week))

    def _bridge(self, currency: str, week: int) -> tuple[float, np.ndarray, np.ndarray]:
        """Minutes that sum to each hour's return; their covariances cancel, so a past minute tells nothing of the next."""
        hours = self._hourly(currency, week)
        sigma = hours.sigma / math.sqrt(MINUTES)
        noise = self._stream(currency, week, 1).standard_normal((HOURS, MINUTES)) * sigma[:, None]
        steps = noise - noise.mean(axis=1, keepdims=True) + hours.returns[:, None] / MINUTES
        return hours.start, hours.start + np.cumsum(steps.ravel()), np.repeat(sigma, MINUTES)

    def _hourly(self, currency: str, week: int) -> _Hourly:
        known = self._hours.setdefault(currency, [])
        while len(known) <= week:
            known.append(self._next_week(currency, len(known)))
        return known[week]

    def _next_week(self, currency: str, week: int) -> _Hourly:
        value, yearly = CURRENCIES[currency]
        usual = yearly / math.sqrt(52 * HOURS)  # one hour's sigma
        rng = self._stream(currency, week, 0)
        shocks = rng.standard_t(DEGREES, HOURS) * math.sqrt((DEGREES - 2) / DEGREES)
        variance = self._variance.get(currency, 1.0)
        scale = np.empty(HOURS)
        for i, shock in enumerate(shocks.tolist()):
            scale[i] = math.sqrt(variance)
            variance = min((1 - ALPHA - BETA) + (ALPHA * shock * shock + BETA) * variance, 25.0)
        self._variance[currency] = variance
        season = np.tile(SESSION / math.sqrt(float(np.mean(SESSION**2))), 5)
        sigma = usual * season * scale
        before = self._hours[currency][-1] if week else None
        end = math.log(value) if before is None else before.start + float(before.returns.sum())
        gap = 0.0 if before is None else 0.7 * usual * float(rng.standard_normal())
        return _Hourly(end + gap, sigma * shocks, sigma)

    def _start(self, week: int) -> datetime:
        return week_open(EPOCH + week * WEEK + timedelta(hours=36))  # Tuesday morning, whatever DST did

    def _stream(self, name: str, week: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(name.encode()), week, purpose])


def _kept(cache: OrderedDict[Any, T], key: Any, most: int, make: Callable[[], T]) -> T:
    """Least recently used out; what is thrown away comes back the same."""
    if key not in cache:
        cache[key] = make()
        if len(cache) > most:
            cache.popitem(last=False)
    cache.move_to_end(key)
    return cache[key]
