"""Purged walk-forward cross-validation: every family forecasts bars it has not seen, then the stack is laid on top.

Units of work are top-level functions with numpy arguments; `run_units` decides where they run. Judges nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from market.errors import NotEnoughBars
from market.timeframes import Timeframe
from tuning.budget import BudgetSpent
from tuning.calibration import quantiles_by_symbol, scale_quantiles, standardised
from tuning.features import lookback, make_features
from tuning.fold_baselines import FoldBaselines, fit_fold_baselines, training_part
from tuning.learners.baseline import BASELINES
from tuning.learners.fitting import TREE_FAMILIES, fit_and_predict, settings_of
from tuning.lessons import make_lessons
from tuning.out_of_fold import FamilyForecasts, OutOfFold
from tuning.panel import Panel, make_folds, make_panel, recent
from tuning.presets import Preset
from tuning.scaling import YARDSTICK
from tuning.series import make_series
from tuning.splits import BURN_IN, Fold
from tuning.stack_folds import add_stack
from tuning.stacking import sigmoid
from tuning.targets import make_targets

RunUnits = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], Iterable[Any]]
Progress = Callable[[str, int, int], None]


def in_process(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> Iterable[Any]:
    """The default `run_units`: one after another, here. Lazy, so progress shows as units end."""
    return (function(*one) for one in arguments)


def cross_validate(
    bars: Mapping[str, pa.Table],
    timeframe: Timeframe,
    preset: Preset,
    *,
    run_units: RunUnits = in_process,
    on_progress: Progress | None = None,
) -> OutOfFold:
    """All families of the preset on `folds` test folds and the lockbox.

    bars: symbol -> table in BAR_SCHEMA, oldest first. `on_progress(text, done, total)` counts units of work.
    NotEnoughBars when history is too short for the preset's cut.
    """
    tell = on_progress or (lambda text, done, total: None)
    scheme = preset.scheme(max(timeframe.horizons))
    panel = make_panel(recent(bars, scheme, lookback(timeframe)), timeframe, timeframe.horizons, lookback(timeframe))
    folds = make_folds(panel, scheme)
    total = len(folds) * (1 + len(preset.families))
    fitted = []
    for done, fold in enumerate(folds):
        tell(f"baselines, {fold_name(fold)}", done, total)
        fitted.append(fit_fold_baselines(panel, fold.train, fold.test))
    rows = [test_rows(panel, fold, base) for fold, base in zip(folds, fitted, strict=True)]
    if not any(len(part) for part in rows):
        raise NotEnoughBars("No symbol has bars in both a training and a test part.", hint="Backfill a longer history.")
    out = _baseline_forecasts(panel, folds, fitted, rows)
    _add_history(bars, panel, folds, rows, out)
    parts = {f.number: training_part(panel, f.train, b.log_rv) for f, b in zip(folds, fitted, strict=True)}
    label_end = panel.label_end[np.concatenate(rows)]
    if preset.families:
        add_stack(out, label_end, parts, name="econometric_stack")
        _add_learners(panel, folds, fitted, rows, preset, run_units, tell, out)
    add_stack(out, label_end, parts)
    tell("stack", total, total)
    return out.at(out.fold != BURN_IN)


def _add_learners(
    panel: Panel,
    folds: list[Fold],
    fitted: list[FoldBaselines],
    rows: list[np.ndarray],
    preset: Preset,
    run_units: RunUnits,
    tell: Progress,
    out: OutOfFold,
) -> None:
    """One unit per family and fold, in that order; results go into `out.families`.

    When time is over, a family that has all its folds counts and one that has not is left out.
    """
    if not preset.families:
        return
    features = None
    if set(preset.families) & set(TREE_FAMILIES):
        features = [make_features(series, panel.timeframe) for series in panel.series]
    lessons = [make_lessons(panel, base, preset.families, features) for base in fitted]
    places = [(k, family) for family in preset.families for k in range(len(folds))]
    units = [
        (family, settings_of(family, preset), preset.seed, *lessons[k][family], folds[k].train, rows[k])
        for k, family in places
    ]
    made: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {family: [] for family in preset.families}
    out.cpu_seconds |= dict.fromkeys(preset.families, 0.0)
    done, total = len(folds), len(folds) * (1 + len(preset.families))
    try:
        for (k, family), (log_ratio, excess, seconds) in zip(places, run_units(fit_and_predict, units), strict=True):
            made[family].append((log_ratio, excess))
            out.cpu_seconds[family] += seconds
            done += 1
            tell(f"{family}, {fold_name(folds[k])}", done, total)
    except BudgetSpent:
        made = {family: parts for family, parts in made.items() if len(parts) == len(folds)}
    yardstick = out.families[YARDSTICK].log_rv
    for family, parts in made.items():
        log_ratio, excess = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
        out.families[family] = _family_forecasts(panel.horizons, log_ratio, excess, yardstick, out.base_rate)


def _family_forecasts(
    horizons: tuple[int, ...],
    log_ratio: np.ndarray,
    excess: np.ndarray,
    yardstick: dict[int, np.ndarray],
    base_rate: dict[int, np.ndarray],
) -> FamilyForecasts:
    """A learner's view put back on the yardstick and the base rate; horizons without a view are left out."""
    out = FamilyForecasts()
    for column, h in enumerate(horizons):
        if np.isfinite(log_ratio[:, column]).any():
            out.log_rv[h] = yardstick[h] + log_ratio[:, column]
        if np.isfinite(excess[:, column]).any():
            base = np.log(base_rate[h]) - np.log1p(-base_rate[h])
            out.p_up[h] = sigmoid(base + excess[:, column])
    return out


