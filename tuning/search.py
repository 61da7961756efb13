"""A search over the learners' settings that never looks at what the result is judged on.

Trials are compared on inner walk-forward folds cut from the training part of the first outer fold, by the same splitter,
purge and embargo. The preset's own settings are trial 0 and stay unless another is better by more than the standard error
of the difference. Trying many settings flatters the best of them: every trial goes into the report. Knows no cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from math import inf, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from market.errors import NotEnoughBars
from market.timeframes import Timeframe
from tuning.budget import BudgetSpent
from tuning.cross_validate import RunUnits, in_process, test_rows
from tuning.features import lookback, make_features
from tuning.fold_baselines import fit_fold_baselines
from tuning.learners.fitting import NET_FAMILIES, TREE_FAMILIES, fit_and_predict
from tuning.lessons import LessonArrays, make_lessons
from tuning.metrics import log_loss, qlike
from tuning.panel import make_folds, make_panel, recent
from tuning.presets import Boosting, Nets, Preset
from tuning.scaling import YARDSTICK
from tuning.significance import bandwidth, long_run_variance, panel_mean
from tuning.stacking import logit, sigmoid

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    Space = dict[str, BaseDistribution]

INNER_FOLDS = 3
KINDS = {"boosting": TREE_FAMILIES, "nets": NET_FAMILIES}


@dataclass(frozen=True)
class InnerFold:
    """One inner fold's lessons by family, with what then happened on its test rows [m]."""

    lessons: dict[str, LessonArrays]
    train: np.ndarray
    test: np.ndarray
    time: np.ndarray
    rv: np.ndarray  # of the longest horizon
    yardstick: np.ndarray  # its log forecast
    up: np.ndarray  # of the shortest horizon
    base: np.ndarray  # logit of its base rate


@dataclass(frozen=True)
class Problem:
    """What one kind of settings ("boosting" or "nets") is searched on. `default`: the preset's own."""

    kind: str
    families: tuple[str, ...]
    default: Boosting | Nets
    seed: int
    horizons: tuple[int, ...]
    folds: tuple[InnerFold, ...]

    def settings(self, changed: Mapping[str, Any]) -> Boosting | Nets:
        return replace(self.default, **changed)

    def applied(self, preset: Preset, changed: Mapping[str, Any]) -> Preset:
        settings = self.settings(changed)
        return replace(preset, boosting=settings) if isinstance(settings, Boosting) else replace(preset, nets=settings)


@dataclass(frozen=True)
class Trial:
    """`loss`: mean over the inner folds it saw; `gain`: the default's loss minus its own, with its standard `error`.

    state: complete | pruned | failed (a loss that is no number, or an error).
    """

    number: int
    settings: dict[str, Any]
    state: str
    folds: int
    loss: float
    gain: float
    error: float


# (problem, the default's losses, trials beyond the default, seconds left) -> those trials
Study = Callable[[Problem, list[np.ndarray], int, Callable[[], float]], list[Trial]]


def training_part_of(bars: Mapping[str, pa.Table], timeframe: Timeframe, preset: Preset) -> dict[str, pa.Table]:
    """The bars that the first outer test fold trains on, labels included: all of them end before its first test row."""
    scheme = preset.scheme(max(timeframe.horizons))
    look = lookback(timeframe)
    panel = make_panel(recent(bars, scheme, look), timeframe, timeframe.horizons, look)
    first = next(fold for fold in make_folds(panel, scheme) if fold.number == 0)
    last = panel.label_end[first.train].max()
    closes = {s: t["close_time"].cast(pa.int64()).to_numpy().astype("datetime64[us]") for s, t in bars.items()}
    cut = {s: t.slice(0, int(np.searchsorted(closes[s], last, side="right"))) for s, t in bars.items()}
    return {symbol: table for symbol, table in cut.items() if table.num_rows}


