"""Bars to learn from: a seeded market with hour-of-week seasons and clustered volatility, and recorded ones if here."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from market.bars import bars_from_columns
from market.market_clock import add_open_time
from market.timeframes import Timeframe

MakeBars = Callable[..., dict[str, pa.Table]]


def open_times(n: int, timeframe: Timeframe) -> np.ndarray:
    """n bar opens in open market time, from Monday 2023-01-02 00:00 UTC."""
    moments, moment = [], datetime(2023, 1, 2, tzinfo=UTC)
    for _ in range(n):
        moments.append(moment.replace(tzinfo=None))
        moment = add_open_time(moment, timeframe.delta)
    return np.array(moments, dtype="datetime64[us]")


def market(rng: np.random.Generator, opened: np.ndarray, edge: float) -> tuple[np.ndarray, ...]:
    """Open, high, low, close. `edge`: probability above one half that a bar continues the last one's direction."""
    n = len(opened)
    hour = opened.astype("datetime64[h]").astype(int) % 24
    season = 0.6 + 0.8 * np.exp(-((hour - 14) ** 2) / 18)
    shocks, log_variance = rng.normal(size=n), np.zeros(n)
    for t in range(1, n):
        log_variance[t] = 0.98 * log_variance[t - 1] + 0.15 * shocks[t]
    size = np.abs(rng.normal(size=n)) * 0.0008 * season * np.exp(0.5 * log_variance)
    sign = np.where(rng.random(n) < 0.5, 1.0, -1.0)
    for t in range(1, n):
        if edge:
            sign[t] = sign[t - 1] if rng.random() < 0.5 + edge else -sign[t - 1]
    close = 1.2 * np.exp(np.cumsum(sign * size))
    start = np.concatenate([[1.2], close[:-1]])
    wick = 0.4 * size * close
    high = np.maximum(start, close) + wick * rng.random(n)
    low = np.minimum(start, close) - wick * rng.random(n)
    return start, high, low, close


@pytest.fixture(scope="session")
def make_bars() -> MakeBars:
    """make_bars(symbols, n, timeframe=H1, seed=0, edge=0.0) -> symbol -> table in BAR_SCHEMA."""

    def make(
        symbols: tuple[str, ...], n: int, timeframe: Timeframe = Timeframe.H1, seed: int = 0, edge: float = 0.0
    ) -> dict[str, pa.Table]:
        opened = open_times(n, timeframe)
        tables = {}
        for k, symbol in enumerate(symbols):
            prices = market(np.random.default_rng((seed, k)), opened, edge)
            spread = np.full(n, 12)
            tables[symbol] = bars_from_columns(
                symbol, timeframe, opened, *prices, None, spread, received_at=datetime(2024, 1, 1, tzinfo=UTC)
            )
        return tables

    return make


@pytest.fixture(scope="session")
def two_symbols(make_bars: MakeBars) -> dict[str, pa.Table]:
    return make_bars(("EURUSD", "GBPUSD"), 3200)
