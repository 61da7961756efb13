"""The simulated market: the same history for everybody, plausible volatility, no direction to find."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from market.market_clock import is_open
from market.symbols import CATALOGUE, symbol
from mt5_actor_windows.simulated_market import EPOCH, SimulatedMarket


def hourly_returns(seed: int, code: str, weeks: int) -> np.ndarray:
    market = SimulatedMarket(seed)
    closes = [market.minutes(code, week).close[59::60] for week in range(weeks)]  # type: ignore[union-attr]
    return np.diff(np.log(np.concatenate(closes)))


def test_history_does_not_depend_on_what_was_asked_before() -> None:
    one, other = SimulatedMarket(3), SimulatedMarket(3)
    late = one.minutes("EURUSD", 40)
    for week in (2, 41, 7):
        for code in ("USDJPY", "EURUSD", "EURJPY"):
            other.minutes(code, week)
    again = other.minutes("EURUSD", 40)
    assert late is not None
    assert again is not None
    for name in ("time", "open", "high", "low", "close", "tick_volume", "spread"):
        assert (getattr(late, name) == getattr(again, name)).all(), name


def test_seeds_and_symbols_differ() -> None:
    first, second = SimulatedMarket(1).minutes("EURUSD", 5), SimulatedMarket(2).minutes("EURUSD", 5)
    assert first is not None
    assert second is not None
    assert (first.close != second.close).mean() > 0.9


def test_a_week_is_the_trading_week() -> None:
    market = SimulatedMarket(1)
    assert market.minutes("EURUSD", -1) is None
    for week in (0, 9, 10, 11, 30, 44):  # with both changes of New York's clock
        minutes = market.minutes("EURUSD", week)
        assert minutes is not None
        first, last = (datetime.fromtimestamp(int(minutes.time[i]), UTC) for i in (0, -1))
        assert len(minutes.time) == 7200
        assert is_open(first)
        assert is_open(last)
        assert not is_open(datetime.fromtimestamp(int(minutes.time[0]) - 1, UTC))
        assert market.week_of(first) == market.week_of(last) == week
    assert market.week_of(EPOCH) == 0


@pytest.mark.parametrize("code", ["EURUSD", "USDJPY", "EURGBP", "XAUUSD"])
def test_bars_are_bars(code: str) -> None:
    minutes = SimulatedMarket(1).minutes(code, 12)
    assert minutes is not None
    assert (minutes.low <= np.minimum(minutes.open, minutes.close)).all()
    assert (minutes.high >= np.maximum(minutes.open, minutes.close)).all()
    assert (minutes.open[1:] == minutes.close[:-1]).all()
    assert minutes.tick_volume.min() >= 1
    assert minutes.spread.min() >= 1
    assert (np.round(minutes.close, symbol(code).digits) == minutes.close).all()


def test_every_symbol_can_be_made() -> None:
    market = SimulatedMarket(1)
    for code in CATALOGUE:
        assert market.minutes(code, 0) is not None, code


def test_crosses_are_the_ratio_of_their_majors() -> None:
    market = SimulatedMarket(1)
    cross, eur, gbp = (market.minutes(code, 3) for code in ("EURGBP", "EURUSD", "GBPUSD"))
    assert cross is not None
    assert eur is not None
    assert gbp is not None
    assert np.abs(cross.close / (eur.close / gbp.close) - 1).max() < 5e-5


def test_volatility_clusters_and_direction_does_not() -> None:
    seed = 7
    returns = hourly_returns(seed, "EURUSD", 150)
    yearly = returns.std() * np.sqrt(52 * 120)
    kurtosis = np.mean(returns**4) / np.mean(returns**2) ** 2
    sizes = np.log(returns**2 + 1e-12)
    sizes -= np.tile([sizes[hour::24].mean() for hour in range(24)], len(sizes) // 24 + 1)[
        : len(sizes)
    ]  # not the session
    clustering = np.corrcoef(sizes[1:], sizes[:-1])[0, 1]
    direction = [np.corrcoef(returns[lag:], returns[:-lag])[0, 1] for lag in (1, 2, 24)]
    assert 0.05 < yearly < 0.13, f"seed {seed}"
    assert kurtosis > 4, f"seed {seed}"
    assert clustering > 0.02, f"seed {seed}"
    assert np.abs(direction).max() < 4 / np.sqrt(len(returns)), f"seed {seed}"


def test_minutes_inside_an_hour_say_nothing_of_the_next() -> None:
    seed = 7
    market = SimulatedMarket(seed)
    closes = np.concatenate([market.minutes("GBPUSD", week).close for week in range(8)])  # type: ignore[union-attr]
    returns = np.diff(np.log(closes))
    assert abs(np.corrcoef(returns[1:], returns[:-1])[0, 1]) < 0.02, f"seed {seed}"


def test_spread_is_widest_at_rollover() -> None:
    minutes = SimulatedMarket(1).minutes("EURUSD", 20)
    assert minutes is not None
    by_hour = minutes.spread.reshape(-1, 24, 60).mean(axis=(0, 2))
    assert by_hour[0] > 3 * by_hour[15]
