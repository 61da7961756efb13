"""Is a Sharpe ratio more than the best of many tries? Knows return series and counts of trials, no forecasts.

All ratios are per period, not annualised. Bailey & Lopez de Prado (2014), The Deflated Sharpe Ratio, J. Portfolio
Management 40(5); Mertens (2002) for the standard error under skew and fat tails.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import e, sqrt

import numpy as np

from tuning.significance import bandwidth, long_run_variance

EULER_MASCHERONI = 0.5772156649015329


@dataclass(frozen=True)
class Sharpe:
    """`ratio`: mean / long-run standard deviation, NaN where nothing moves; moments of the `n` single periods."""

    ratio: float
    n: int
    skew: float
    kurtosis: float


def sharpe(returns: np.ndarray, horizon: int) -> Sharpe:
    """Of one return series [n], ordered in time, whose bets are held for `horizon` periods.

    The standard deviation is the long-run one (Newey & West 1987): bets that overlap are no independent winnings, and
    the usual one would overstate the ratio by about sqrt(horizon). The larger of the two counts.
    """
    n = len(returns)
    centred = returns - returns.mean() if n else returns
    variance = float(centred @ centred) / n if n else 0.0
    if n < 30 or variance <= 0.0:
        return Sharpe(float("nan"), n, float("nan"), float("nan"))
    deviation = sqrt(max(variance, long_run_variance(returns, bandwidth(n, horizon))))
    skew, kurtosis = (float(np.mean(centred**k)) / variance ** (k / 2) for k in (3, 4))
    return Sharpe(float(returns.mean()) / deviation, n, skew, kurtosis)


def expected_best(trials: int, variance: float) -> float:
    """Ratio that the best of `trials` is expected to show when all are worthless and differ by `variance`; 0 for one."""
    from scipy.stats import norm

    if trials < 2 or not variance > 0:
        return 0.0
    best = (1 - EULER_MASCHERONI) * norm.ppf(1 - 1 / trials) + EULER_MASCHERONI * norm.ppf(1 - 1 / (trials * e))
    return sqrt(variance) * float(best)


def probabilistic(found: Sharpe, limit: float) -> float:
    """P(true ratio > limit). NaN where the ratio is unknown."""
    from scipy.stats import norm

    spread = 1 - found.skew * found.ratio + (found.kurtosis - 1) / 4 * found.ratio**2
    if not np.isfinite(found.ratio) or spread <= 0:
        return float("nan")
    return float(norm.cdf((found.ratio - limit) * sqrt(found.n - 1) / sqrt(spread)))


def deflated(found: Sharpe, trials: int, variance: float) -> float:
    """P(true ratio > what the best of `trials` worthless ones would show); `variance` of the ratios over the trials."""
    return probabilistic(found, expected_best(trials, variance))
