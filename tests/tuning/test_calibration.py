"""Conformal quantiles: order, symmetry, coverage, and honesty about few observations."""

from __future__ import annotations

import numpy as np
import pytest

from tuning.calibration import LEVELS, empirical_quantiles, quantiles_by_symbol, scale_quantiles, standardised


def test_quantiles_of_many_normal_values_are_the_normal_ones():
    z = np.random.default_rng(1).normal(size=200_000)
    np.testing.assert_allclose(empirical_quantiles(z, 1)[[0, 3, 6]], [-1.645, 0.0, 1.645], atol=0.02)


def test_symmetric_quantiles_have_median_zero_whatever_the_drift():
    z = np.random.default_rng(1).normal(loc=0.7, size=5000)
    made = empirical_quantiles(z, 1, symmetric=True)
    np.testing.assert_allclose(made, -made[::-1], atol=1e-12)


def test_few_independent_labels_give_wider_intervals():
    z = np.random.default_rng(1).normal(size=480)
    alone, overlapping = empirical_quantiles(z, 1), empirical_quantiles(z, 24)
    assert overlapping[0] < alone[0] < alone[-1] < overlapping[-1]


@pytest.mark.parametrize("values", [[], [np.nan, np.nan]])
def test_nothing_known_is_missing_not_zero(values: list[float]):
    assert np.isnan(empirical_quantiles(np.array(values), 1)).all()


def test_coverage_holds_for_fat_tails_out_of_sample():
    rng = np.random.default_rng(3)
    past, future = rng.standard_t(3, size=(2, 20_000))
    q = empirical_quantiles(past, 1, symmetric=True)
    inside = ((future >= q[1]) & (future <= q[5])).mean()
    assert abs(inside - 0.80) < 0.01


def test_a_symbol_without_history_takes_the_pooled_quantiles():
    z = np.random.default_rng(1).normal(size=1000)
    made = quantiles_by_symbol(z, np.zeros(1000, int), 2, 1)
    np.testing.assert_array_equal(made[1], empirical_quantiles(z, 1, symmetric=True))


def test_a_wild_symbol_gets_its_own_width():
    rng = np.random.default_rng(1)
    z = np.concatenate([rng.normal(size=5000), 2.0 * rng.normal(size=5000)])
    made = quantiles_by_symbol(z, np.repeat([0, 1], 5000), 2, 1)
    assert made[1, -1] > 1.8 * made[0, -1]


def test_scaled_quantiles_ascend_and_undo_standardising():
    log_rv = np.array([-12.0, -8.0])
    made = scale_quantiles(np.array(sorted(LEVELS - 0.5)), log_rv)
    assert (np.diff(made, axis=1) > 0).all()
    np.testing.assert_allclose(standardised(made[:, 0], log_rv), [-0.45, -0.45])
