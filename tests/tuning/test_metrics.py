from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.metrics import auc, central_coverage, coverage, log_loss, pinball, qlike, squared_log


def test_qlike_is_the_formula_and_zero_for_a_perfect_forecast():
    losses = qlike(np.array([2e-6, 1e-6, 1e-6]), np.array([1e-6, 1e-6, 2e-6]))
    assert losses == pytest.approx([2 - np.log(2) - 1, 0.0, 0.5 + np.log(2) - 1])


def test_qlike_of_a_bar_that_did_not_move_is_finite():
    assert np.isfinite(qlike(np.array([0.0]), np.array([1e-6]))).all()


def test_the_variance_floor_cancels_in_a_difference():
    zero, tiny = np.array([0.0]), np.array([1e-13])
    a, b = np.array([1e-6]), np.array([3e-6])
    assert qlike(zero, a) - qlike(zero, b) == pytest.approx(qlike(tiny, a) - qlike(tiny, b))


def test_squared_log():
    assert squared_log(np.array([np.e * 1e-6]), np.array([1e-6])) == pytest.approx([1.0])


def test_pinball_literal():
    forecast = np.array([[-1.0, 0.0, 1.0]])
    assert pinball(np.array([2.0]), forecast, (0.1, 0.5, 0.9)) == pytest.approx([(0.3 + 1.0 + 0.9) / 3])
    assert pinball(np.array([-2.0]), forecast, (0.1, 0.5, 0.9)) == pytest.approx([(0.9 + 1.0 + 0.3) / 3])


def test_pinball_refuses_another_number_of_levels():
    with pytest.raises(ValueError, match="shape"):
        pinball(np.zeros(3), np.zeros((3, 2)))


def test_log_loss_of_a_coin_is_log_two_and_certainty_is_finite():
    losses = log_loss(np.array([1.0, 0.0, 1.0]), np.array([0.5, 0.5, 0.0]))
    assert losses == pytest.approx([np.log(2), np.log(2), -np.log(1e-6)])


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.1, 0.2, 0.8, 0.9], 1.0),
        ([0.9, 0.8, 0.2, 0.1], 0.0),
        ([0.5, 0.5, 0.5, 0.5], 0.5),
        ([0.1, 0.8, 0.2, 0.9], 0.75),
    ],
)
def test_auc_literal(scores, expected):
    assert auc(np.array([0.0, 0.0, 1.0, 1.0]), np.array(scores)) == expected


def test_auc_of_one_class_is_not_a_number():
    assert np.isnan(auc(np.ones(4), np.arange(4.0)))


@given(st.integers(0, 2**32 - 1))
def test_auc_counts_pairs(seed):
    rng = np.random.default_rng(seed)
    up, score = (rng.random(30) < 0.5).astype(float), rng.integers(0, 5, 30).astype(float)
    ups, downs = score[up == 1], score[up == 0]
    if len(ups) and len(downs):
        pairs = (ups[:, None] > downs).mean() + 0.5 * (ups[:, None] == downs).mean()
        assert auc(up, score) == pytest.approx(pairs)


def test_coverage_counts_only_complete_rows():
    actual = np.array([0.0, 2.0, np.nan, -1.0])
    assert coverage(actual, np.full(4, -1.0), np.full(4, 1.0)) == pytest.approx(2 / 3)
    assert np.isnan(coverage(np.array([np.nan]), np.zeros(1), np.ones(1)))


def test_central_coverage_takes_the_right_levels():
    quantiles = np.tile([-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0], (4, 1))
    actual = np.array([-2.5, -1.5, 1.5, 3.5])
    assert central_coverage(actual, quantiles, 0.8) == 0.5
    assert central_coverage(actual, quantiles, 0.9) == 0.75


def test_nan_stays_in_its_row():
    assert np.isnan(qlike(np.array([np.nan, 1e-6]), np.array([1e-6, 1e-6]))).tolist() == [True, False]
