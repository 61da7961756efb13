"""Purged walk-forward folds: train on the past, test on what follows, with a gap no label reaches across.

Rows are pooled over symbols; time alone decides. The last `purge` bars before the first test row are purged, and with
them any earlier row whose label, across a hole, ends there or later; `embargo` more bars are left out before the purged
ones (Lopez de Prado 2018, ch. 7). Knows no model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from market.errors import InputError, NotEnoughBars

LOCKBOX = -1
BURN_IN = -2


@dataclass(frozen=True)
class Fold:
    """Row numbers, ascending. `number` is 0 .. folds-1, LOCKBOX for the last stretch, BURN_IN for the one before the first.

    Forecasts of the burn-in are evidence for the stack of the first test fold; they are scored nowhere.
    """

    number: int
    train: np.ndarray
    test: np.ndarray
    purged: np.ndarray
    embargoed: np.ndarray


@dataclass(frozen=True)
class Scheme:
    """How to cut. Bars are distinct timestamps of the panel.

    Test folds cover the last `test_days` before the lockbox, but never more than `test_share` of the bars there; the
    lockbox is the last `lockbox_days`, but never more than a sixth of all bars.
    """

    folds: int = 5
    purge: int = 24  # bars; at least the longest horizon
    embargo: int = 24  # bars
    test_days: float = 365.0
    test_share: float = 0.45
    lockbox_days: float = 60.0
    max_train_bars: int | None = None  # None: expanding window, else rolling
    min_train_bars: int = 500
    burn_in: bool = False  # one more fold before the first, where history has room for it


def purged_walk_forward(time: np.ndarray, label_end: np.ndarray, scheme: Scheme, *, warm_up: int = 0) -> list[Fold]:
    """Folds in time order: the burn-in if asked for, the test folds, the lockbox (none when lockbox_days is 0).

    time, label_end: datetime64 [n], as-of close of each row and the time its longest label is known.
    `warm_up`: bars the caller already dropped for look-back, counted in the message only. NotEnoughBars says how many
    distinct bars there are and how many are needed.
    """
    axis, bar = np.unique(time, return_inverse=True)  # bar: int [n], place of each row on the time axis
    starts, stop = _cut(axis, scheme, warm_up)
    edges = [*starts, stop]
    folds = []
    before = starts[0] - (stop - starts[0]) // scheme.folds
    if scheme.burn_in and before >= scheme.min_train_bars + scheme.purge + scheme.embargo:
        folds.append(_fold(BURN_IN, time, label_end, axis, bar, before, starts[0], scheme))
    for number in range(scheme.folds):
        folds.append(_fold(number, time, label_end, axis, bar, edges[number], edges[number + 1], scheme))
    if stop < len(axis):
        folds.append(_fold(LOCKBOX, time, label_end, axis, bar, stop, len(axis), scheme))
    return folds


def _cut(axis: np.ndarray, scheme: Scheme, warm_up: int) -> tuple[list[int], int]:
    """-> (first bar of each test fold, first bar of the lockbox) as places on the time axis."""
    bars = len(axis)
    lockbox = bars - int(np.searchsorted(axis, axis[-1] - _days(scheme.lockbox_days), side="right")) if bars else 0
    stop = bars - min(lockbox, bars // 6) if scheme.lockbox_days > 0 else bars
    first = int(np.searchsorted(axis, axis[stop - 1] - _days(scheme.test_days), side="right")) if bars else 0
    first = max(first, stop - int(stop * scheme.test_share))
    test = stop - first
    if first < scheme.min_train_bars + scheme.purge + scheme.embargo or test < scheme.folds * 10:
        needed = int(max(scheme.min_train_bars + scheme.purge + scheme.embargo, 60) / (1 - scheme.test_share) * 1.25)
        raise NotEnoughBars(
            f"{bars + warm_up} bars are too few for {scheme.folds} walk-forward folds; about {needed + warm_up} are needed.",
            hint="Backfill a longer history (`lstmc bars backfill`), or use a shorter timeframe.",
        )
    return [first + test * k // scheme.folds for k in range(scheme.folds)], stop


def _days(days: float) -> np.timedelta64:
    return np.timedelta64(int(days * 86400e6), "us")


def _fold(
    number: int,
    time: np.ndarray,
    label_end: np.ndarray,
    axis: np.ndarray,
    bar: np.ndarray,
    start: int,
    stop: int,
    scheme: Scheme,
) -> Fold:
    before = bar < start
    purged = before & ((label_end >= axis[start]) | (bar >= start - scheme.purge))
    last = start - scheme.purge - scheme.embargo  # first bar after the training rows
    embargoed = before & ~purged & (bar >= last)
    train = before & ~purged & ~embargoed
    if scheme.max_train_bars is not None:
        train &= bar >= last - scheme.max_train_bars
    test = (bar >= start) & (bar < stop)
    return Fold(number, *(np.flatnonzero(mask) for mask in (train, test, purged, embargoed)))


def shuffled_k_fold(rows: int, folds: int, horizon: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(train, test) row numbers in random order; InputError for any horizon above one bar.

    Labels of neighbouring rows overlap then, and a shuffled split hands the answer to the model: it "finds" 85 %
    direction accuracy on pure noise.
    """
    if horizon > 1:
        raise InputError(
            f"A shuffled K-fold leaks: labels {horizon} bars ahead overlap between training and test rows.",
            hint="Use purged_walk_forward.",
        )
    shuffled = np.random.default_rng(seed).permutation(rows)
    parts = np.array_split(shuffled, folds)
    for k in range(folds):
        yield np.sort(np.concatenate(parts[:k] + parts[k + 1 :])), np.sort(parts[k])
