"""Weights that combine families' forecasts: non-negative, sum at most one, shrunk towards the baseline.

What is left to one is the baseline's weight, so "no evidence" means "the baseline", and nothing can be extrapolated.
Volatility weights minimise QLIKE on log variances, direction weights log-loss on logits. Knows no folds, no models.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SHRINKAGE = 4.0  # ridge = SHRINKAGE / number of non-overlapping labels
SMALLEST_WEIGHT = 0.02  # less is dropped, so that the family need not be fitted and served at all


def fit_volatility_weights(
    rv: np.ndarray, baseline: np.ndarray, candidates: np.ndarray, horizon: int, centre: np.ndarray | None = None
) -> np.ndarray:
    """Weights w of log f = baseline + sum_j w_j (candidates_j - baseline), minimising QLIKE. [k]

    rv [n] >= 0, baseline [n] and candidates [n, k] log variances; a NaN candidate counts as the baseline. `centre` [k]:
    where the ridge pulls to (default: the baseline, 0).
    """
    known = np.isfinite(rv) & np.isfinite(baseline)
    ratio = rv[known] * np.exp(-baseline[known])  # rv / f of the baseline
    excess = _excess(candidates[known], baseline[known])

    def slopes(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        surprise = np.minimum(ratio * np.exp(-(excess @ w)), 20.0)
        return 1.0 - surprise, surprise

    return _fit(excess, slopes, horizon, centre)


def fit_direction_weights(up: np.ndarray, base_rate: np.ndarray, p_up: np.ndarray, horizon: int) -> np.ndarray:
    """Weights on logits relative to the base rate's, minimising log-loss. up bool [n], base_rate [n], p_up [n, k] -> [k]"""
    known = np.isfinite(base_rate)
    offset = logit(base_rate[known])
    excess = _excess(logit(p_up[known]), offset)

    def slopes(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        p = sigmoid(offset + excess @ w)
        return p - up[known], p * (1.0 - p)

    return _fit(excess, slopes, horizon, None)


def combine(baseline: np.ndarray, candidates: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """baseline + sum_j w_j (candidates_j - baseline), NaN candidates counting as the baseline. [...], [..., k] -> [...]"""
    return baseline + _excess(candidates, baseline) @ weights


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(p) - np.log1p(-p)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def _excess(candidates: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    difference = candidates - baseline[..., None]
    return np.where(np.isfinite(difference), difference, 0.0)


def _fit(
    excess: np.ndarray,
    slopes: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    horizon: int,
    centre: np.ndarray | None,
) -> np.ndarray:
    """Projected Newton steps: `slopes(w)` gives the first and second derivative of each row's loss by its score."""
    n, k = excess.shape
    target = np.zeros(k) if centre is None else centre
    if n == 0:
        return target.copy()
    ridge = SHRINKAGE * horizon / n
    w = target.copy()
    for _ in range(12):
        first, second = slopes(w)
        gradient = excess.T @ first / n + ridge * (w - target)
        hessian = (excess * second[:, None]).T @ excess / n + ridge * np.eye(k)
        new = _quadratic_step(w, gradient, hessian)
        if np.abs(new - w).max() < 1e-5:
            break
        w = new
    w = np.where(w < SMALLEST_WEIGHT, 0.0, w)
    return w


def _quadratic_step(w: np.ndarray, gradient: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Minimise the local quadratic over {w >= 0, sum w <= 1} by projected gradient. [k]"""
    rate = 1.0 / np.linalg.eigvalsh(hessian)[-1]
    new = w
    for _ in range(300):
        step = project(new - rate * (gradient + hessian @ (new - w)))
        if np.abs(step - new).max() < 1e-7:
            return step
        new = step
    return new


def project(w: np.ndarray) -> np.ndarray:
    """Nearest point with w >= 0 and sum w <= 1 (Duchi et al. 2008). [k]"""
    clipped = np.maximum(w, 0.0)
    if clipped.sum() <= 1.0:
        return clipped
    ordered = np.sort(w)[::-1]
    excess = np.cumsum(ordered) - 1.0
    last = np.flatnonzero(ordered - excess / np.arange(1, len(w) + 1) > 0)[-1]
    return np.maximum(w - excess[last] / (last + 1), 0.0)
