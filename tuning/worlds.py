"""Simulated panels whose truth is known by construction: noise, and noise with a direction planted in it.

    python -m tuning.worlds null --seed 1 --out DIR     # SYMBOL_H1.parquet, as `evaluate --bars` reads them

Knows bars and nothing of what is learned from them.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from market.bars import bars_from_columns
from market.market_clock import NEW_YORK
from market.symbols import CATALOGUE, MAJORS
from market.timeframes import Timeframe

BARS_PER_WEEK = 120
STEPS = 12  # price moves inside a bar, of which high and low are made
HOURLY_VOLATILITY = 1e-3
# GARCH(1,1) on hourly shocks: news, persistence (Bollerslev 1986); half-life about 35 bars
GARCH = (0.06, 0.92)
START = datetime(2018, 1, 7, 17, tzinfo=NEW_YORK)


@dataclass(frozen=True)
class World:
    """How a simulated panel behaves. accuracy: P(next bar goes the way of this one); 0.5 is no direction at all."""

    garch: bool = True
    seasonal: bool = True
    accuracy: float = 0.5
    weeks: int = 78
    symbols: tuple[str, ...] = MAJORS


IID_NOISE = World(garch=False, seasonal=False)
NULL = World()
PLANTED = World(accuracy=0.55)
WORLDS = {"null": NULL, "iid": IID_NOISE, "planted": PLANTED}


def simulate(world: World, seed: int) -> dict[str, pa.Table]:
    """H1 bars of every symbol in BAR_SCHEMA, `weeks` FX weeks from 2018-01. Same seed, same bars."""
    rng = np.random.default_rng(seed)
    opens = _week_grid(world.weeks)
    n, s = len(opens), len(world.symbols)
    sigma = HOURLY_VOLATILITY * np.ones((n, s))
    steps = rng.standard_normal((n, s, STEPS)) / np.sqrt(STEPS)  # a bar's path at unit variance
    if world.garch:
        sigma *= _garch(steps.sum(axis=2))
    if world.seasonal:
        sigma *= _hour_of_week()[np.arange(n) % BARS_PER_WEEK][:, None]
    if world.accuracy != 0.5:
        steps = _with_momentum(steps, world.accuracy, rng)
    tables = {}
    for k, code in enumerate(world.symbols):
        path = np.cumsum((steps[:, k] * sigma[:, k, None]).ravel()).reshape(n, STEPS)
        tables[code] = _bars(code, opens, path, _start_price(code))
    return tables


def _week_grid(weeks: int) -> np.ndarray:
    """Opens of all hours of the trading weeks, datetime64[s] UTC. [weeks * 120]"""
    sundays = [START + timedelta(days=7 * k) for k in range(weeks)]  # stays at 17:00 New York
    first = np.array([int(sunday.timestamp()) for sunday in sundays])
    return (first[:, None] + 3600 * np.arange(BARS_PER_WEEK)).ravel().astype("datetime64[s]")


def _garch(shocks: np.ndarray) -> np.ndarray:
    """Standard deviations of unit unconditional variance driven by shocks [n, s]. [n, s]"""
    news, memory = GARCH
    variance = np.ones_like(shocks)
    for t in range(1, len(shocks)):
        variance[t] = 1.0 - news - memory + variance[t - 1] * (memory + news * shocks[t - 1] ** 2)
    return np.sqrt(variance)


def _hour_of_week() -> np.ndarray:
    """Relative volatility by hour of the trading week: quiet after the New York close, busy when London overlaps. [120]"""
    hour = (17 + np.arange(BARS_PER_WEEK)) % 24  # New York
    day = 0.55 + 0.35 * np.exp(-(((hour - 3.5) % 24 - 0) ** 2) / 8) + 1.05 * np.exp(-((hour - 9.5) ** 2) / 9)
    return day / np.sqrt(np.mean(day**2))


def _with_momentum(steps: np.ndarray, accuracy: float, rng: np.random.Generator) -> np.ndarray:
    """Flip whole paths so that a bar goes the way of the bar before it with probability `accuracy`."""
    natural = np.sign(steps.sum(axis=2))
    same = np.where(rng.random(natural.shape) < accuracy, 1.0, -1.0)
    wanted = np.sign(rng.standard_normal(natural.shape[1])) * np.cumprod(same, axis=0)
    return steps * (natural * wanted)[:, :, None]


def _bars(code: str, opens: np.ndarray, path: np.ndarray, start: float) -> pa.Table:
    digits = CATALOGUE[code].digits
    log_open = np.concatenate([[0.0], path[:-1, -1]])
    high = np.maximum(path.max(axis=1), log_open)
    low = np.minimum(path.min(axis=1), log_open)
    prices = [np.round(start * np.exp(x), digits) for x in (log_open, high, low, path[:, -1])]
    received = datetime.fromtimestamp(int(opens[-1].astype(np.int64)) + 3600, UTC)
    spread = np.full(len(opens), 15, dtype=np.int32)
    o, h, low, c = prices
    return bars_from_columns(code, Timeframe.H1, opens, o, h, low, c, None, spread, received_at=received)


def _start_price(code: str) -> float:
    digits = CATALOGUE[code].digits
    return 110.0 if digits == 3 else 1500.0 if digits == 2 else 1.2


def write_bars(tables: dict[str, pa.Table], folder: Path) -> None:
    """SYMBOL_H1.parquet with `time` in UTC, as a broker's export would be."""
    folder.mkdir(parents=True, exist_ok=True)
    for symbol, table in tables.items():
        columns = {name: table[name] for name in ("open", "high", "low", "close", "tick_volume")}
        columns["time"] = table["open_time"].cast(pa.timestamp("us"))
        columns["spread"] = table["spread_points"]
        pq.write_table(pa.table(columns), folder / f"{symbol}_H1.parquet")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tuning.worlds", description="Write a simulated panel's bars.")
    parser.add_argument("world", choices=sorted(WORLDS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(argv)
    write_bars(simulate(WORLDS[given.world], given.seed), given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
