"""How often each drift alarm is false, what it finds and how late, against one that always and one that never rings.

    python -m benchmarks.drift [--seeds 40]

Simulated worlds that stay as they were, or change after the training window: more or less volatility, momentum, wider
spreads. A look every other trading day for a quarter. Limits come from 2 x seeds calm worlds; false alarms are counted on as
many others.
Utility = share of changes found - share of calm quarters with an alarm: 0 for always and for never. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from actors.live_judge import LOOK_EVERY
from benchmarks.feature_drift import TrainingFeatures
from benchmarks.live_trust import CLOSES, GOOD_CLOSES, WRONG, first_alarm, simulated_losses
from benchmarks.machine import machine
from market.timeframes import Timeframe
from tuning.drift import RECENT_BARS, volatility_shift
from tuning.features import make_features
from tuning.learners.baseline import fit_baselines
from tuning.series import Series, make_series
from tuning.targets import make_targets
from tuning.worlds import BARS_PER_WEEK, NULL, World, simulate

H = 24
TRAIN_WEEKS, LIVE_WEEKS = 26, 13
TRAINED = TRAIN_WEEKS * BARS_PER_WEEK
LOOKS = range(TRAINED + RECENT_BARS, (TRAIN_WEEKS + LIVE_WEEKS) * BARS_PER_WEEK, 2 * BARS_PER_WEEK // 5)
CALM = replace(NULL, weeks=TRAIN_WEEKS + LIVE_WEEKS, symbols=("EURUSD", "USDJPY"))
MOMENTUM = replace(CALM, accuracy=0.65)
LATEST_FALSE = 0.05


def scaled(by: float) -> Callable[[Series], Series]:
    """Every move after training `by` times as large."""

    def change(series: Series) -> Series:
        def stretch(prices: np.ndarray) -> np.ndarray:
            anchor = series.close[TRAINED - 1]
            return np.concatenate([prices[:TRAINED], anchor * (prices[TRAINED:] / anchor) ** by])

        log_return = np.concatenate([series.log_return[:TRAINED], by * series.log_return[TRAINED:]])
        open_, high, low, close = (stretch(p) for p in (series.open, series.high, series.low, series.close))
        return replace(series, log_return=log_return, open=open_, high=high, low=low, close=close)

    return change


def wider_spread(series: Series) -> Series:
    return replace(series, spread=np.concatenate([series.spread[:TRAINED], 3.0 * series.spread[TRAINED:]]))


def as_it_was(series: Series) -> Series:
    return series


CHANGES: dict[str, tuple[World, Callable[[Series], Series]]] = {
    "volatility x 1.6": (CALM, scaled(1.6)),
    "volatility x 0.6": (CALM, scaled(0.6)),
    "momentum 0.65": (MOMENTUM, as_it_was),
    "spread x 3": (CALM, wider_spread),
}


def statistics(world: World, change: Callable[[Series], Series], seed: int) -> dict[str, np.ndarray]:
    """Each alarm's statistic at every look. The training part is always the calm world's."""
    features, realised, forecast = [], [], []
    calm, moved = simulate(CALM, seed), simulate(world, seed)
    for symbol in CALM.symbols:
        before, series = (make_series(tables[symbol], Timeframe.H1) for tables in (calm, moved))
        series = change(series)
        made = make_features(series, Timeframe.H1)
        made[:TRAINED] = make_features(before, Timeframe.H1)[:TRAINED]
        features.append(made)
        rv = make_targets(before, (H,)).rv
        model = fit_baselines(before, rv, np.arange(600, TRAINED - H), Timeframe.H1, ("har_how",))["har_how"]
        forecast.append(np.exp(model.log_rv(series)[H]))
        realised.append(make_targets(series, (H,)).rv[H])
    starts = range(TRAINED % RECENT_BARS + 3 * RECENT_BARS, TRAINED, RECENT_BARS)  # behind the longest look-back
    windows = [np.concatenate([made[k : k + RECENT_BARS] for made in features]) for k in starts]
    reference = TrainingFeatures.of(np.stack(windows))
    found: dict[str, list[float]] = {"features": [], "volatility": []}
    for now in LOOKS:
        window, known = slice(now - RECENT_BARS, now), slice(now - H - RECENT_BARS, now - H)
        found["features"].append(reference.drift(np.concatenate([made[window] for made in features])))
        found["volatility"].append(
            volatility_shift(*(np.concatenate([x[known] for x in side]) for side in (realised, forecast)))
        )
    return {name: np.array(values) for name, values in found.items()}


def score(seeds: int) -> dict[str, Any]:
    calm = [statistics(CALM, as_it_was, seed) for seed in range(4 * seeds)]
    found: dict[str, Any] = {}
    for name in ("features", "volatility"):
        highest = np.array([look[name].max() for look in calm])
        limit = float(np.quantile(highest[: 2 * seeds], 1.0 - LATEST_FALSE))
        found[name] = {"limit": round(limit, 3), "false": float(np.mean(highest[2 * seeds :] > limit)), "changes": {}}
    for change, (world, make) in CHANGES.items():
        lives = [statistics(world, make, 10_000 + seed) for seed in range(seeds)]
        for name, said in found.items():
            said["changes"][change] = _found([life[name] > said["limit"] for life in lives], said["false"])
    return found


def _found(alarms: list[np.ndarray], false: float) -> dict[str, Any]:
    """`days`: median of trading days to the first alarm, counted from the change."""
    late = [int(np.argmax(life)) + RECENT_BARS * 5 // BARS_PER_WEEK for life in alarms if life.any()]
    share = len(late) / len(alarms)
    return {"found": share, "utility": round(share - false, 3), "days": float(np.median(late)) if late else None}


def score_live_loss(seeds: int) -> dict[str, Any]:
    """The live judge on what benchmarks.live_trust simulates: half a year of closes."""
    false = float(np.mean([first_alarm(*simulated_losses(seed, CLOSES)) is not None for seed in range(2 * seeds)]))
    said: dict[str, Any] = {"looks_every_closes": LOOK_EVERY, "false": false, "changes": {}}
    for name, bias in WRONG.items():
        lives = [simulated_losses(seed, 2 * CLOSES, bad_from=GOOD_CLOSES, bias=bias) for seed in range(seeds)]
        late = [a - GOOD_CLOSES for life in lives if (a := first_alarm(*life)) is not None and a > GOOD_CLOSES]
        days = float(np.median(late)) / 24 if late else None
        share = len(late) / seeds
        said["changes"][f"variance forecast {name}"] = {
            "found": share,
            "utility": round(share - false, 3),
            "days": days,
        }
    return said


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift", description=__doc__)
    parser.add_argument("--seeds", type=int, default=40)
    given = parser.parse_args(argv)
    said = score(given.seeds) | {"live_loss": score_live_loss(given.seeds), "always": 0.0, "never": 0.0}
    command = f"python -m benchmarks.drift --seeds {given.seeds}"
    print(json.dumps(said | {"command": command, "machine": machine()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
