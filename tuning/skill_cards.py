"""The skill that travels with a model: for each target, how good what is really served was, out of sample.

Where the stack passed the gate it is the stack's skill, else that of the forecast that serves instead. Judges nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np

from market.forecasts import SkillCard
from tuning.contests import ECONOMETRIC_STACK, STACK, Contest, contests
from tuning.out_of_fold import OutOfFold
from tuning.promotion import GateResult, TargetResult, skill_of
from tuning.significance import panel_test

BASELINE = "har_how"
YARDSTICKS = {"rv": "unconditional", "r": "unconditional"}  # what HAR + hour-of-week is measured against when it serves


def served_families(gate: GateResult, floor: GateResult) -> dict[str, str]:
    """Target -> the family that forecasts it: stack, econometric_stack, har_how or base_rate."""
    served = {}
    for target in dict.fromkeys([*gate.targets, *floor.targets]):
        if target in gate.serves:
            served[target] = STACK
        elif target.startswith("sign"):
            served[target] = "base_rate"
        else:
            served[target] = ECONOMETRIC_STACK if floor.passed.get(target) else BASELINE
    return served


def skill_cards(oof: OutOfFold, gate: GateResult, floor: GateResult) -> tuple[SkillCard, ...]:
    """One card per target, and the AUC beside each direction that is served."""
    cards: list[SkillCard] = []
    for target, family in served_families(gate, floor).items():
        result = gate.targets.get(target) or floor.targets[target]
        if family == STACK:
            cards += _judged(oof, result, "")
        elif family == ECONOMETRIC_STACK:
            cards += _judged(oof, floor.targets[target], "The stack of econometric families serves.")
        elif family == "base_rate":
            cards.append(_base_rate(oof, result))
        else:
            cards += _baseline(oof, target, result.why)
    return tuple(cards)


def _judged(oof: OutOfFold, result: TargetResult, reason: str) -> list[SkillCard]:
    period = _period(oof)
    card = SkillCard(
        target=result.target,
        metric=result.metric,
        baseline=result.baseline,
        value=_known(result.skill),
        t_statistic=_known(result.t),
        n=result.n,
        passed_gate=True,
        reason=reason,
        **period,
    )
    if result.metric != "log_loss":
        return [card]
    return [card, _auc(result, period)]


def _auc(result: TargetResult, period: dict[str, Any]) -> SkillCard:
    value = result.figures.get("auc")
    return SkillCard(result.target, "auc", "coin", value, None, result.n, passed_gate=True, **period)


def _base_rate(oof: OutOfFold, result: TargetResult) -> SkillCard:
    reason = f"No edge found: the base rate is served. {result.why}"
    return SkillCard(result.target, "log_loss", "base_rate", 0.0, None, result.n, reason=reason, **_period(oof))


def _baseline(oof: OutOfFold, target: str, why: str) -> list[SkillCard]:
    """HAR + hour-of-week itself, against the unconditional forecast."""
    found = [c for c in contests(oof, BASELINE, tuple(YARDSTICKS.values())) if c.target == target]
    return [_compared(oof, contest, why) for contest in found]


def _compared(oof: OutOfFold, contest: Contest, why: str) -> SkillCard:
    name = YARDSTICKS[contest.kind]
    limit = contest.baselines[name]
    rows = (oof.fold >= 0) & np.isfinite(contest.candidate) & np.isfinite(limit)
    test = panel_test(contest.candidate[rows], limit[rows], oof.time[rows], contest.horizon)
    skill = skill_of(float(contest.candidate[rows].mean()), float(limit[rows].mean())) if rows.any() else float("nan")
    reason = f"HAR + hour-of-week serves. {why}".strip()
    return SkillCard(
        contest.target,
        contest.metric,
        name,
        _known(skill),
        _known(test.t),
        int(rows.sum()),
        reason=reason,
        **_period(oof),
    )


def _period(oof: OutOfFold) -> dict[str, Any]:
    tested = oof.time[oof.fold >= 0]
    return {"period_from": _moment(tested.min()), "period_to": _moment(tested.max())}


def _moment(value: np.datetime64) -> datetime:
    return value.astype("datetime64[us]").item().replace(tzinfo=UTC)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
