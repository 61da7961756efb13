"""Return quantiles from a volatility forecast: quantile of r = sigma * z, with z taken from past standardised returns.

Split conformal prediction on r / sigma (Romano et al. 2019, locally scaled): the z-quantiles are order statistics of
earlier out-of-sample errors, so coverage holds whatever the distribution is. Knows no model and no folds.
"""

from __future__ import annotations

import numpy as np

from market.forecasts import QUANTILE_LEVELS

LEVELS = np.array(QUANTILE_LEVELS)
SYMBOL_PRIOR = 100.0  # non-overlapping observations that the pooled quantiles count as, beside a symbol's own


def standardised(ret: np.ndarray, log_rv: np.ndarray) -> np.ndarray:
    """z = r / sigma. [n]"""
    return ret * np.exp(-0.5 * log_rv)


def empirical_quantiles(z: np.ndarray, horizon: int, *, symmetric: bool = False) -> np.ndarray:
    """Conformal quantiles of the finite values of z at QUANTILE_LEVELS, ascending. [7]; NaN when there are none.

    Tails are taken at ceil((n + 1) p) / n of the order statistics, n counted in non-overlapping labels: few labels
    give wider intervals. `symmetric` pools z with -z: median 0, no drift carried forward.
    """
    known = z[np.isfinite(z)]
    if len(known) == 0:
        return np.full(len(LEVELS), np.nan)
    if symmetric:
        known = np.concatenate([known, -known])
    n = max(len(known) / horizon, 1.0)
    outward = np.clip(0.5 + (LEVELS - 0.5) * (n + 1.0) / n, 0.0, 1.0)
    return np.sort(np.quantile(known, outward))


def quantiles_by_symbol(
    z: np.ndarray,
    symbol: np.ndarray,
    symbols: int,
    horizon: int,
    *,
    symmetric: bool = True,
    prior: float = SYMBOL_PRIOR,
) -> np.ndarray:
    """Per symbol z-quantiles, shrunk to the pooled ones by sample size. [symbols, 7]"""
    pooled = empirical_quantiles(z, horizon, symmetric=symmetric)
    out = np.tile(pooled, (symbols, 1))
    for s in range(symbols):
        own = z[symbol == s]
        n = np.isfinite(own).sum() / horizon
        if n >= 1:
            weight = n / (n + prior)
            out[s] = weight * empirical_quantiles(own, horizon, symmetric=symmetric) + (1 - weight) * pooled
    return np.sort(out, axis=1)


def scale_quantiles(z_quantiles: np.ndarray, log_rv: np.ndarray) -> np.ndarray:
    """sigma * z. z_quantiles [7] or [n, 7], log_rv [n] -> [n, 7], ascending in each row."""
    return np.exp(0.5 * log_rv)[:, None] * z_quantiles
