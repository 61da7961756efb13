"""Features: what the trees' engineered features cost on 57,600 bars, against the same ones written with pandas' rolling windows.

CPU-milliseconds of one thread, in turns, in one run; both have to give the same numbers.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import pandas as pd  # type: ignore[import-untyped]

from benchmarks.machine import machine
from market.timeframes import Timeframe
from tuning.experiments import World, simulate
from tuning.features import _windows, clock, feature_names, make_features
from tuning.learners.baseline import TINY, parkinson
from tuning.series import Series, make_series

BARS = 57_600


def with_pandas(series: Series, timeframe: Timeframe) -> np.ndarray:
    """As make_features, the way it is usually written."""
    short, day, week, month = _windows(timeframe)
    frame = pd.DataFrame({name: getattr(series, name) for name in ("open", "high", "low", "close", "spread")})
    r = pd.Series(series.log_return)
    squared, ranges = r**2, pd.Series(parkinson(series))
    windows = (short, 2 * short, day, week, month)
    variance = {k: squared.rolling(k).mean().clip(lower=TINY) for k in windows}
    spans = {k: ranges.rolling(k).mean().clip(lower=TINY) for k in (1, *windows)}
    sigma = np.sqrt(variance[week])
    columns = [r.rolling(k).sum() / (sigma * np.sqrt(k)) for k in (1, *windows)]
    columns += [r.shift(1) / sigma, r.shift(2) / sigma]
    height = (frame["high"] - frame["low"]).clip(lower=frame["close"] * 1e-9)
    columns += [(frame["close"] - frame["open"]) / height, np.log(spans[1] / spans[week])]
    columns += [np.log(variance[k] / variance[week]) for k in (short, 2 * short, day, month)]
    columns += [np.log(spans[k] / spans[week]) for k in (short, 2 * short, day, month)]
    columns += [(squared * (r < 0)).rolling(k).mean() / variance[k] for k in (day, week)]
    columns += [(r * r.shift(1)).rolling(k).mean() / variance[k] for k in (day, week)]
    for k in (day, week):
        low, high = frame["low"].rolling(k).min(), frame["high"].rolling(k).max()
        columns.append((frame["close"] - low) / (high - low).clip(lower=frame["close"] * 1e-9))
    columns += [*map(pd.Series, clock(series.position, timeframe)), frame["spread"] / sigma]
    return pd.concat(columns, axis=1).to_numpy()


def cpu_ms(action: Callable[[], np.ndarray]) -> float:
    began = time.process_time()
    action()
    return (time.process_time() - began) * 1000


def measure(rounds: int, seed: int) -> dict[str, float]:
    bars = simulate(World(weeks=BARS // 120, symbols=("EURUSD",)), seed)["EURUSD"]
    series = make_series(bars, Timeframe.H1)
    ours, theirs = make_features(series, Timeframe.H1), with_pandas(series, Timeframe.H1)
    settled = np.isfinite(ours).all(axis=1)
    np.testing.assert_allclose(ours[settled], theirs[settled], rtol=1e-6, atol=1e-6)
    times = np.array(
        [
            [cpu_ms(lambda: make_features(series, Timeframe.H1)), cpu_ms(lambda: with_pandas(series, Timeframe.H1))]
            for _ in range(rounds)
        ]
    )
    mine, pandas_ms = np.median(times, axis=0)
    return {
        "bars": len(series),
        "features": len(feature_names(Timeframe.H1)),
        "cpu_ms": round(float(mine), 1),
        "pandas_ms": round(float(pandas_ms), 1),
        "pandas_ratio": round(float(pandas_ms / mine), 2),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lstmc bench features", description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    figures = measure(options.rounds, options.seed)
    print(json.dumps(figures | {"command": "lstmc bench features --json", "machine": machine()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
