from __future__ import annotations

import numpy as np
import pytest

from tuning.significance import bandwidth, hac_test, long_run_variance, panel_mean, panel_test


def test_long_run_variance_literal():
    # centred: -1.5 -0.5 0.5 1.5; gamma0 = 5/4, gamma1 = (0.75 - 0.25 + 0.75)/4, Bartlett weight 1/2 at lag 1
    assert long_run_variance(np.array([1.0, 2.0, 3.0, 4.0]), lag=1) == pytest.approx(1.25 + 2 * 0.5 * 1.25 / 4)


def test_long_run_variance_without_lags_is_the_variance():
    series = np.random.default_rng(0).normal(size=100)
    assert long_run_variance(series, lag=0) == pytest.approx(series.var())


@pytest.mark.parametrize(("n", "horizon", "lag"), [(6000, 24, 101), (400, 24, 48), (400, 1, 26), (6000, 96, 192)])
def test_the_lag_is_at_least_twice_the_horizon(n, horizon, lag):
    assert bandwidth(n, horizon) == lag >= 2 * horizon


def test_panel_mean_averages_symbols_per_timestamp_and_leaves_nan_out():
    times, mean = panel_mean(np.array([1.0, 3.0, np.nan, 5.0, np.nan]), np.array([10, 10, 20, 20, 30]))
    assert times.tolist() == [10, 20]
    assert mean.tolist() == [2.0, 5.0]


def test_seven_copies_of_one_series_carry_no_more_evidence_than_one():
    series = np.random.default_rng(1).normal(0.1, 1.0, 500)
    time = np.arange(500)
    one = panel_test(series, np.zeros(500), time, 1)
    seven = panel_test(np.tile(series, 7), np.zeros(3500), np.tile(time, 7), 1)
    assert seven.t == pytest.approx(one.t)
    assert seven.n == 500


def test_too_short_is_not_a_number_and_identical_forecasts_give_zero():
    assert np.isnan(hac_test(np.ones(20), 1).t)
    assert np.isnan(hac_test(np.random.default_rng(2).normal(size=90), 24).t)
    assert hac_test(np.zeros(500), 24).t == 0.0
    assert np.isnan(hac_test(np.array([]), 1).t)


def _rejections(make_series, horizon: int, runs: int, seed: int) -> float:
    rng = np.random.default_rng(seed)
    return float(np.mean([hac_test(make_series(rng), horizon).t <= -2.0 for _ in range(runs)]))


def _autoregressive(rng: np.random.Generator, n: int = 1500, rho: float = 0.8) -> np.ndarray:
    from scipy.signal import lfilter

    return lfilter([1.0], [1.0, -rho], rng.normal(size=n + 200))[200:]


def _overlapping_sums(rng: np.random.Generator, n: int = 1500, horizon: int = 24) -> np.ndarray:
    shocks = np.concatenate([[0.0], np.cumsum(rng.normal(size=n + horizon))])
    return shocks[horizon:] - shocks[:-horizon]


@pytest.mark.parametrize(("make", "horizon"), [(_autoregressive, 1), (_overlapping_sums, 24)])
def test_size_under_the_null_where_an_iid_test_fails(make, horizon):
    seed = 20260727
    size = _rejections(make, horizon, 400, seed)
    assert 0.005 <= size <= 0.045, f"seed {seed}: one-sided size {size}, nominal 0.023"
    rng = np.random.default_rng(seed)
    naive = np.mean([s.mean() / s.std() * np.sqrt(len(s)) <= -2.0 for s in (make(rng) for _ in range(200))])
    assert naive > 0.15


def test_power_against_a_real_difference():
    assert _rejections(lambda rng: _autoregressive(rng) - 0.8, 1, 100, 5) > 0.9
