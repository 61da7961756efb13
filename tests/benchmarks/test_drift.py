"""Statistics of drift on samples whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.feature_drift import BINS, TrainingFeatures, psi
from tuning.drift import volatility_shift


def test_psi_of_the_same_sample_is_zero_and_of_a_moved_one_is_its_definition() -> None:
    reference = np.arange(1000.0)[:, None]
    assert psi(reference, reference)[0] == pytest.approx(0.0, abs=1e-12)
    upper = reference[500:]  # five deciles twice as full, five empty
    p, full, empty = 1 / BINS, 2 / BINS, 1e-4
    expected = 5 * ((full - p) * np.log(full / p) + (empty - p) * np.log(empty / p))
    assert psi(reference, upper)[0] == pytest.approx(expected, rel=1e-3)


def test_psi_leaves_missing_values_out_and_says_when_nothing_is_left() -> None:
    reference = np.arange(1000.0)[:, None] * [1.0, 1.0]
    recent = reference.copy()
    recent[::2, 0] = np.nan
    recent[:, 1] = np.nan
    found = psi(reference, recent)
    assert found[0] == pytest.approx(0.0, abs=0.01)
    assert np.isnan(found[1])


def test_only_more_than_the_training_time_has_seen_is_drift() -> None:
    print("seed 5")
    rng = np.random.default_rng(5)
    windows = rng.normal(size=(10, 240, 2)) + 0.5 * rng.normal(size=(10, 1, 2))  # each window has a level of its own
    training = TrainingFeatures.of(windows)
    assert training.drift(windows[3]) == 0.0
    moved = windows[3] + [5.0, 0.0]
    assert training.drift(moved) == 0.5


@pytest.mark.parametrize(("realised", "shift"), [(1.0, 0.0), (2.0, np.log(2)), (0.5, np.log(2)), (np.nan, 0.0)])
def test_volatility_shift(realised: float, shift: float) -> None:
    assert volatility_shift(np.full(50, realised), np.ones(50)) == pytest.approx(shift)
