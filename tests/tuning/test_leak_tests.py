"""Every leak test passes on honest code and catches a leak planted for it."""

from __future__ import annotations

import numpy as np
import pytest

from tuning.experiments import World, simulate
from tuning.leak_tests import (
    permute_blocks,
    permuted_labels,
    same_forecasts,
    tail_equals_full,
    target_shift,
    truncated_future,
)

CUTS = (200, 350, 399)


@pytest.fixture(scope="module")
def bars():
    return simulate(World(weeks=4, symbols=("EURUSD",)), seed=3)["EURUSD"].slice(0, 400)


def log_close(table):
    return np.log(table["close"].to_numpy())


def momentum(table):
    x = log_close(table)
    return np.concatenate([np.full(5, np.nan), x[5:] - x[:-5]])


def ret(table, h=6, shift=0):
    x = log_close(table)
    out = np.full(len(x), np.nan)
    last = len(x) - h - shift
    out[:last] = x[h + shift : len(x)] - x[shift : last + shift]
    return out


def test_honest_features_pass(bars):
    assert truncated_future(momentum, bars, CUTS).passed
    assert tail_equals_full(momentum, bars, bars_needed=6).passed


def test_a_feature_scaled_by_the_whole_sample_is_caught(bars):
    result = truncated_future(lambda t: (momentum(t) - np.nanmean(momentum(t))) / np.nanstd(momentum(t)), bars, CUTS)
    assert not result.passed
    assert "cut after bar" in result.detail


def test_a_centred_window_is_caught(bars):
    result = truncated_future(lambda t: np.convolve(log_close(t), np.ones(5) / 5, mode="same"), bars, CUTS)
    assert not result.passed


def test_a_value_that_appears_only_later_is_caught(bars):
    result = truncated_future(lambda t: ret(t, 1), bars, CUTS)
    assert result.value == float("inf"), "NaN at the end of the short history, a number in the long one"


def test_a_recursion_that_never_forgets_is_caught(bars):
    def recursive(table):
        out, level = [], 0.0
        for x in momentum(table):
            level = 0.99 * level + (0.0 if np.isnan(x) else x)
            out.append(level)
        return np.array(out)

    assert truncated_future(recursive, bars, CUTS).passed, "it knows no future"
    assert not tail_equals_full(recursive, bars, bars_needed=50).passed


def test_too_few_bars_needed_is_caught(bars):
    assert not tail_equals_full(momentum, bars, bars_needed=5).passed


def test_honest_labels_pass(bars):
    assert target_shift(ret, bars, 6, (100, 200, 390)).passed


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_shifted_label_is_caught(bars, shift):
    def shifted(table):
        return np.roll(ret(table), shift)

    result = target_shift(shifted, bars, 6, (100, 200))
    assert not result.passed
    assert "close 200 moved the labels" in result.detail


def test_a_label_of_another_horizon_is_caught(bars):
    assert not target_shift(lambda t: ret(t, 5), bars, 6, (100,)).passed
    assert not target_shift(lambda t: ret(t, 7), bars, 6, (100,)).passed


def _nearest_neighbour_skill(x, labels, train, test):
    nearest = np.abs(x[test, None] - x[None, train]).argmin(axis=1)
    said = labels[train][nearest]
    return float(np.corrcoef(said, labels[test])[0, 1]) if said.std() > 0 else 0.0


def test_a_shuffled_split_over_overlapping_labels_is_caught_and_a_purged_one_passes():
    seed = 5
    rng = np.random.default_rng(seed)
    n, h = 1500, 24
    shocks = np.concatenate([[0.0], np.cumsum(rng.normal(size=n + h))])
    labels = (shocks[h:] - shocks[:-h])[:n]
    x = np.arange(n) + rng.normal(size=n)  # a slow feature: it only says "when"
    shuffled = rng.permutation(n)
    leaky = permuted_labels(
        lambda y: _nearest_neighbour_skill(x, y, shuffled[300:], shuffled[:300]), labels, rng, block=2 * h
    )
    assert not leaky.passed, f"seed {seed}: {leaky}"
    purged = permuted_labels(
        lambda y: _nearest_neighbour_skill(x, y, np.arange(1000), np.arange(1000 + 2 * h, n)), labels, rng, block=2 * h
    )
    assert purged.passed, f"seed {seed}: {purged}"


def test_permuted_blocks_are_the_same_rows():
    rows = np.arange(10)
    mixed = permute_blocks(rows, 3, np.random.default_rng(2))
    assert sorted(mixed) == list(rows)
    assert not np.array_equal(mixed, rows)


def test_a_model_that_serves_differently_from_the_tail_is_caught(bars):
    honest = same_forecasts(lambda given: {s: momentum(t)[-1:] for s, t in given.items()}, {"EURUSD": bars}, 6)
    assert honest.passed
    drifting = same_forecasts(
        lambda given: {s: log_close(t).mean(keepdims=True) for s, t in given.items()}, {"EURUSD": bars}, 6
    )
    assert not drifting.passed
    assert drifting.detail == "EURUSD"
    small = same_forecasts(  # a volatility that is 0.1 % off, beside a probability that is not
        lambda given: {s: np.array([0.002 * (1.0 + 1e-3 * (t.num_rows > 6)), 0.5]) for s, t in given.items()},
        {"EURUSD": bars},
        6,
    )
    assert not small.passed
