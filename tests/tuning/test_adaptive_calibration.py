"""Widths follow realised coverage: only from what is known, bounded, quantiles in order, and no worse on a quiet market."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from market.forecasts import QUANTILE_LEVELS
from tuning.adaptive_calibration import (
    NARROWEST,
    PAIRS,
    SHARES,
    WIDEST,
    WidthTracker,
    adaptive_quantiles,
    in_levels,
    rate_of,
)

Z = norm.ppf(QUANTILE_LEVELS)
HOUR = np.timedelta64(1, "h")


def market(seed: int, n: int, horizon: int, scale: np.ndarray | float = 1.0) -> tuple[np.ndarray, ...]:
    """Quantiles of a forecaster that says sigma = sqrt(horizon), returns of scale * that; -> quantiles, actual, times, ends."""
    steps = np.random.default_rng(seed).normal(size=n + horizon) * scale
    total = np.concatenate([[0.0], np.cumsum(steps)])
    actual = total[horizon:][:n] - total[:n]
    time = np.datetime64("2024-01-01", "us") + np.arange(n) * HOUR
    return np.tile(Z * np.sqrt(horizon), (n, 1)), actual, time, time + horizon * HOUR


def adapted(
    seed: int, n: int, horizon: int, scale: np.ndarray | float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    quantiles, actual, time, ends = market(seed, n, horizon, scale)
    made = adaptive_quantiles(quantiles, actual, np.zeros(n, int), time, ends, horizon)
    return quantiles, made, actual


def coverage(quantiles: np.ndarray, actual: np.ndarray, pair: int = 1) -> float:
    low, high = PAIRS[pair]
    return float(np.mean((quantiles[:, low] <= actual) & (actual <= quantiles[:, high])))


@pytest.mark.parametrize("horizon", [1, 24])
def test_after_a_break_that_the_model_does_not_see_coverage_comes_back(horizon: int) -> None:
    n, broken = 9000, 3000
    scale = np.where(np.arange(n + horizon) < broken, 1.0, 1.5)
    fixed, made, actual = adapted(4, n, horizon, scale)
    late = slice(broken + 3000, n)
    assert coverage(fixed[late], actual[late]) < 0.66
    assert coverage(made[late], actual[late]) > 0.76


@pytest.mark.parametrize("horizon", [1, 24])
def test_a_width_that_is_right_stays_nearly_so(horizon: int) -> None:
    fixed, made, actual = adapted(5, 9000, horizon)
    for pair, share in enumerate(SHARES):
        assert coverage(made, actual, pair) == pytest.approx(1 - share, abs=0.015)
    width = (made[:, 5] - made[:, 1]) / (fixed[:, 5] - fixed[:, 1])
    assert np.std(np.log(width)) < 0.1


def test_nothing_is_learned_before_a_label_ends() -> None:
    quantiles, actual, time, ends = market(6, 400, 24, scale=2.0)
    symbol = np.zeros(400, int)
    made = adaptive_quantiles(quantiles, actual, symbol, time, ends, 24)
    np.testing.assert_array_equal(made[:24], quantiles[:24])
    assert (made[24] != quantiles[24]).any(), "the first label ends at this close"
    for cut in (30, 200):
        late = np.where(ends > time[cut], 99.0, actual)  # whatever happens after this close
        again = adaptive_quantiles(quantiles, late, symbol, time, ends, 24)
        np.testing.assert_array_equal(again[: cut + 1], made[: cut + 1])


def test_each_symbol_learns_for_itself_and_rows_may_come_in_any_order() -> None:
    one, two = market(7, 300, 1, scale=2.0), market(8, 300, 1, scale=0.5)
    pooled = [np.concatenate(pair) for pair in zip(one, two, strict=True)]
    symbol = np.repeat([0, 1], 300)
    order = np.random.default_rng(0).permutation(600)
    made = np.empty((600, 7))
    quantiles, actual, time, ends = (part[order] for part in pooled)
    made[order] = adaptive_quantiles(quantiles, actual, symbol[order], time, ends, 1)
    for k, (q, a, t, e) in enumerate((one, two)):
        np.testing.assert_array_equal(made[symbol == k], adaptive_quantiles(q, a, np.zeros(300, int), t, e, 1))


def test_widths_are_bounded_and_quantiles_stay_in_order_whatever_happens() -> None:
    rng = np.random.default_rng(9)
    tracker = WidthTracker(0.3)
    for k in range(3000):
        own = np.sort(rng.standard_t(2, 7) * 10.0 ** rng.integers(-6, 3))
        made = tracker.adapt(own)
        assert made == sorted(made), f"seed 9, step {k}"
        assert made[3] == own[3]
        tracker.learn(own, float(rng.choice([own.mean(), 1e6, -1e6, own[3]])))
        assert all(NARROWEST <= width <= WIDEST for width in tracker.log_width)
    for _ in range(3000):
        tracker.learn(Z, 1e9)
    assert tracker.log_width == [WIDEST] * 3
    np.testing.assert_allclose(tracker.adapt(Z), 2 * Z)


def test_one_step_by_hand() -> None:
    tracker = WidthTracker(0.1)
    tracker.learn(Z, 1.5)  # outside 50 % (0.67) and 80 % (1.28), inside 90 % (1.64)
    np.testing.assert_allclose(tracker.log_width, [0.1 * -0.1, 0.1 * (1 - 0.2), 0.1 * (1 - 0.5)])
    assert tracker.adapt(Z)[5] == pytest.approx(Z[5] * np.exp(0.08))
    assert rate_of(24) == pytest.approx(rate_of(1) / np.sqrt(24))


def test_unknown_outcomes_and_missing_quantiles_teach_nothing() -> None:
    tracker = WidthTracker(0.1)
    tracker.learn(Z, float("nan"))
    tracker.learn([*Z[:6], float("nan")], 0.0)
    assert tracker.log_width == [0.0] * 3
    odd = [0.1 * k + 0.7 for k in range(7)]
    assert tracker.adapt(odd) == odd, "to the last digit"


def test_levels_by_name() -> None:
    named = {str(level): float(k) for k, level in enumerate(QUANTILE_LEVELS)}
    assert in_levels(dict(reversed(named.items()))) == [0, 1, 2, 3, 4, 5, 6]
    assert in_levels({"0.050" if k == "0.05" else k: v for k, v in named.items()}) == [0, 1, 2, 3, 4, 5, 6]
    assert in_levels({"0.05": 1.0}) is in_levels(None) is None