def make_problems(bars: Mapping[str, pa.Table], timeframe: Timeframe, preset: Preset) -> dict[str, Problem]:
    """kind -> problem, for the kinds of the preset's families. NotEnoughBars when the training part has no room for folds."""
    scheme = replace(preset.scheme(max(timeframe.horizons)), folds=INNER_FOLDS, lockbox_days=0.0, burn_in=False)
    look = lookback(timeframe)
    known = recent(training_part_of(bars, timeframe, preset), scheme, look)
    panel = make_panel(known, timeframe, timeframe.horizons, look)
    features = [make_features(series, timeframe) for series in panel.series]
    long, short = max(panel.horizons), min(panel.horizons)
    folds = []
    for fold in make_folds(panel, scheme):
        base = fit_fold_baselines(panel, fold.train, fold.test)
        rows = test_rows(panel, fold, base)
        folds.append(
            InnerFold(
                lessons=make_lessons(panel, base, preset.families, features),
                train=fold.train,
                test=rows,
                time=panel.time[rows],
                rv=panel.rv[long][rows],
                yardstick=base.log_rv[YARDSTICK][long][rows],
                up=(panel.ret[short][rows] > 0).astype(float),
                base=logit(base.base_rate[short])[panel.symbol[rows]],
            )
        )
    if not all(len(fold.test) for fold in folds):
        raise NotEnoughBars("An inner fold holds no rows to compare settings on.", hint="Backfill a longer history.")
    problems = {}
    for kind, families in KINDS.items():
        used = tuple(f for f in preset.families if f in families)
        if used:
            default = preset.boosting if kind == "boosting" else preset.nets
            problems[kind] = Problem(kind, used, default, preset.seed, panel.horizons, tuple(folds))
    return problems


def fold_losses(problem: Problem, settings: Boosting | Nets, k: int, run_units: RunUnits = in_process) -> np.ndarray:
    """QLIKE of the longest horizon plus log-loss of the shortest one's direction, both in nats: the families' mean, by
    timestamp of inner fold k. [timestamps]; infinite where a forecast is no number."""
    fold = problem.folds[k]
    units = [(f, settings, problem.seed, *fold.lessons[f], fold.train, fold.test) for f in problem.families]
    long, short = (problem.horizons.index(h) for h in (max(problem.horizons), min(problem.horizons)))
    losses = []
    for log_ratio, excess, _ in run_units(fit_and_predict, units):
        variance = np.exp(fold.yardstick + log_ratio[:, long])
        losses.append(qlike(fold.rv, variance) + log_loss(fold.up, sigmoid(fold.base + excess[:, short])))
    mean = np.mean(losses, axis=0)
    if not np.isfinite(mean).all():
        return np.full(len(np.unique(fold.time)), np.inf)
    return panel_mean(mean, fold.time)[1]


def compared(losses: list[np.ndarray], default: list[np.ndarray], horizon: int) -> tuple[float, float, float]:
    """(loss, gain over the default, HAC standard error of the gain) on the inner folds seen so far."""
    own, against = np.concatenate(losses), np.concatenate(default[: len(losses)])
    if not np.isfinite(own).all():
        return inf, -inf, inf
    difference = against - own
    error = sqrt(long_run_variance(difference, min(bandwidth(len(own), horizon), len(own) - 1)) / len(own))
    return float(own.mean()), float(difference.mean()), error


