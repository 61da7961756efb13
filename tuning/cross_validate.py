"""Purged walk-forward cross-validation: every family forecasts bars it has not seen, then the stack is laid on top.

Units of work are top-level functions with numpy arguments; `run_units` decides where they run. Judges nothing.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from market.errors import NotEnoughBars
from market.timeframes import Timeframe
from tuning.calibration import quantiles_by_symbol, scale_quantiles, standardised
from tuning.learners.baseline import BASELINES, fit_baselines, lookback
from tuning.out_of_fold import FamilyForecasts, OutOfFold
from tuning.panel import Panel, make_folds, make_panel, recent
from tuning.presets import Preset
from tuning.splits import Fold
from tuning.stack_folds import BASELINE, ECONOMETRIC, TrainingPart, add_stack

RunUnits = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], Iterable[Any]]
Progress = Callable[[str, int, int], None]
BASE_RATE_PRIOR = 200.0  # non-overlapping labels at one half that the share of ups is shrunk with


def in_process(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> Iterable[Any]:
    """The default `run_units`: one after another, here. Lazy, so progress shows as units end."""
    return (function(*one) for one in arguments)


@dataclass
class FoldBaselines:
    """What the baselines say in one fold, on the flat axis: log_rv[family][h] float [n], NaN outside the fold."""

    log_rv: dict[str, dict[int, np.ndarray]]
    base_rate: dict[int, np.ndarray]  # [symbols]
    cpu_seconds: dict[str, float] = field(default_factory=dict)


def cross_validate(
    bars: Mapping[str, pa.Table],
    timeframe: Timeframe,
    preset: Preset,
    *,
    run_units: RunUnits = in_process,
    on_progress: Progress | None = None,
) -> OutOfFold:
    """All families of the preset on `folds` test folds and the lockbox.

    bars: symbol -> table in BAR_SCHEMA, oldest first. NotEnoughBars when history is too short for the preset's cut.
    """
    tell = on_progress or (lambda text, done, total: None)
    scheme = preset.scheme(max(timeframe.horizons))
    panel = make_panel(recent(bars, scheme, lookback(timeframe)), timeframe, timeframe.horizons, lookback(timeframe))
    folds = make_folds(panel, scheme)
    baselines = []
    for k, fold in enumerate(folds):
        tell(f"baselines, {fold_name(fold)}", k, len(folds))
        baselines.append(fit_fold_baselines(panel, fold))
    tell("baselines", len(folds), len(folds))
    out = _assemble(panel, folds, baselines)
    return out


def fold_name(fold: Fold) -> str:
    return f"fold {fold.number + 1}" if fold.number >= 0 else "lockbox"


def fit_fold_baselines(panel: Panel, fold: Fold) -> FoldBaselines:
    """Fit every baseline per symbol on the fold's training rows; forecast its training and test rows.

    A symbol with too few training rows in this fold stays NaN.
    """
    log_rv = {family: {h: np.full(len(panel), np.nan) for h in panel.horizons} for family in BASELINES}
    base_rate = {h: np.full(len(panel.series), np.nan) for h in panel.horizons}
    cpu = clock.process_time()
    for s, series in enumerate(panel.series):
        train, test = panel.own_rows(fold.train, s), panel.own_rows(fold.test, s)
        try:
            models = fit_baselines(series, panel.targets[s].rv, train, panel.timeframe)
        except NotEnoughBars:
            continue
        rows = np.concatenate([train, test])
        for family, model in models.items():
            for h, values in model.log_rv(series).items():
                log_rv[family][h][panel.starts[s] + rows] = values[rows]
        for h in panel.horizons:
            base_rate[h][s] = share_of_ups(panel.targets[s].ret[h][train], h)
    spent = (clock.process_time() - cpu) / len(BASELINES)
    return FoldBaselines(log_rv, base_rate, dict.fromkeys(BASELINES, spent))


def share_of_ups(ret: np.ndarray, horizon: int) -> float:
    """Share of ret > 0, shrunk to one half: a past trend is no forecast. NaN returns are left out."""
    known = ret[np.isfinite(ret)]
    n = len(known) / horizon
    share = float((known > 0).mean()) if len(known) else 0.5
    return (n * share + BASE_RATE_PRIOR * 0.5) / (n + BASE_RATE_PRIOR)


def test_rows(panel: Panel, fold: Fold, baselines: FoldBaselines) -> np.ndarray:
    """Test rows that have every label and a fitted baseline, by time, then symbol. Flat row numbers."""
    longest = max(panel.horizons)
    usable = np.isfinite(panel.rv[longest][fold.test]) & np.isfinite(baselines.log_rv["har_how"][longest][fold.test])
    rows = fold.test[usable]
    return rows[np.lexsort((panel.symbol[rows], panel.time[rows]))]


def _assemble(panel: Panel, folds: list[Fold], baselines: list[FoldBaselines]) -> OutOfFold:
    """Put the folds' test rows one after another."""
    rows = [test_rows(panel, fold, base) for fold, base in zip(folds, baselines, strict=True)]
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
    parts = {f.number: training_part(panel, f.train, b.log_rv) for f, b in zip(folds, baselines, strict=True)}
    add_stack(out, panel.label_end[flat], parts)
    return out


def training_part(panel: Panel, train: np.ndarray, log_rv: dict[str, dict[int, np.ndarray]]) -> TrainingPart:
    """The training rows `train` of one fold, with the baselines' in-sample forecasts log_rv[family][h] [n]."""
    used = (BASELINE, *ECONOMETRIC)
    return TrainingPart(
        symbol=panel.symbol[train],
        ret={h: panel.ret[h][train] for h in panel.horizons},
        rv={h: panel.rv[h][train] for h in panel.horizons},
        log_rv={f: {h: log_rv[f][h][train] for h in panel.horizons} for f in used},
    )


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
