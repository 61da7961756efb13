"""The stack, fold by fold: weights and z-quantiles for a fold come only from what was known before its first test row.

Evidence is the out-of-fold forecasts of earlier folds, purged where their labels reach into the fold; the training part
tells how to weigh the econometric families, which have too few parameters to flatter themselves. Fits no learner.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuning.adaptive_calibration import adaptive_quantiles
from tuning.calibration import quantiles_by_symbol, scale_quantiles, standardised
from tuning.learners.baseline import BASELINES
from tuning.metrics import log_loss
from tuning.out_of_fold import FamilyForecasts, OutOfFold
from tuning.significance import panel_test
from tuning.splits import LOCKBOX
from tuning.stacking import combine, fit_direction_weights, fit_volatility_weights, logit, sigmoid

BASELINE = "har_how"
ECONOMETRIC = ("har_range", "ewma_how", "unconditional_how")  # what joins the baseline in the stack
# The stack, and what it would be without learners: the gate asks whether they add anything.
STACKS = ("stack", "econometric_stack")
EVIDENCE_T = -2.0  # HAC t of the direction stack on earlier folds; weaker evidence is none


@dataclass(frozen=True)
class TrainingPart:
    """One fold's training rows: symbol [m], ret[h], rv[h] and log_rv[family][h], in-sample, float [m]."""

    symbol: np.ndarray
    ret: dict[int, np.ndarray]
    rv: dict[int, np.ndarray]
    log_rv: dict[str, dict[int, np.ndarray]]


def volatility_families(out: OutOfFold, h: int) -> tuple[str, ...]:
    """Families that join the baseline in the volatility stack: econometric ones first, then learners."""
    learners = (f for f, made in out.families.items() if f not in (*BASELINES, *STACKS) and h in made.log_rv)
    return (*ECONOMETRIC, *learners)


def direction_families(out: OutOfFold, h: int) -> tuple[str, ...]:
    return tuple(f for f, made in out.families.items() if f not in STACKS and h in made.p_up)


def volatility_weights(out: OutOfFold, h: int, evidence: np.ndarray, training: TrainingPart) -> dict[str, float]:
    """Weights by family from the rows `evidence` (bool [n]), shrunk to those the training part gives; rest: BASELINE."""
    families = volatility_families(out, h)
    prior = np.zeros(len(families))
    inside = np.stack([training.log_rv[f][h] for f in ECONOMETRIC], axis=1)
    prior[: len(ECONOMETRIC)] = fit_volatility_weights(training.rv[h], training.log_rv[BASELINE][h], inside, h)
    outside = np.stack([out.families[f].log_rv[h][evidence] for f in families], axis=1)
    baseline = out.families[BASELINE].log_rv[h][evidence]
    w = fit_volatility_weights(out.rv[h][evidence], baseline, outside, h, centre=prior)
    return _named(families, w, BASELINE)


def direction_weights(out: OutOfFold, h: int, evidence: np.ndarray) -> dict[str, float]:
    """Weights by family; the rest is the base rate's. {"base_rate": 1.0} without learners or without evidence beyond luck.

    On most horizons there is nothing to find: weights that luck has given would only cost.
    """
    families = direction_families(out, h)
    if not families or not evidence.any():
        return {"base_rate": 1.0}
    p_up = np.stack([out.families[f].p_up[h][evidence] for f in families], axis=1)
    up, base = out.ret[h][evidence] > 0, out.base_rate[h][evidence]
    weights = _named(families, fit_direction_weights(up, base, p_up, h), "base_rate")
    stacked = stacked_p_up({f: p_up[:, k] for k, f in enumerate(families)}, base, weights)
    test = panel_test(log_loss(up, stacked), log_loss(up, base), out.time[evidence], h)
    return weights if test.t <= EVIDENCE_T else {"base_rate": 1.0}


def _named(families: tuple[str, ...], weights: np.ndarray, rest: str) -> dict[str, float]:
    named = {f: float(w) for f, w in zip(families, weights, strict=True) if w > 0}
    left = 1.0 - sum(named.values())
    return named | ({rest: left} if left > 1e-9 or not named else {})


