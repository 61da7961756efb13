"""The leak battery: does anything a model is fed, or scored with, know the future?

Functions under test are passed in: `make_features(bars) -> [n, k]`, `make_targets(bars) -> [n]`, a fit-and-score. Each
test perturbs what must not matter and looks whether it does. Knows no feature and no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Features = Callable[[pa.Table], np.ndarray]
Targets = Callable[[pa.Table], np.ndarray]
PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True)
class LeakResult:
    """`value` is the worst discrepancy (or a z-score), `limit` what is tolerated."""

    name: str
    passed: bool
    value: float
    limit: float
    detail: str = ""


def truncated_future(
    make_features: Features, bars: pa.Table, cuts: Sequence[int], tolerance: float = 1e-6
) -> LeakResult:
    """Features of the first `cut` bars must be the same whether or not later bars exist."""
    full = _wide(make_features(bars))
    worst, where = 0.0, ""
    for cut in cuts:
        short = _wide(make_features(bars.slice(0, cut)))
        gap = _discrepancy(short, full[:cut])
        if gap > worst:
            worst, where = gap, f"cut after bar {cut} of {len(full)}"
    return LeakResult("truncated_future", bool(worst <= tolerance), worst, tolerance, where)


def tail_equals_full(
    make_features: Features, bars: pa.Table, bars_needed: int, rows: int = 1, tolerance: float = 1e-6
) -> LeakResult:
    """The last `rows` feature rows from the newest `bars_needed` bars must equal those from the full history.

    Otherwise serving, which sees only the tail, feeds the model something it was not trained on.
    """
    full = _wide(make_features(bars))[-rows:]
    tail = _wide(make_features(bars.slice(max(bars.num_rows - bars_needed, 0))))[-rows:]
    gap = _discrepancy(tail, full)
    return LeakResult("tail_equals_full", bool(gap <= tolerance), gap, tolerance, f"{bars_needed} bars needed")


def target_shift(
    make_targets: Targets, bars: pa.Table, horizon: int, at: Iterable[int], tolerance: float = 0.0
) -> LeakResult:
    """Labels at t must depend on the closes t .. t+horizon, all of them ahead, and on nothing else.

    One close is moved by 1 %; every label that answers must span it, and the label that ends there must answer. A label
    shifted by one bar, in either direction, fails.
    """
    original = np.asarray(make_targets(bars), float)
    worst, detail = 0.0, ""
    for k in at:
        moved = _changed(original, np.asarray(make_targets(with_close(bars, k, 1.01)), float), tolerance)
        strangers = [t for t in moved if not k - horizon <= t <= k]
        if strangers or k - horizon not in moved:
            worst = max(worst, 1.0 + max((abs(t - k) for t in strangers), default=0))
            detail = f"close {k} moved the labels {_span(moved)}; allowed are {k - horizon} to {k}, {k - horizon} must"
    return LeakResult("target_shift", worst == 0.0, worst, 0.0, detail)


def perturbed_future(
    forecasts: Callable[[pa.Table], Mapping[str, np.ndarray]],
    bars: pa.Table,
    row: int,
    rng: np.random.Generator,
    tolerance: float = 1e-9,
) -> LeakResult:
    """Forecasts dated at bar `row` or earlier must be the same whatever the bars after it are.

    forecasts: bars -> name -> the values dated until bar `row`, from a fit of their own. The test of a whole pipeline: it
    sees a label that reaches into the test part, a scaler or season fitted on it and a feature that looks ahead alike.
    """
    before, after = forecasts(bars), forecasts(with_other_future(bars, row, rng))
    known = {name: bool(np.isfinite(values).any()) for name, values in before.items()}
    gaps = {name: _discrepancy(_wide(after[name]), _wide(before[name])) for name, finite in known.items() if finite}
    if not gaps:
        return LeakResult("perturbed_future", False, float("inf"), tolerance, "nothing was forecast: too few bars")
    worst = max(gaps, key=lambda name: gaps[name])
    detail = f"{len(gaps)} forecasts until bar {row}" if gaps[worst] <= tolerance else f"{worst} knows bars after {row}"
    return LeakResult("perturbed_future", bool(gaps[worst] <= tolerance), gaps[worst], tolerance, detail)


def permuted_labels(
    score: Callable[[np.ndarray], float],
    labels: np.ndarray,
    rng: np.random.Generator,
    *,
    runs: int = 10,
    block: int = 1,
    limit: float = 4.0,
) -> LeakResult:
    """Skill must disappear when labels are permuted in blocks of `block` rows (at least the horizon).

    score: labels -> out-of-sample skill of a fresh fit, 0 for none. The mean score over `runs` permutations, in its own
    standard errors, may not exceed `limit`: what is left then comes from the split or the scaler, not from the market.
    """
    scores = np.array([score(permute_blocks(labels, block, rng)) for _ in range(runs)])
    error = max(float(scores.std(ddof=1)) / np.sqrt(runs), 1e-12)
    z = float(scores.mean()) / error
    passed = bool(z <= limit or scores.mean() <= 1e-9)
    return LeakResult("permuted_labels", passed, z, limit, f"mean skill {scores.mean():.2g} on permuted labels")


def same_forecasts(
    forecast: Callable[[dict[str, pa.Table]], Mapping[str, np.ndarray]],
    bars: Mapping[str, pa.Table],
    bars_needed: int,
    tolerance: float = 1e-5,
) -> LeakResult:
    """The whole model's newest forecast from `bars_needed` bars must equal the one from the full history. [any shape]

    Each number is compared relative to itself: a volatility of 0.002 stands beside probabilities of 0.5.
    """
    full = forecast(dict(bars))
    tail = forecast({name: table.slice(max(table.num_rows - bars_needed, 0)) for name, table in bars.items()})
    gaps = {name: _discrepancy(tail[name].reshape(1, -1), full[name].reshape(1, -1)) for name in full}
    worst = max(gaps, key=lambda name: gaps[name])
    return LeakResult("tail_forecast", bool(gaps[worst] <= tolerance), gaps[worst], tolerance, worst)


def permute_blocks(values: np.ndarray, block: int, rng: np.random.Generator) -> np.ndarray:
    """Rows in random order, blocks of neighbours kept together. [n, ...] -> [n, ...]"""
    starts = rng.permutation(np.arange(0, len(values), block))
    return np.concatenate([values[s : s + block] for s in starts])


def with_close(bars: pa.Table, row: int, factor: float) -> pa.Table:
    """The bars with one row's prices multiplied, times and the rest untouched."""
    for name in PRICES:
        column = bars[name].to_numpy().copy()
        column[row] *= factor
        bars = _with_column(bars, name, column)
    return bars


