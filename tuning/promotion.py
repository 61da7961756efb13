"""The gate: what a candidate must show, out of sample, before its forecasts replace the econometric ones.

    volatility  rv{h}    QLIKE against every econometric family, against their combinations, and the champion
    quantiles   r{h}     pinball against unconditional history and the HAR-scaled quantiles, and the champion
    direction   sign{h}  log-loss against the base rate and a coin, with and without rollover hours, net of spread

Each condition is recorded with its figure and its limit; a condition that cannot be tested is not met. Fits nothing and
stores nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil
from typing import Any

import numpy as np

from market.forecasts import jsonable
from tuning.contests import ECONOMETRIC, ECONOMETRIC_STACK, FLOOR, GUARDS, STACK, Contest, contests
from tuning.metrics import auc, central_coverage
from tuning.out_of_fold import OutOfFold
from tuning.significance import LossTest, panel_test
from tuning.splits import LOCKBOX

T_LIMIT = -2.0
# On fewer symbols "better on most of them" says nothing: one lucky market would carry the verdict.
MIN_SYMBOLS = 3
SYMBOL_SHARE = 0.7  # ceil(0.7 * 7) = 5 of 7
MAX_MISSING = 0.001
# Beyond these a figure is more likely a leak than a discovery. They warn; the leak tests decide.
SUSPICIOUS = {"rv": 0.25, "r": 0.08, "sign": 0.58}


@dataclass(frozen=True)
class Condition:
    """One requirement: its figure, its limit, met or not. `value` None: it could not be measured (see `detail`)."""

    name: str
    passed: bool
    value: float | None
    limit: float | None
    detail: str = ""


@dataclass(frozen=True)
class TargetResult:
    """The verdict on one target. `skill` = 1 - loss / baseline_loss; `t` < 0: better than the named baseline."""

    target: str
    metric: str
    baseline: str
    loss: float
    baseline_loss: float
    skill: float
    t: float
    n: int
    timestamps: int
    per_symbol: dict[str, dict[str, Any]]
    promoted: bool
    why: str
    conditions: tuple[Condition, ...]
    family_losses: dict[str, float]
    family_t: dict[str, float]  # t of each family against the named baseline
    figures: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        fields = asdict(self)
        figures = fields.pop("figures")
        return jsonable({k: v for k, v in fields.items() if k != "target"} | figures)


@dataclass(frozen=True)
class GateResult:
    """Verdicts by target. `primary`: rv and r at the longest horizon.

    A bundle is promoted when a primary target passed, or any direction: an edge in direction that passed must be served,
    whatever volatility does. rv and r at shorter horizons are served with a promoted bundle and do not carry one.
    """

    targets: dict[str, TargetResult]
    primary: tuple[str, ...]

    @property
    def carriers(self) -> tuple[str, ...]:
        """Targets of which one has to pass, primary ones first."""
        directions = (name for name in self.targets if name.startswith("sign"))
        return (*(name for name in self.primary if name in self.targets), *directions)

    @property
    def passed(self) -> dict[str, bool]:
        return {name: result.promoted for name, result in self.targets.items()}

    @property
    def promoted(self) -> bool:
        return any(self.targets[name].promoted for name in self.carriers)

    @property
    def serves(self) -> frozenset[str]:
        """Targets whose stack is served: those that passed, in a bundle that is promoted."""
        return frozenset(name for name, ok in self.passed.items() if ok and self.promoted)

    @property
    def why(self) -> str:
        """The verdicts that carry the bundle; where nothing does, why each carrier failed."""
        chosen = [self.targets[name] for name in self.carriers]
        if not chosen:
            return "Not promoted: no volatility, quantile or direction forecast was made."
        return " ".join(r.why for r in chosen if r.promoted or not self.promoted)

    def to_dict(self) -> dict[str, Any]:
        return {name: result.to_dict() for name, result in self.targets.items()}


def judge(
    out_of_fold: OutOfFold,
    champion_losses: Mapping[str, np.ndarray] | None = None,
    leak_tests: Mapping[str, bool] | None = None,
    candidate: str = STACK,
    against: Sequence[str] = (*ECONOMETRIC, *GUARDS),
) -> GateResult:
    """Every target that has forecasts of `candidate` -> its verdict.

    champion_losses: target -> out-of-sample losses of the serving champion on the same rows [n], NaN where it has none.
    leak_tests: name -> passed; given by whoever holds the bars.
    """
    champion_losses = champion_losses or {}
    results = {}
    for contest in contests(out_of_fold, candidate, against):
        champion = champion_losses.get(contest.target)
        results[contest.target] = _judge_target(out_of_fold, contest, champion, leak_tests or {})
    longest = max(out_of_fold.horizons)
    return GateResult(results, (f"rv{longest}", f"r{longest}"))


def judge_floor(out_of_fold: OutOfFold, leak_tests: Mapping[str, bool] | None = None) -> GateResult:
    """May the stack of econometric families alone serve in place of HAR + hour-of-week, while no learner passes?"""
    candidate = ECONOMETRIC_STACK if ECONOMETRIC_STACK in out_of_fold.families else STACK
    return judge(out_of_fold, None, leak_tests, candidate, FLOOR)


def _judge_target(
    oof: OutOfFold, contest: Contest, champion: np.ndarray | None, leak_tests: Mapping[str, bool]
) -> TargetResult:
    complete = _complete_rows(contest)
    rows = complete & (oof.fold >= 0)
    means = {name: _mean(losses[rows]) for name, losses in contest.baselines.items()}
    baseline = _named_baseline(means)
    tests = {name: _test(oof, contest, losses, rows) for name, losses in contest.baselines.items()}
    loss = _mean(contest.candidate[rows])
    per_symbol = _per_symbol(oof, contest, baseline, rows)
    conditions = [
        *_better_than_baselines(tests),
        *_better_than_champion(oof, contest, champion, rows),
        _better_on_most_symbols(per_symbol),
        _lockbox(oof, contest, baseline, complete),
        *_well_formed(oof, contest),
        *(_rollover_and_spread(oof, contest, rows) if contest.kind == "sign" else []),
        *(Condition(f"leak_test_{name}", ok, None, None) for name, ok in leak_tests.items()),
    ]
    promoted = all(c.passed for c in conditions)
    skill = skill_of(loss, means[baseline])
    figures = _figures(oof, contest, rows, means)
    return TargetResult(
        target=contest.target,
        metric=contest.metric,
        baseline=baseline,
        loss=loss,
        baseline_loss=means[baseline],
        skill=skill,
        t=tests[baseline].t,
        n=int(rows.sum()),
        timestamps=tests[baseline].n,
        per_symbol=per_symbol,
        promoted=promoted,
        why=_why(contest, promoted, skill, tests[baseline], baseline, conditions),
        conditions=tuple(conditions),
        family_losses={contest.name: loss} | {name: _mean(values[rows]) for name, values in contest.families.items()},
        family_t=_family_t(oof, contest, contest.baselines[baseline], rows),
        figures=figures,
        warnings=_warnings(contest, skill, figures),
    )


def _named_baseline(means: Mapping[str, float]) -> str:
    """The best single baseline on these rows."""
    named = {name: loss for name, loss in means.items() if name not in GUARDS}
    return min(named, key=lambda name: named[name] if np.isfinite(named[name]) else np.inf)


def _complete_rows(contest: Contest) -> np.ndarray:
    """Rows on which the candidate and every baseline can be compared. bool [n]"""
    return np.isfinite(contest.candidate) & np.all([np.isfinite(b) for b in contest.baselines.values()], axis=0)


def skill_of(loss: float, baseline_loss: float) -> float:
    """1 - loss / baseline_loss; NaN where the baseline is never wrong, as on a price that does not move."""
    return 1.0 - loss / baseline_loss if baseline_loss > 0 else float("nan")


def _mean(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def _test(oof: OutOfFold, contest: Contest, against: np.ndarray, rows: np.ndarray) -> LossTest:
    return panel_test(contest.candidate[rows], against[rows], oof.time[rows], contest.horizon)


def _family_t(oof: OutOfFold, contest: Contest, baseline: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    losses = {contest.name: contest.candidate} | contest.families
    return {
        name: panel_test(values[rows], baseline[rows], oof.time[rows], contest.horizon).t
        for name, values in losses.items()
    }


def _better_than_baselines(tests: Mapping[str, LossTest]) -> list[Condition]:
    return [
        Condition(f"better_than_{name}", bool(test.t <= T_LIMIT), _figure(test.t), T_LIMIT, _untestable(test))
        for name, test in tests.items()
    ]


def _untestable(test: LossTest) -> str:
    return "" if np.isfinite(test.t) else f"{test.n} timestamps are too few for a HAC test with lag {test.lag}"


def _better_than_champion(
    oof: OutOfFold, contest: Contest, champion: np.ndarray | None, rows: np.ndarray
) -> list[Condition]:
    if champion is None:
        return []
    test = _test(oof, contest, champion, rows & np.isfinite(champion))
    return [Condition("better_than_champion", bool(test.t <= T_LIMIT), _figure(test.t), T_LIMIT, _untestable(test))]


def _better_on_most_symbols(per_symbol: Mapping[str, Mapping[str, Any]]) -> Condition:
    symbols = len(per_symbol)
    better = sum(1 for figures in per_symbol.values() if (figures["skill"] or 0.0) > 0)
    needed = max(ceil(SYMBOL_SHARE * symbols), MIN_SYMBOLS)
    if symbols < MIN_SYMBOLS:
        detail = f"{symbols} symbol(s) are too few to tell skill from luck; at least {MIN_SYMBOLS} are needed"
    else:
        detail = f"better on {better} of {symbols} symbols"
    return Condition("better_on_most_symbols", better >= needed, float(better), float(needed), detail)


def _lockbox(oof: OutOfFold, contest: Contest, baseline: str, complete: np.ndarray) -> Condition:
    rows = complete & (oof.fold == LOCKBOX)
    if not rows.any():
        return Condition("lockbox", False, None, None, "the lockbox holds no rows")
    loss, limit = _mean(contest.candidate[rows]), _mean(contest.baselines[baseline][rows])
    return Condition("lockbox", bool(loss <= limit), loss, limit, f"{int(rows.sum())} rows nobody trained or tuned on")


def _well_formed(oof: OutOfFold, contest: Contest) -> list[Condition]:
    """No NaN where the outcome and the baselines are known, no constant output, quantiles in order."""
    wide = contest.forecast.reshape(len(contest.forecast), -1)
    finite = np.isfinite(wide).all(axis=1)
    due = np.isfinite(contest.actual) & np.all([np.isfinite(b) for b in contest.baselines.values()], axis=0)
    answered = np.isin(oof.fold, np.unique(oof.fold[finite]))  # the first fold may be needed to fit the stack
    missing = _mean((~finite)[due & answered].astype(float))
    conditions = [Condition("no_nan", bool(missing <= MAX_MISSING), _figure(missing), MAX_MISSING)]
    spread = min(
        (float(np.ptp(wide[finite & (oof.symbol == s)], axis=0).max()) for s in np.unique(oof.symbol[finite])),
        default=0.0,
    )
    conditions.append(Condition("not_constant", spread > 0.0, spread, 0.0))
    if contest.kind == "r":
        crossing = _mean((np.diff(wide[finite], axis=1) < 0).any(axis=1).astype(float))
        conditions.append(Condition("monotone_quantiles", crossing == 0.0, _figure(crossing), 0.0))
    return conditions


def _rollover_and_spread(oof: OutOfFold, contest: Contest, rows: np.ndarray) -> list[Condition]:
    outside = rows & ~oof.rollover
    test = _test(oof, contest, contest.baselines["base_rate"], outside)
    trades = net_of_spread(oof, contest, rows)
    net = trades["net_bp"]
    return [
        Condition("better_outside_rollover", bool(test.t <= T_LIMIT), _figure(test.t), T_LIMIT, _untestable(test)),
        Condition("net_of_spread", net is not None and net > 0, net, 0.0, trades.get("net_bp_reason", "")),
    ]


def net_of_spread(oof: OutOfFold, contest: Contest, rows: np.ndarray) -> dict[str, Any]:
    """What the direction forecast would have earned, in basis points of price.

    gross_bp: mean of sign(p - 1/2) * return over all rows. net_bp: mean return net of the round-trip spread over the
    bets whose expected edge, (2p - 1) E|return|, exceeds that spread; null with a reason where that cannot be said.
    """
    ret, lean = oof.ret[contest.horizon], 2.0 * contest.forecast - 1.0
    gross = np.sign(lean) * ret * 1e4
    figures: dict[str, Any] = {"gross_bp": _figure(_mean(gross[rows])), "net_bp": None, "bets": 0}
    known = rows & np.isfinite(oof.spread)
    if not known.any():
        return figures | {"net_bp_reason": "the source has no spread"}
    bets = known & (np.abs(lean) * _expected_move(oof, contest.horizon) > oof.spread)
    if not bets.any():
        return figures | {"net_bp_reason": "no forecast expected more than its spread"}
    return figures | {"net_bp": _mean((gross - oof.spread * 1e4)[bets]), "bets": int(bets.sum())}


def _expected_move(oof: OutOfFold, h: int) -> np.ndarray:
    """E|return| under a normal with the forecast variance, sqrt(2 / pi) * sigma. [n]"""
    for name in (STACK, "har_how", *ECONOMETRIC):
        family = oof.families.get(name)
        if family is not None and h in family.log_rv:
            return np.sqrt(2.0 / np.pi * np.exp(family.log_rv[h]))
    return np.full(len(oof), np.nan)


def _per_symbol(oof: OutOfFold, contest: Contest, baseline: str, rows: np.ndarray) -> dict[str, dict[str, Any]]:
    figures = {}
    for index, symbol in enumerate(oof.symbols):
        own = rows & (oof.symbol == index)
        if not own.any():
            continue
        loss, limit = _mean(contest.candidate[own]), _mean(contest.baselines[baseline][own])
        figures[symbol] = {"loss": loss, "baseline_loss": limit, "skill": skill_of(loss, limit), "n": int(own.sum())}
        figures[symbol] |= _shape_figures(oof, contest, own)
    return figures


def _shape_figures(oof: OutOfFold, contest: Contest, rows: np.ndarray) -> dict[str, Any]:
    if contest.kind == "r":
        actual, quantiles = oof.ret[contest.horizon][rows], contest.forecast[rows]
        return {"cov80": central_coverage(actual, quantiles, 0.8), "cov90": central_coverage(actual, quantiles, 0.9)}
    if contest.kind == "sign":
        return {"auc": _figure(auc(contest.actual[rows], contest.forecast[rows]))}
    return {}


def _figures(oof: OutOfFold, contest: Contest, rows: np.ndarray, means: Mapping[str, float]) -> dict[str, Any]:
    figures: dict[str, Any] = {"baseline_losses": dict(means)} | _shape_figures(oof, contest, rows)
    loss = _mean(contest.candidate[rows])
    if contest.kind == "rv":
        against = contest.families.get("har_how", np.full(len(oof), np.nan))
        figures |= {"qlike": loss, "qlike_har_how": _figure(_mean(against[rows]))}
        figures["t_har_how"] = _figure(_test(oof, contest, against, rows).t)
    elif contest.kind == "r":
        window = means.get("unconditional", float("nan"))
        history = _mean(contest.families.get("unconditional_history", np.full(len(oof), np.nan))[rows])
        figures |= {"pinball": loss, "pinball_unconditional_history": _figure(history)}
        figures |= {"pinball_skill": _figure(skill_of(loss, history))}  # over all that was known
        figures |= {"pinball_skill_window": _figure(skill_of(loss, window))}  # over the training window: harder
    else:
        outside = rows & ~oof.rollover
        figures["auc_ex_rollover"] = _figure(auc(contest.actual[outside], contest.forecast[outside]))
        figures |= net_of_spread(oof, contest, rows)
    return figures


def _warnings(contest: Contest, skill: float, figures: Mapping[str, Any]) -> tuple[str, ...]:
    figure = (figures.get("auc") if contest.kind == "sign" else skill) or 0.0
    if figure <= SUSPICIOUS[contest.kind]:
        return ()
    name = "AUC" if contest.kind == "sign" else "skill"
    return (f"{contest.target}: {name} {figure:.3f} is suspiciously good; look for a leak.",)


def _figure(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _why(
    contest: Contest, promoted: bool, skill: float, test: LossTest, baseline: str, conditions: list[Condition]
) -> str:
    """One readable sentence."""
    against = f"{skill:+.1%} {contest.metric} skill against {baseline} (t = {test.t:.1f})"
    if promoted:
        return f"{contest.target} promoted: {against}, and every other condition is met."
    reasons = [_reason(c) for c in conditions if not c.passed]
    return f"{contest.target} not promoted: {against}; {'; '.join(reasons)}."


def _reason(condition: Condition) -> str:
    name = condition.name.replace("_", " ")
    if condition.detail and (condition.value is None or condition.name == "better_on_most_symbols"):
        return f"{name} failed: {condition.detail}"
    if condition.limit == T_LIMIT and condition.value is not None:
        return f"not {name} (t = {condition.value:.1f}, needed {T_LIMIT:.0f})"
    if condition.value is not None and condition.limit is not None:
        return f"{name} failed ({condition.value:.4g}, limit {condition.limit:.4g})"
    return f"{name} failed"