def stacked_log_rv(log_rv: dict[str, np.ndarray], weights: dict[str, float]) -> np.ndarray:
    """Weighted mean of log variances; a family's NaN counts as the baseline. log_rv[family] [n] -> [n]"""
    others = sorted(f for f in weights if f != BASELINE)  # one order, so that a loaded model adds alike
    baseline = log_rv[BASELINE]
    if not others:
        return baseline
    return combine(baseline, np.stack([log_rv[f] for f in others], axis=-1), np.array([weights[f] for f in others]))


def stacked_p_up(p_up: dict[str, np.ndarray], base_rate: np.ndarray, weights: dict[str, float]) -> np.ndarray:
    """Weighted mean of logits, the base rate taking what is left. [n]"""
    others = sorted(f for f in weights if f != "base_rate")
    if not others:
        return base_rate
    candidates = logit(np.stack([p_up[f] for f in others], axis=-1))
    return sigmoid(combine(logit(base_rate), candidates, np.array([weights[f] for f in others])))


def add_stack(out: OutOfFold, label_end: np.ndarray, training: dict[int, TrainingPart], name: str = "stack") -> None:
    """Fill families[name], quantiles[name] and stack_weights of `out` from the families there are so far.

    label_end: datetime64 [n], when each row's longest label is known. training: by fold number.
    """
    stack = FamilyForecasts(
        log_rv={h: np.full(len(out), np.nan) for h in out.horizons},
        p_up={h: np.full(len(out), np.nan) for h in out.horizons},
    )
    quantiles = {h: np.full((len(out), 7), np.nan) for h in out.horizons}
    for number, part in training.items():
        rows = out.fold == number
        if not rows.any():
            continue  # no symbol could be fitted in this fold
        evidence = known_before(out, label_end, number)
        for h in out.horizons:
            weights = volatility_weights(out, h, evidence, part)
            stack.log_rv[h][rows] = stacked_log_rv(
                {f: out.families[f].log_rv[h][rows] for f in (*weights, BASELINE)}, weights
            )
            z = z_quantiles(out, stack.log_rv[h], h, evidence, part, weights)
            quantiles[h][rows] = scale_quantiles(z[out.symbol[rows]], stack.log_rv[h][rows])
            odds = direction_weights(out, h, evidence)
            p_up = {f: out.families[f].p_up[h][rows] for f in odds if f != "base_rate"}
            stack.p_up[h][rows] = stacked_p_up(p_up, out.base_rate[h][rows], odds)
            key = "" if name == "stack" else f"{name}/"
            for target, made in ((f"{key}rv{h}", weights), (f"{key}sign{h}", odds)):
                out.stack_weights[target] = made
                out.fold_weights.setdefault(target, {})[number] = made
    out.families[name] = stack
    out.quantiles[name] = {
        h: adaptive_quantiles(q, out.ret[h], out.symbol, out.time, label_end, h) for h, q in quantiles.items()
    }


def known_before(out: OutOfFold, label_end: np.ndarray, fold: int) -> np.ndarray:
    """Rows of other folds whose labels end before the first test row of `fold`, none of the lockbox. bool [n]"""
    first = out.time[out.fold == fold].min()
    return (out.fold != LOCKBOX) & (label_end < first)


def z_quantiles(
    out: OutOfFold, log_rv: np.ndarray, h: int, evidence: np.ndarray, part: TrainingPart, weights: dict[str, float]
) -> np.ndarray:
    """Quantiles of r / sigma per symbol, [symbols, 7]: the training part under the econometric weights, and the
    out-of-fold rows known so far under the stack's own forecasts `log_rv` [n]."""
    econometric = {f: w for f, w in weights.items() if f in part.log_rv}
    econometric[BASELINE] = 1.0 - sum(w for f, w in econometric.items() if f != BASELINE)
    inside = stacked_log_rv({f: part.log_rv[f][h] for f in (*econometric, BASELINE)}, econometric)
    z = np.concatenate([standardised(part.ret[h], inside), standardised(out.ret[h][evidence], log_rv[evidence])])
    owner = np.concatenate([part.symbol, out.symbol[evidence]])
    return quantiles_by_symbol(z, owner, len(out.symbols), h)
