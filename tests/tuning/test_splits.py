"""Folds by their literal row numbers."""

from __future__ import annotations

import numpy as np
import pytest

from market.errors import InputError, NotEnoughBars
from tuning.splits import BURN_IN, LOCKBOX, Scheme, purged_walk_forward, shuffled_k_fold
from tuning.targets import NEVER

DAY = np.timedelta64(86400_000_000, "us")
START = np.datetime64("2024-01-01", "us")


def days(n: int) -> np.ndarray:
    return START + np.arange(n) * DAY


def small(**changes) -> Scheme:
    fields = {
        "folds": 2,
        "purge": 2,
        "embargo": 3,
        "test_days": 20,
        "lockbox_days": 10,
        "min_train_bars": 20,
        "test_share": 0.45,
    }
    return Scheme(**(fields | changes))


def test_literal_rows_of_an_expanding_cut():
    time = days(70)
    folds = purged_walk_forward(time, time + 2 * DAY, small())
    first, second, lockbox = folds
    assert (first.test.tolist(), second.test.tolist()) == (list(range(40, 50)), list(range(50, 60)))
    assert lockbox.number == LOCKBOX
    assert lockbox.test.tolist() == list(range(60, 70))
    assert first.purged.tolist() == [38, 39]  # their labels end at row 40 or later
    assert first.embargoed.tolist() == [35, 36, 37]
    assert first.train.tolist() == list(range(35))
    assert second.train.tolist() == list(range(45))
    assert lockbox.train.tolist() == list(range(55))


def test_the_burn_in_is_one_more_fold_before_the_first():
    time = days(70)
    burn_in, first, *_ = purged_walk_forward(time, time + 2 * DAY, small(burn_in=True))
    assert burn_in.number == BURN_IN
    assert burn_in.test.tolist() == list(range(30, 40))
    assert burn_in.train.tolist() == list(range(25))
    assert (first.number, first.test.tolist()) == (0, list(range(40, 50)))


def test_no_burn_in_without_room_to_train_it():
    time = days(70)
    folds = purged_walk_forward(time, time + 2 * DAY, small(burn_in=True, min_train_bars=26))
    assert [fold.number for fold in folds] == [0, 1, LOCKBOX]


def test_a_rolling_cut_drops_the_oldest_rows():
    time = days(70)
    first, second, _ = purged_walk_forward(time, time + 2 * DAY, small(max_train_bars=25))
    assert first.train.tolist() == list(range(10, 35))
    assert second.train.tolist() == list(range(20, 45))


def test_symbols_share_the_cut_in_time():
    time = np.concatenate([days(70), days(70)])
    fold = purged_walk_forward(time, time + 2 * DAY, small())[0]
    assert fold.train.tolist() == [*range(35), *range(70, 105)]
    assert fold.test.tolist() == [*range(40, 50), *range(110, 120)]


def test_a_label_across_a_hole_is_purged_by_its_end_and_takes_no_other_row_with_it():
    time = days(70)
    end = time + 2 * DAY
    end[30] = time[41]  # this row's label waits for a bar after a hole
    fold = purged_walk_forward(time, end, small())[0]
    assert fold.purged.tolist() == [30, 38, 39]
    assert fold.train.tolist() == [*range(30), *range(31, 35)]


def test_a_symbol_that_ended_long_ago_does_not_move_the_cut():
    time = np.concatenate([days(70), days(20)])
    end = time + 2 * DAY
    end[-2:] = NEVER  # the second symbol's last labels are never known
    fold = purged_walk_forward(time, end, small())[0]
    assert fold.train.tolist() == [*range(35), *range(70, 88)]
    assert fold.purged.tolist() == [38, 39, 88, 89]


@pytest.mark.parametrize("horizon", [1, 7, 24])
def test_no_label_of_a_training_row_reaches_the_test_rows(horizon: int):
    time = days(900)
    for fold in purged_walk_forward(
        time, time + horizon * DAY, Scheme(purge=horizon, embargo=horizon, min_train_bars=100)
    ):
        gap = fold.test.min() - fold.train.max()
        assert gap == 2 * horizon + 1
        groups = (fold.train, fold.purged, fold.embargoed, fold.test)
        assert len(np.unique(np.concatenate(groups))) == sum(map(len, groups))


def test_short_history_tests_no_more_than_its_share_and_locks_no_more_than_a_sixth():
    folds = purged_walk_forward(days(300), days(300) + DAY, small(test_days=365, lockbox_days=60))
    assert len(folds[-1].test) == 50
    assert sum(len(fold.test) for fold in folds[:-1]) == int(250 * 0.45)


def test_no_lockbox_when_none_is_asked():
    folds = purged_walk_forward(days(70), days(70) + DAY, small(lockbox_days=0))
    assert [fold.number for fold in folds] == [0, 1]
    assert folds[-1].test.max() == 69


@pytest.mark.parametrize("n", [0, 1, 30])
def test_too_few_bars_says_how_many_there_are(n: int):
    with pytest.raises(NotEnoughBars, match=rf"^{n + 480} bars"):
        purged_walk_forward(days(n), days(n) + DAY, small(), warm_up=480)


def test_the_number_said_to_be_needed_is_enough():
    for n in range(20, 120):
        try:
            purged_walk_forward(days(n), days(n) + DAY, small(test_days=365, lockbox_days=60))
        except NotEnoughBars as error:
            needed = int(str(error).split("about ")[1].split(" ")[0])
            assert needed > n
    purged_walk_forward(days(needed), days(needed) + DAY, small(test_days=365, lockbox_days=60))


@pytest.mark.parametrize("horizon", [2, 24])
def test_a_shuffled_k_fold_is_refused_for_overlapping_labels(horizon: int):
    with pytest.raises(InputError, match="purged_walk_forward"):
        list(shuffled_k_fold(100, 5, horizon, seed=1))


def test_a_shuffled_k_fold_of_single_bars_tests_every_row_once():
    parts = list(shuffled_k_fold(103, 5, 1, seed=1))
    assert sorted(np.concatenate([test for _, test in parts]).tolist()) == list(range(103))
    assert all(set(train) | set(test) == set(range(103)) for train, test in parts)
