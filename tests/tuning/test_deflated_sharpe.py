"""Sharpe ratios: the paper's own figures, and what overlap and luck are worth."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from tuning.deflated_sharpe import Sharpe, deflated, expected_best, probabilistic, sharpe


def test_the_numerical_example_of_bailey_and_lopez_de_prado():
    """Section "A numerical example": 100 trials, 1250 days, annual ratio 2.5, V = 1/2 a year, skew -3, kurtosis 10."""
    found = Sharpe(ratio=2.5 / sqrt(250), n=1250, skew=-3.0, kurtosis=10.0)
    assert expected_best(100, 0.5 / 250) == pytest.approx(0.1132, abs=1e-4)
    assert deflated(found, 100, 0.5 / 250) == pytest.approx(0.9004, abs=1e-4)
    assert deflated(found, 46, 0.5 / 250) == pytest.approx(0.9505, abs=1e-3), (
        "the paper: 46 trials would still pass at 95 %"
    )


def test_one_trial_is_not_deflated():
    found = Sharpe(0.05, 1000, 0.0, 3.0)
    assert expected_best(1, 0.1) == 0.0
    assert expected_best(50, 0.0) == 0.0
    assert deflated(found, 1, 0.1) == probabilistic(found, 0.0)


def test_more_trials_are_worth_less():
    found = Sharpe(0.08, 2000, 0.0, 3.0)
    shares = [deflated(found, n, 0.001) for n in (1, 2, 10, 100, 1000)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.99
    assert shares[-1] < 0.2


def test_the_best_of_many_worthless_strategies_is_as_good_as_expected():
    seed, trials, n = 4, 50, 500
    rng = np.random.default_rng(seed)
    best = [max(x.mean() / x.std() for x in rng.normal(size=(trials, n))) for _ in range(200)]
    assert np.mean(best) == pytest.approx(expected_best(trials, 1.0 / n), rel=0.03), f"seed {seed}"


def test_overlapping_bets_count_once():
    """Each bar's return in 24 parts over 24 bars: the same money, a much smoother path."""
    seed = 5
    rng = np.random.default_rng(seed)
    single = 0.05 + rng.normal(size=20_000)
    smooth = np.convolve(single, np.ones(24) / 24, mode="valid")
    naive = smooth.mean() / smooth.std()
    assert naive > 4 * sharpe(single, 1).ratio, f"seed {seed}"
    assert sharpe(smooth, 24).ratio == pytest.approx(sharpe(single, 1).ratio, rel=0.25), f"seed {seed}"


@pytest.mark.parametrize("returns", [np.zeros(500), np.empty(0), np.ones(10)])
def test_nothing_earned_has_no_ratio(returns):
    found = sharpe(returns, 1)
    assert np.isnan(found.ratio)
    assert np.isnan(deflated(found, 5, 0.1))