def space(default: Boosting | Nets) -> Space:
    """Where to look: around the preset's own settings, nothing much dearer."""
    from optuna.distributions import FloatDistribution, IntDistribution

    rate = FloatDistribution(default.learning_rate / 3, default.learning_rate * 3, log=True)
    if isinstance(default, Boosting):
        return {
            "trees": IntDistribution(max(default.trees // 2, 1), default.trees * 2, log=True),
            "leaves": IntDistribution(max(default.leaves // 2, 2), max(default.leaves * 2, 4), log=True),
            "min_rows_in_leaf": IntDistribution(max(default.min_rows_in_leaf // 4, 1), default.min_rows_in_leaf * 4 + 1, log=True),
            "learning_rate": rate,
        }  # fmt: skip
    stride = max(default.hidden // 8 * 2, 2)
    narrowest = default.hidden - stride * min(2, (default.hidden - 1) // stride)
    return {
        "hidden": IntDistribution(narrowest, default.hidden + 2 * stride, step=stride),
        "learning_rate": rate,
        "weight_decay": FloatDistribution(0.0, max(10 * default.weight_decay, 1e-2)),
        "dropout": FloatDistribution(0.0, max(0.4, default.dropout)),
    }


def within_space(default: Boosting | Nets) -> dict[str, Any]:
    """The default's own point in its space."""
    return {name: getattr(default, name) for name in space(default)}


def sampler(problem: Problem, trials: int) -> Any:
    """Optuna's TPE, random in its first trials."""
    import optuna

    return optuna.samplers.TPESampler(seed=problem.seed, n_startup_trials=min(6, max(trials // 2, 1)))


def local_study(run_units: RunUnits) -> Study:
    """Optuna ask and tell, one trial after another; the families of a trial run side by side on `run_units`."""

    def study(
        problem: Problem, default: list[np.ndarray], trials: int, seconds_left: Callable[[], float]
    ) -> list[Trial]:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        ranges = space(problem.default)
        asked = optuna.create_study(
            sampler=sampler(problem, trials),
            pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
        )
        point, loss = within_space(problem.default), compared(default, default, max(problem.horizons))[0]
        asked.add_trial(optuna.trial.create_trial(params=point, distributions=ranges, value=loss))
        made: list[Trial] = []
        for number in range(1, trials + 1):
            if seconds_left() <= 0:
                break
            trial = asked.ask(ranges)
            try:
                result = run_trial(problem, default, number, trial.params, run_units, _pruning(trial))
            except BudgetSpent:
                break
            made.append(result)
            state = {"complete": optuna.trial.TrialState.COMPLETE, "pruned": optuna.trial.TrialState.PRUNED}
            ended = state.get(result.state, optuna.trial.TrialState.FAIL)
            asked.tell(trial, result.loss if result.state == "complete" else None, ended)
        return made

    return study


def _pruning(asked: Any) -> Callable[[Trial], bool]:
    def prune(trial: Trial) -> bool:
        asked.report(trial.loss, trial.folds)
        return bool(asked.should_prune())

    return prune


def run_trial(
    problem: Problem,
    default: list[np.ndarray],
    number: int,
    changed: dict[str, Any],
    run_units: RunUnits,
    prune: Callable[[Trial], bool],
) -> Trial:
    """Fold by fold, until `prune(the trial so far)` says that it is not worth going on."""
    settings, losses = problem.settings(changed), []
    for k in range(len(problem.folds)):
        losses.append(fold_losses(problem, settings, k, run_units))
        figures = compared(losses, default, max(problem.horizons))
        last = k + 1 == len(problem.folds)
        state = "failed" if figures[0] == inf else "complete" if last else "pruned"
        trial = Trial(number, changed, state, k + 1, *figures)
        if state == "failed" or prune(trial) or last:
            break
    return trial


def choose(trials: list[Trial]) -> Trial:
    """The best complete trial if it beats the default by more than the standard error of its gain, else trial 0."""
    best = min((t for t in trials if t.state == "complete"), key=lambda t: t.loss)
    return best if best.gain > best.error else trials[0]


def search(
    bars: Mapping[str, pa.Table],
    timeframe: Timeframe,
    preset: Preset,
    *,
    run_units: RunUnits = in_process,
    study: Study | None = None,
    seconds_left: Callable[[], float] = lambda: inf,
    on_progress: Callable[[str, int, int], None] = lambda text, done, total: None,
) -> tuple[Preset, dict[str, Any]]:
    """-> (the preset with the settings chosen, the record of every trial by kind)."""
    if preset.search is None:
        return preset, {}
    chosen = replace(preset, search=None)
    record: dict[str, Any] = {}
    try:
        problems = make_problems(bars, timeframe, preset)
    except NotEnoughBars as error:
        return chosen, {"skipped": f"the bars before the first test row are too few: {error.message}"}
    for done, (kind, problem) in enumerate(problems.items()):
        on_progress(f"settings of the {kind}", done, len(problems))
        try:
            default = [fold_losses(problem, problem.default, k, run_units) for k in range(INNER_FOLDS)]
        except BudgetSpent:
            record[kind] = {"skipped": "its share of the budget ended before the preset's own settings were scored"}
            continue
        figures = compared(default, default, max(problem.horizons))
        first = Trial(0, within_space(problem.default), "complete", INNER_FOLDS, *figures)
        share = _share_of(seconds_left, len(problems) - done)
        others = (study or local_study(run_units))(problem, default, preset.search.trials - 1, share)
        trials = [first, *others]
        best = choose(trials)
        if best.number:
            chosen = problem.applied(chosen, best.settings)
        record[kind] = _record(problem, trials, best)
    return chosen, record


def _share_of(seconds_left: Callable[[], float], kinds: int) -> Callable[[], float]:
    """This kind's equal share of what is left."""
    others = (kinds - 1) / kinds * seconds_left() if kinds > 1 else 0.0
    return lambda: seconds_left() - others if others < inf else inf


def _record(problem: Problem, trials: list[Trial], best: Trial) -> dict[str, Any]:
    return {
        "families": list(problem.families),
        "scored": "QLIKE of the longest horizon plus log-loss of the next bar's direction, inner folds only",
        "from": str(problem.folds[0].time.min()),
        "to": str(problem.folds[-1].time.max()),
        "trials": len(trials),
        "pruned": sum(t.state == "pruned" for t in trials),
        "failed": sum(t.state == "failed" for t in trials),
        "default_loss": trials[0].loss,
        "chosen": best.number,
        "gain": best.gain,
        "standard_error": best.error,
        "settings": asdict(problem.settings(best.settings)),
        "tried": [asdict(t) for t in trials],
    }
