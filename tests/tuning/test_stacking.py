"""Stack weights on forecasts whose quality is known: found where there is skill, the baseline where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.stacking import combine, fit_direction_weights, fit_volatility_weights, logit, project, sigmoid

N = 8000


@pytest.fixture
def world():
    rng = np.random.default_rng(4)
    truth = rng.normal(-10, 0.6, N)
    rv = np.exp(truth) * rng.gamma(4, 0.25, N)
    return rng, truth, rv


def test_the_true_forecast_takes_the_weight(world):
    rng, truth, rv = world
    baseline = truth + rng.normal(0, 0.5, N)
    w = fit_volatility_weights(rv, baseline, np.stack([truth, truth + rng.normal(0, 1, N)], axis=1), horizon=1)
    assert w[0] > 0.9
    assert w[1] < 0.1


def test_noise_around_the_baseline_gets_nothing(world):
    rng, truth, rv = world
    noisy = truth[:, None] + rng.normal(0, 0.3, (N, 3))
    assert fit_volatility_weights(rv, truth, noisy, horizon=24).sum() < 0.1


def test_without_evidence_the_centre_stands():
    none = np.empty(0)
    assert fit_volatility_weights(none, none, np.empty((0, 2)), 24, centre=np.array([0.4, 0.1])).tolist() == [0.4, 0.1]


def test_overlapping_labels_count_for_less(world):
    rng, truth, rv = world
    baseline = truth[:300] + rng.normal(0, 0.3, 300)
    short, long = (fit_volatility_weights(rv[:300], baseline, truth[:300, None], h)[0] for h in (1, 60))
    assert long < short


def test_a_missing_candidate_counts_as_the_baseline():
    baseline = np.array([-10.0, -10.0])
    made = combine(baseline, np.array([[-8.0], [np.nan]]), np.array([0.5]))
    assert made.tolist() == [-9.0, -10.0]


def test_direction_weights_find_an_edge_and_ignore_its_absence():
    rng = np.random.default_rng(9)
    score = 0.4 * rng.normal(size=N)
    up = rng.random(N) < sigmoid(score)
    base = np.full(N, 0.5)
    p_up = np.stack([sigmoid(score), sigmoid(0.4 * rng.normal(size=N))], axis=1)
    w = fit_direction_weights(up, base, p_up, horizon=1)
    assert w[0] > 0.7
    assert w[1] < 0.1


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=6))
def test_projection_lands_in_the_simplex_and_leaves_it_alone(values: list[float]):
    made = project(np.array(values))
    assert (made >= 0).all()
    assert made.sum() <= 1 + 1e-9
    np.testing.assert_allclose(project(made), made, atol=1e-12)


def test_logit_undoes_sigmoid():
    np.testing.assert_allclose(logit(sigmoid(np.array([-4.0, 0.0, 2.5]))), [-4.0, 0.0, 2.5])
