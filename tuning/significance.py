"""Is a loss difference real? HAC tests on the panel's mean loss difference. Knows losses and times, no models.

Multi-bar targets overlap and volatility clusters, so neighbouring loss differences are dependent and an iid test finds
skill in noise. Symbols share shocks, so they are averaged per timestamp first and count as one series.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np


@dataclass(frozen=True)
class LossTest:
    """Mean loss difference (negative: the candidate is better), its HAC t, timestamps used and the lag. NaN t: not testable."""

    mean: float
    t: float
    n: int
    lag: int


def panel_mean(losses: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of all symbols -> (unique times [m], mean over symbols at each [m]). Rows with NaN are left out."""
    usable = np.isfinite(losses)
    times, at = np.unique(time[usable], return_inverse=True)
    return times, np.bincount(at, weights=losses[usable]) / np.maximum(np.bincount(at), 1)


def bandwidth(n: int, horizon: int) -> int:
    """Bartlett lag: at least twice the label overlap, and at least 1.3 sqrt(n), which keeps the test's size right for
    persistent differences (Lazarus, Lewis, Stock & Watson 2018, JBES 36)."""
    return max(2 * horizon, ceil(1.3 * sqrt(n)))


def long_run_variance(series: np.ndarray, lag: int) -> float:
    """Newey & West (1987) variance of sqrt(n) * mean: Bartlett weights 1 - k / (lag + 1). Never negative."""
    centred = series - series.mean()
    n = len(centred)
    total = float(centred @ centred) / n
    for k in range(1, min(lag, n - 1) + 1):
        total += 2.0 * (1.0 - k / (lag + 1.0)) * float(centred[k:] @ centred[:-k]) / n
    return max(total, 0.0)


def hac_test(differences: np.ndarray, horizon: int) -> LossTest:
    """t of the mean of one series of loss differences [n], ordered in time, with labels `horizon` bars long.

    Diebold & Mariano (1995) with a Bartlett kernel. A wide kernel's t has fatter tails than the normal: it is scaled by
    1.96 / cv(b), b = lag / n, with the critical value of Kiefer & Vogelsang (2005, Econometric Theory 21, table 1), so
    that the usual limit of 2 keeps its meaning in short samples.
    """
    n = len(differences)
    lag = bandwidth(n, horizon)
    mean = float(np.mean(differences)) if n else float("nan")
    if n < 4 * horizon or lag > n / 2 or n < 30:
        return LossTest(mean, float("nan"), n, lag)
    variance = long_run_variance(np.asarray(differences, float), lag)
    scale = float(np.abs(differences).max())
    if variance <= (1e-12 * scale) ** 2:  # identical forecasts, or a constant gap: nothing to test
        return LossTest(mean, 0.0 if mean == 0.0 else float("nan"), n, lag)
    return LossTest(mean, mean / sqrt(variance / n) * 1.96 / _critical_value(lag / n), n, lag)


def _critical_value(b: float) -> float:
    return 1.96 + 2.9694 * b + 0.4160 * b**2 - 0.5324 * b**3


def panel_test(candidate: np.ndarray, baseline: np.ndarray, time: np.ndarray, horizon: int) -> LossTest:
    """Test of candidate minus baseline losses, rows [n] of any number of symbols at `time` [n]."""
    _, differences = panel_mean(candidate - baseline, time)
    return hac_test(differences, horizon)