def fold_name(fold: Fold) -> str:
    return f"fold {fold.number + 1}" if fold.number >= 0 else "burn-in" if fold.number == BURN_IN else "lockbox"


def test_rows(panel: Panel, fold: Fold, baselines: FoldBaselines) -> np.ndarray:
    """Test rows that have every label and a fitted baseline, by time, then symbol. Flat row numbers."""
    longest = max(panel.horizons)
    usable = np.isfinite(panel.rv[longest][fold.test]) & np.isfinite(baselines.log_rv["har_how"][longest][fold.test])
    rows = fold.test[usable]
    return rows[np.lexsort((panel.symbol[rows], panel.time[rows]))]


def _baseline_forecasts(
    panel: Panel, folds: list[Fold], baselines: list[FoldBaselines], rows: list[np.ndarray]
) -> OutOfFold:
    """The folds' test rows one after another, with what the baselines say of them."""
    flat = np.concatenate(rows)
    families = {
        family: FamilyForecasts(
            log_rv={
                h: np.concatenate([b.log_rv[family][h][r] for b, r in zip(baselines, rows, strict=True)])
                for h in panel.horizons
            }
        )
        for family in BASELINES
    }
    out = OutOfFold(
        symbols=panel.symbols,
        horizons=panel.horizons,
        symbol=panel.symbol[flat],
        time=panel.time[flat],
        fold=np.concatenate([np.full(len(r), f.number) for f, r in zip(folds, rows, strict=True)]),
        rollover=panel.rollover()[flat],
        spread=panel.pool("spread")[flat],
        rv={h: panel.rv[h][flat] for h in panel.horizons},
        ret={h: panel.ret[h][flat] for h in panel.horizons},
        families=families,
        base_rate={
            h: np.concatenate([b.base_rate[h][panel.symbol[r]] for b, r in zip(baselines, rows, strict=True)])
            for h in panel.horizons
        },
        cpu_seconds={family: sum(b.cpu_seconds[family] for b in baselines) for family in BASELINES},
    )
    _add_quantiles(panel, folds, baselines, rows, out)
    return out


def _add_quantiles(
    panel: Panel, folds: list[Fold], baselines: list[FoldBaselines], rows: list[np.ndarray], out: OutOfFold
) -> None:
    """Quantiles of the unconditional history and of HAR + hour-of-week, from each fold's training part."""
    unconditional: dict[int, list[np.ndarray]] = {h: [] for h in panel.horizons}
    scaled: dict[int, list[np.ndarray]] = {h: [] for h in panel.horizons}
    count = len(panel.series)
    for fold, base, test in zip(folds, baselines, rows, strict=True):
        owner, asked = panel.symbol[fold.train], panel.symbol[test]
        for h in panel.horizons:
            ret, log_rv = panel.ret[h][fold.train], base.log_rv["har_how"][h]
            history = quantiles_by_symbol(ret, owner, count, h, symmetric=False, prior=0.0)
            unconditional[h].append(history[asked])
            z = quantiles_by_symbol(standardised(ret, log_rv[fold.train]), owner, count, h)
            scaled[h].append(scale_quantiles(z[asked], log_rv[test]))
    out.quantiles["unconditional"] = {h: np.concatenate(parts) for h, parts in unconditional.items()}
    out.quantiles["har_how"] = {h: np.concatenate(parts) for h, parts in scaled.items()}


def _add_history(
    bars: Mapping[str, pa.Table], panel: Panel, folds: list[Fold], rows: list[np.ndarray], out: OutOfFold
) -> None:
    """Quantiles of every return known before a fold, however old: what one would say who forecasts nothing at all."""
    series = [make_series(bars[symbol], panel.timeframe) for symbol in panel.symbols]
    made: dict[int, list[np.ndarray]] = {h: [] for h in panel.horizons}
    returns = [make_targets(one, panel.horizons).ret for one in series]
    for fold, test in zip(folds, rows, strict=True):
        last = panel.time[fold.train].max(initial=panel.time.min())
        for h in panel.horizons:
            known = [ret[h][one.close_time <= last] for one, ret in zip(series, returns, strict=True)]
            owner = np.repeat(np.arange(len(known)), [len(one) for one in known])
            history = quantiles_by_symbol(np.concatenate(known), owner, len(known), h, symmetric=False, prior=0.0)
            made[h].append(history[panel.symbol[test]])
    out.quantiles["unconditional_history"] = {h: np.concatenate(parts) for h, parts in made.items()}
