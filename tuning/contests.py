"""Who competes with whom: per target, the candidate's losses beside those of every baseline and every other family.

Reads out-of-fold forecasts, averages nothing and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuning.learners.baseline import BASELINES
from tuning.metrics import log_loss, pinball, qlike
from tuning.out_of_fold import OutOfFold

STACK = "stack"
# Families a candidate is measured against; learners are not baselines.
ECONOMETRIC = BASELINES
# Combining forecasts helps by itself: learners must add to what the econometric families say together, in equal weights
# or stacked. These guard the gate and are never the named baseline.
EQUAL_WEIGHTS = "econometric_mean"
ECONOMETRIC_STACK = "econometric_stack"
GUARDS = (EQUAL_WEIGHTS, ECONOMETRIC_STACK)
# What serves while nothing better is known.
FLOOR = ("unconditional", "har_how")


@dataclass(frozen=True)
class Contest:
    """A target's rows, pooled over symbols: losses [n] of the candidate, its baselines and all other families."""

    target: str
    kind: str  # rv | r | sign
    horizon: int
    metric: str
    name: str  # the candidate's
    candidate: np.ndarray
    forecast: np.ndarray  # the candidate's own forecast, [n] or [n, levels]
    baselines: dict[str, np.ndarray]
    families: dict[str, np.ndarray]
    actual: np.ndarray


def contests(oof: OutOfFold, candidate: str = STACK, against: Sequence[str] = (*ECONOMETRIC, *GUARDS)) -> list[Contest]:
    """All targets on which the candidate and at least one baseline of `against` forecast, the longest horizon first.

    Direction is always measured against the base rate and a coin.
    """
    found = []
    for h in sorted(oof.horizons, reverse=True):
        found += [_volatility(oof, h, candidate, against), _quantiles(oof, h, candidate, against)]
        found.append(_direction(oof, h, candidate))
    return [c for c in found if c is not None]


def losses_by_target(oof: OutOfFold, candidate: str = STACK) -> dict[str, np.ndarray]:
    """Per-row losses of the candidate, kept beside the model so that a later challenger can be compared. target -> [n]"""
    return {c.target: c.candidate for c in contests(oof, candidate)}


def _volatility(oof: OutOfFold, h: int, candidate: str, against: Sequence[str]) -> Contest | None:
    log_rv = {name: f.log_rv[h] for name, f in oof.families.items() if h in f.log_rv}
    econometric = [log_rv[name] for name in ECONOMETRIC if name in log_rv]
    if len(econometric) > 1:
        log_rv[EQUAL_WEIGHTS] = np.mean(econometric, axis=0)
    if candidate not in log_rv:
        return None
    loss = {name: qlike(oof.rv[h], np.exp(values)) for name, values in log_rv.items()}
    return _contest(f"rv{h}", "rv", h, "qlike", candidate, log_rv[candidate], loss, against, oof.rv[h])


def _quantiles(oof: OutOfFold, h: int, candidate: str, against: Sequence[str]) -> Contest | None:
    quantiles = {name: by_horizon[h] for name, by_horizon in oof.quantiles.items() if h in by_horizon}
    if candidate not in quantiles:
        return None
    loss = {name: pinball(oof.ret[h], values) for name, values in quantiles.items()}
    return _contest(f"r{h}", "r", h, "pinball", candidate, quantiles[candidate], loss, against, oof.ret[h])


def _direction(oof: OutOfFold, h: int, candidate: str) -> Contest | None:
    p_up = {name: f.p_up[h] for name, f in oof.families.items() if h in f.p_up and name not in GUARDS}
    if candidate not in p_up or h not in oof.base_rate:
        return None
    p_up |= {"base_rate": oof.base_rate[h], "coin": np.full(len(oof), 0.5)}
    up = np.where(np.isfinite(oof.ret[h]), oof.ret[h] > 0, np.nan)
    loss = {name: log_loss(up, p) for name, p in p_up.items()}
    return _contest(f"sign{h}", "sign", h, "log_loss", candidate, p_up[candidate], loss, ("base_rate", "coin"), up)


def _contest(
    target: str,
    kind: str,
    h: int,
    metric: str,
    candidate: str,
    forecast: np.ndarray,
    loss: dict[str, np.ndarray],
    against: Sequence[str],
    actual: np.ndarray,
) -> Contest | None:
    rest = {name: values for name, values in loss.items() if name != candidate}
    baselines = {name: values for name, values in rest.items() if name in against}
    if not set(baselines) - set(GUARDS):
        return None
    return Contest(target, kind, h, metric, candidate, loss[candidate], forecast, baselines, rest, actual)