def with_other_future(bars: pa.Table, row: int, rng: np.random.Generator) -> pa.Table:
    """The bars with every price and spread after `row` replaced by another path, wilder than the one that came."""
    later = bars.num_rows - row - 1
    factor = np.concatenate([np.ones(row + 1), np.exp(np.cumsum(rng.normal(0.0, 0.01, later)))])
    for name in PRICES:
        bars = _with_column(bars, name, bars[name].to_numpy() * factor)
    more = np.concatenate([np.zeros(row + 1, int), rng.integers(1, 50, later)])
    spread = pc.add(bars["spread_points"], pa.array(more))  # an unknown spread stays unknown
    return _with_column(bars, "spread_points", spread)


def _with_column(bars: pa.Table, name: str, values: np.ndarray | pa.ChunkedArray) -> pa.Table:
    field = bars.schema.field(name)
    column = values.cast(field.type) if isinstance(values, pa.ChunkedArray) else pa.array(values, field.type)
    return bars.set_column(bars.schema.get_field_index(name), field, column)


def _changed(before: np.ndarray, after: np.ndarray, tolerance: float) -> list[int]:
    differs = ~(np.isnan(before) & np.isnan(after)) & ~(np.abs(after - before) <= tolerance + 1e-9 * np.abs(before))
    return [int(t) for t in np.flatnonzero(differs)]


def _span(rows: list[int]) -> str:
    return f"{rows[0]} to {rows[-1]}" if rows else "none"


def _wide(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, float)
    return features.reshape(len(features), -1) if features.ndim else features.reshape(1, 1)


def _discrepancy(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference relative to each column's scale; a NaN on one side only is infinitely different."""
    if a.shape != b.shape or (np.isnan(a) != np.isnan(b)).any():
        return float("inf")
    if not np.isfinite(b).any():
        return 0.0
    scale = np.nanmax(np.abs(np.where(np.isfinite(b), b, np.nan)), axis=0, initial=1e-12)
    return float(np.nanmax(np.abs(a - b) / np.where(np.isfinite(scale), scale, 1.0), initial=0.0))
