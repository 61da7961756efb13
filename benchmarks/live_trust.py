"""How often the live judge errs and how late it is, and what adaptive widths do to coverage; prints one JSON object.

    python -m benchmarks.live_trust --bars ../shared/data [--seeds 400]

Simulated markets for the judge, whose truth is known; out-of-fold forecasts of the econometric stack for the widths.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from actors.live_judge import LOOK_EVERY, look_at
from benchmarks.machine import machine
from market.bar_files import read_bar_folder
from market.timeframes import Timeframe
from tuning.adaptive_calibration import adaptive_quantiles
from tuning.cross_validate import cross_validate
from tuning.metrics import pinball, qlike
from tuning.presets import load_preset

H = 24
SYMBOLS = 4
CLOSES = 3000  # half a year of H1
GOOD_CLOSES = 1500  # before a champion goes bad
WRONG = {"2.7 times": 1.0, "1.6 times": 0.5}  # the variance forecast, and its log


def simulated_losses(seed: int, n: int, *, bad_from: int = 0, bias: float = 0.0) -> tuple[np.ndarray, ...]:
    """As-of closes, QLIKE of the champion and of its baseline on one made-up market, each [n].

    Both forecasts of the log variance of 24 bars err alike: AR(1) with 0.95, standard deviation 0.25. From `bad_from` on
    the champion's is `bias` too high. Volatility is clustered, symbols share shocks, labels overlap.
    """
    rng = np.random.default_rng(seed)
    log_variance, shocks = np.zeros(n + H), rng.normal(size=n + H)
    for t in range(1, n + H):
        log_variance[t] = 0.97 * log_variance[t - 1] + 0.15 * shocks[t]
    common, alone = rng.normal(size=(n + H, 1)), rng.standard_t(5, size=(n + H, SYMBOLS))
    returns = np.exp(0.5 * log_variance)[:, None] * (0.6 * common + 0.6 * alone)
    squares, expected = np.cumsum(returns**2, axis=0), np.cumsum(np.exp(log_variance))
    realised, mean = squares[H:] - squares[:-H], np.log(expected[H:] - expected[:-H])
    errors = np.zeros((n, 2))
    for t in range(1, n):
        errors[t] = 0.95 * errors[t - 1] + np.sqrt(1 - 0.95**2) * rng.normal(size=2)
    own, baseline = (mean + 0.25 * errors[:, k] for k in (0, 1))
    own[bad_from:] += bias
    time = np.datetime64("2024-01-01", "us") + np.arange(n) * np.timedelta64(1, "h")
    return time, *(qlike(realised, np.exp(f)[:, None]).mean(axis=1) for f in (own, baseline))


def first_alarm(time: np.ndarray, own: np.ndarray, baseline: np.ndarray) -> int | None:
    """How many closes were known when the judge, asked after each look's last close, first called the champion worse."""
    for n in range(LOOK_EVERY, len(time) + 1, LOOK_EVERY):
        if look_at(f"rv{H}", H, "har_how", time[:n], own[:n], baseline[:n]).worse:
            return n
    return None


def judge(seeds: int) -> dict[str, Any]:
    alarms = [first_alarm(*simulated_losses(seed, CLOSES)) for seed in range(seeds)]
    found: dict[str, Any] = {"seeds": seeds, "closes": CLOSES, "false_alarms": sum(a is not None for a in alarms)}
    for name, bias in WRONG.items():
        lives = [simulated_losses(seed, 2 * CLOSES, bad_from=GOOD_CLOSES, bias=bias) for seed in range(seeds // 10)]
        late = [a - GOOD_CLOSES for life in lives if (a := first_alarm(*life)) is not None and a > GOOD_CLOSES]
        found[name] = {"seeds": len(lives), "found": len(late), "median_closes": float(np.median(late))}
    return found


def widths(folder: Path) -> dict[str, Any]:
    recorded = read_bar_folder(folder, timeframe="H1", received_at=datetime.now(UTC))
    bars = {one.symbol: one.bars for one in recorded if one.bars.num_rows}
    out = cross_validate(bars, Timeframe.H1, load_preset("econometric"))
    found: dict[str, Any] = {"symbols": list(out.symbols), "rows": len(out)}
    for h in out.horizons:
        ends = np.empty(len(out), "datetime64[us]")
        for k, name in enumerate(out.symbols):
            closes = bars[name]["close_time"].to_numpy().astype("datetime64[us]")
            at = np.searchsorted(closes, out.time[out.symbol == k].astype("datetime64[us]"))
            ends[out.symbol == k] = closes[np.minimum(at + h, len(closes) - 1)]
        fixed, ret = out.quantiles["stack"][h], out.ret[h]
        middle = np.sort(out.time)[len(out) // 2]
        broken = np.where(out.time >= middle, 1.5 * ret, ret)
        for case, actual in (("recorded", ret), ("break", broken)):
            made = adaptive_quantiles(fixed, actual, out.symbol, out.time, ends, h)
            late = np.ones(len(out), bool)
            if case == "break":  # the second half is 1.5 times as wide; judged 60 days later
                late = out.time >= np.median(out.time.astype(np.int64)).astype("datetime64[us]") + np.timedelta64(
                    60, "D"
                )
            for name, quantiles in (("fixed", fixed), ("adaptive", made)):
                found[f"r{h} {case} {name}"] = _measured(
                    quantiles[late], actual[late], out.time[late], out.symbol[late]
                )
    return found


def _measured(q: np.ndarray, actual: np.ndarray, time: np.ndarray, symbol: np.ndarray) -> dict[str, Any]:
    known = np.isfinite(actual) & np.isfinite(q).all(axis=1)
    q, actual, month, symbol = q[known], actual[known], time[known].astype("datetime64[M]"), symbol[known]
    inside80 = (q[:, 1] <= actual) & (actual <= q[:, 5])
    inside90 = (q[:, 0] <= actual) & (actual <= q[:, 6])
    by_symbol = [inside80[symbol == s].mean() for s in np.unique(symbol)]
    by_month = [inside80[month == m].mean() for m in np.unique(month)]
    return {
        "cov80": round(float(inside80.mean()), 4),
        "cov90": round(float(inside90.mean()), 4),
        "cov80_symbols": [round(float(value), 3) for value in (min(by_symbol), max(by_symbol))],
        "cov80_monthly_miss": round(float(np.mean(np.abs(np.array(by_month) - 0.8))), 4),
        "pinball_1e4": round(float(pinball(actual, q).mean()) * 1e4, 3),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live_trust", description=__doc__)
    parser.add_argument("--bars", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=400)
    given = parser.parse_args(argv)
    command = f"python -m benchmarks.live_trust --bars {given.bars} --seeds {given.seeds}"
    said = {"judge": judge(given.seeds), "widths": widths(given.bars), "command": command, "machine": machine()}
    print(json.dumps(said))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
