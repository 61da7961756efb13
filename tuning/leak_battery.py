"""The leak tests applied to the features, labels, splits and models that are really used. Decides nothing: the gate does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa

from market.errors import NotEnoughBars
from market.forecasts import HorizonForecast
from market.timeframes import Timeframe
from tuning.cross_validate import cross_validate
from tuning.ensemble import Ensemble
from tuning.features import lookback, make_features
from tuning.leak_tests import (
    LeakResult,
    permuted_labels,
    perturbed_future,
    same_forecasts,
    tail_equals_full,
    target_shift,
    truncated_future,
)
from tuning.learners.fitting import TREE_FAMILIES
from tuning.out_of_fold import OutOfFold
from tuning.presets import Preset
from tuning.series import make_series
from tuning.splits import Scheme, purged_walk_forward
from tuning.targets import make_targets

BARS = 3000  # of one symbol: enough to see a leak, little enough to cost about a second


def leak_battery(bars: Mapping[str, pa.Table], timeframe: Timeframe, preset: Preset, seed: int = 0) -> list[LeakResult]:
    """All tests on the newest bars of the symbol with the longest history."""
    table = max(bars.values(), key=lambda one: one.num_rows)
    table = table.slice(max(table.num_rows - max(BARS, lookback(timeframe) + 200), 0))
    longest = max(timeframe.horizons)
    n = table.num_rows

    def features(part: pa.Table) -> np.ndarray:
        return make_features(make_series(part, timeframe), timeframe)

    def labels(part: pa.Table) -> np.ndarray:
        return make_targets(make_series(part, timeframe), (longest,)).ret[longest]

    def squares(part: pa.Table) -> np.ndarray:
        return make_targets(make_series(part, timeframe), (longest,)).rv[longest]

    places = [n // 3, n // 2, n - longest - 2]
    returns, variances = (target_shift(f, table, longest, places) for f in (labels, squares))
    return [
        truncated_future(features, table, places),
        tail_equals_full(features, table, lookback(timeframe)),
        returns if not returns.passed else variances,
        _permuted(features(table), labels(table), table, timeframe, longest, np.random.default_rng(seed)),
        perturbed_pipeline(table, timeframe, _small(preset), np.random.default_rng(seed)),
    ]


def _small(preset: Preset) -> Preset:
    """Two folds, the baselines, the stack and one tree family: a cross-validation in a fifth of a second."""
    return replace(
        preset,
        families=tuple(family for family in preset.families if family in TREE_FAMILIES)[:1],
        folds=2,
        test_share=0.3,
        lockbox_days=0.0,
        max_train_bars=None,
        min_train_bars=min(preset.min_train_bars, 300),
        boosting=replace(preset.boosting, trees=min(preset.boosting.trees, 20), min_rows_in_leaf=20),
    )


def perturbed_pipeline(table: pa.Table, timeframe: Timeframe, preset: Preset, rng: np.random.Generator) -> LeakResult:
    """Everything the preset fits, cross-validated on these bars and on bars with another future.

    The future begins after the first test bar of the last fold: whatever that fold was trained on must lie before it.
    """
    symbol = table["symbol"][0].as_py()
    try:
        first = cross_validate({symbol: table}, timeframe, preset)
    except NotEnoughBars as error:
        return LeakResult("perturbed_future", False, float("inf"), 0.0, str(error))
    until = first.time[first.fold == first.fold.max()].min()
    closes = table["close_time"].cast(pa.int64()).to_numpy().astype("datetime64[us]")

    def forecasts(bars: pa.Table) -> dict[str, np.ndarray]:
        return forecasts_until(first if bars is table else cross_validate({symbol: bars}, timeframe, preset), until)

    return perturbed_future(forecasts, table, int(np.searchsorted(closes, until)), rng)


def forecasts_until(oof: OutOfFold, until: np.datetime64) -> dict[str, np.ndarray]:
    """Whatever was said at `until` or before: every family's volatility and odds, all quantiles and base rates."""
    rows = oof.time <= until
    said = {f"{name} rv{h}": values[rows] for name, made in oof.families.items() for h, values in made.log_rv.items()}
    said |= {f"{name} sign{h}": p[rows] for name, made in oof.families.items() for h, p in made.p_up.items()}
    said |= {f"{name} r{h}": q[rows] for name, of in oof.quantiles.items() for h, q in of.items()}
    return said | {f"base rate {h}": p[rows] for h, p in oof.base_rate.items()}


def _permuted(
    x: np.ndarray, y: np.ndarray, table: pa.Table, timeframe: Timeframe, horizon: int, rng: np.random.Generator
) -> LeakResult:
    """Ridge on the real features through the real splitter, scored by out-of-sample correlation."""
    series = make_series(table, timeframe)
    known = np.flatnonzero(np.isfinite(np.delete(x, _empty_columns(x), axis=1)).all(axis=1) & np.isfinite(y))
    x = np.delete(x, _empty_columns(x), axis=1)[known]
    ends = make_targets(series, (horizon,)).label_end[known]
    scheme = Scheme(folds=3, purge=horizon, embargo=horizon, test_share=0.6, lockbox_days=0, min_train_bars=10)
    folds = purged_walk_forward(series.close_time[known], ends, scheme)

    def score(labels: np.ndarray) -> float:
        return float(np.mean([_out_of_sample_correlation(x, labels, f.train, f.test) for f in folds]))

    return permuted_labels(score, y[known], rng, runs=12, block=2 * horizon)


def _empty_columns(x: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.isnan(x).mean(axis=0) > 0.9)  # a source without spread


def _out_of_sample_correlation(x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray) -> float:
    mean, scale = x[train].mean(axis=0), x[train].std(axis=0) + 1e-12
    a, b = (x[train] - mean) / scale, (x[test] - mean) / scale
    centred = y[train] - y[train].mean()
    beta = np.linalg.solve(a.T @ a + len(train) * 0.1 * np.eye(a.shape[1]), a.T @ centred)
    forecast = b @ beta
    if forecast.std() < 1e-15 or y[test].std() < 1e-15:
        return 0.0
    return float(np.corrcoef(forecast, y[test])[0, 1])


def tail_forecast(ensemble: Ensemble, bars: Mapping[str, pa.Table]) -> LeakResult:
    """The finished model forecasts the same from the tail that serving sees as from the whole history."""

    def numbers(given: dict[str, pa.Table]) -> dict[str, np.ndarray]:
        forecasts = ensemble.forecast_from_all(given)  # `forecast` itself would look at the tail only
        return {name: np.concatenate([_numbers(one) for one in made]) for name, made in forecasts.items()}

    return same_forecasts(numbers, bars, ensemble.bars_needed)


def _numbers(made: HorizonForecast) -> np.ndarray:
    values = [made.volatility, made.p_up, *(made.quantiles or {}).values()]
    return np.array([np.nan if value is None else value for value in values])
