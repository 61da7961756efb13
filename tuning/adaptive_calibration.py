"""Intervals that learn online: wider after outcomes fell outside too often, narrower after they did too seldom.

Quantile tracking (Angelopoulos, Candes & Tibshirani 2023, NeurIPS 36; after Gibbs & Candes 2021, NeurIPS 34) on the log
width of each central interval. One implementation for the evaluation, out of fold, and for serving. Knows no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, isfinite, log, sqrt

import numpy as np

from market.forecasts import QUANTILE_LEVELS

# Of the log width, per outcome of one bar; overlapping outcomes count less, see `rate_of`. Chosen for a stationary market's
# sake: chance alone moves a width by some 3 % (1 bar) to 6 % (24 bars); a wrong width is mended in two to six months of H1.
RATE = 0.004
NARROWEST, WIDEST = log(2 / 3), log(2.0)  # of the model's own width
PAIRS = ((0, 6), (1, 5), (2, 4))  # of QUANTILE_LEVELS, the outermost first; the median between them stays
MEDIAN = 3
_LEVELS = tuple(map(str, QUANTILE_LEVELS))
SHARES = tuple(QUANTILE_LEVELS[low] + 1.0 - QUANTILE_LEVELS[high] for low, high in PAIRS)  # expected outside


def rate_of(horizon: int) -> float:
    """Steps for labels of `horizon` bars, one of which starts at every bar: neighbours say nearly the same."""
    return RATE / sqrt(horizon)


class WidthTracker:
    """The log widths of one series and horizon. Fed with outcomes in the order in which they became known."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.log_width = [0.0] * len(PAIRS)

    def learn(self, quantiles: Sequence[float], actual: float) -> None:
        """One outcome beside the model's own `quantiles` [7], as they were before any adaption; NaN teaches nothing."""
        if not isfinite(actual) or not all(map(isfinite, quantiles)):
            return
        widened = self.adapt(quantiles)
        for k, (low, high) in enumerate(PAIRS):
            outside = not widened[low] <= actual <= widened[high]
            moved = self.log_width[k] + self.rate * (outside - SHARES[k])
            self.log_width[k] = min(max(moved, NARROWEST), WIDEST)

    def adapt(self, quantiles: Sequence[float]) -> list[float]:
        """The model's quantiles [7], ascending, with the widths of now; ascending, the median unchanged."""
        found = list(quantiles)
        if not any(self.log_width):  # nothing learned: not even the last digit moves
            return found
        middle = inner_low = inner_high = found[MEDIAN]
        for k in reversed(range(len(PAIRS))):  # from within, so that no interval ends inside a narrower one
            low, high = PAIRS[k]
            width = exp(self.log_width[k])
            inner_low = found[low] = min(middle + width * (quantiles[low] - middle), inner_low)
            inner_high = found[high] = max(middle + width * (quantiles[high] - middle), inner_high)
        return found


def adaptive_quantiles(
    quantiles: np.ndarray,
    actual: np.ndarray,
    symbol: np.ndarray,
    time: np.ndarray,
    label_end: np.ndarray,
    horizon: int,
) -> np.ndarray:
    """Quantiles [n, 7] of one horizon, each row adapted by what was known at its own close -> [n, 7].

    actual [n]: what happened, NaN unknown; symbol int [n]: one tracker each; time, label_end datetime64 [n]: the row's
    as-of close and when its outcome is known. Rows in any order; an outcome counts where label_end <= time.
    """
    own, happened = quantiles.tolist(), actual.tolist()  # plain numbers: one at a time, they are five times as fast
    adapted = np.empty(quantiles.shape)
    for s in np.unique(symbol):
        rows = np.flatnonzero(symbol == s)
        asked = rows[np.argsort(time[rows], kind="stable")]
        known = rows[np.lexsort((time[rows], label_end[rows]))]
        tracker, next_known = WidthTracker(rate_of(horizon)), 0
        for row in asked:
            while next_known < len(known) and label_end[known[next_known]] <= time[row]:
                teacher = known[next_known]
                tracker.learn(own[teacher], happened[teacher])
                next_known += 1
            adapted[row] = tracker.adapt(own[row])
    return adapted


def in_levels(quantiles: Mapping[str, float] | None) -> list[float] | None:
    """Quantiles keyed by level ("0.05" or "0.050") in the order of QUANTILE_LEVELS; None unless all seven are there."""
    written = [(quantiles or {}).get(level) for level in _LEVELS]  # as we write them ourselves: a ledger has many
    if quantiles is not None and len(quantiles) == len(_LEVELS) and None not in written:
        return written  # type: ignore[return-value]
    found = {float(level): value for level, value in (quantiles or {}).items() if value is not None}
    return [found[level] for level in QUANTILE_LEVELS] if set(found) == set(QUANTILE_LEVELS) else None
