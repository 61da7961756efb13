"""Losses and scores, one signature for all losses: `metric(actual, forecast) -> loss of each row` [n]; lower is better.

Averages, tests and verdicts are made elsewhere (significance.py, promotion.py). NaN in, NaN out: no row is dropped here.
"""

from __future__ import annotations

import numpy as np

from market.forecasts import QUANTILE_LEVELS

# A variance below this is a quote that did not move: (0.01 bp)^2. It keeps log() finite; since the actual's own log
# cancels in every loss difference, no comparison depends on it.
VARIANCE_FLOOR = 1e-12
# A probability of exactly 0 or 1 would cost an infinite loss; 1e-6 costs 13.8 nats.
PROBABILITY_FLOOR = 1e-6


def qlike(actual: np.ndarray, forecast: np.ndarray) -> np.ndarray:
    """Quasi-likelihood loss of a variance forecast, rv/f - log(rv/f) - 1, both sides floored at VARIANCE_FLOOR. [n]

    Robust to noise in the realised variance used as a proxy (Patton 2011, J. Econometrics 160).
    """
    ratio = np.maximum(actual, VARIANCE_FLOOR) / np.maximum(forecast, VARIANCE_FLOOR)
    return ratio - np.log(ratio) - 1.0


def squared_log(actual: np.ndarray, forecast: np.ndarray) -> np.ndarray:
    """Squared error of the log variance. [n]"""
    floored = np.maximum(forecast, VARIANCE_FLOOR)
    return (np.log(np.maximum(actual, VARIANCE_FLOOR)) - np.log(floored)) ** 2


def pinball(actual: np.ndarray, forecast: np.ndarray, levels: tuple[float, ...] = QUANTILE_LEVELS) -> np.ndarray:
    """Mean pinball loss over `levels` (Koenker & Bassett 1978); forecast [n, levels] in the units of actual [n]. [n]"""
    if forecast.ndim != 2 or forecast.shape[1] != len(levels):
        raise ValueError(f"quantile forecasts have shape {forecast.shape}; {len(levels)} levels are expected")
    error = actual[:, None] - forecast
    tau = np.asarray(levels)
    return np.maximum(tau * error, (tau - 1.0) * error).mean(axis=1)


def log_loss(actual: np.ndarray, forecast: np.ndarray) -> np.ndarray:
    """Negative log-likelihood (nats) of ups `actual` in {0, 1} under probabilities `forecast`. [n]"""
    p = np.clip(forecast, PROBABILITY_FLOOR, 1.0 - PROBABILITY_FLOOR)
    return -(actual * np.log(p) + (1.0 - actual) * np.log1p(-p))


def auc(actual: np.ndarray, forecast: np.ndarray) -> float:
    """Area under the ROC curve: P(score of an up > score of a down), ties count half. NaN when a class is absent."""
    from scipy.stats import rankdata

    usable = np.isfinite(forecast) & np.isfinite(actual)
    up = actual[usable] > 0.5
    ups, downs = int(up.sum()), int((~up).sum())
    if not ups or not downs:
        return float("nan")
    rank_sum = float(rankdata(forecast[usable])[up].sum())
    return (rank_sum - ups * (ups + 1) / 2) / (ups * downs)


def coverage(actual: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """Share of outcomes inside [low, high]; NaN when no row is complete."""
    usable = np.isfinite(actual) & np.isfinite(low) & np.isfinite(high)
    if not usable.any():
        return float("nan")
    return float(((actual >= low) & (actual <= high))[usable].mean())


def central_coverage(actual: np.ndarray, quantiles: np.ndarray, share: float) -> float:
    """Coverage of the central interval that should hold `share` (0.8 or 0.9) of outcomes; quantiles [n, levels]."""
    tail = (1.0 - share) / 2.0
    low = int(np.argmin(np.abs(np.asarray(QUANTILE_LEVELS) - tail)))
    return coverage(actual, quantiles[:, low], quantiles[:, len(QUANTILE_LEVELS) - 1 - low])
