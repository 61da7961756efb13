"""The final fit: what serves, fitted on all bars, from what the folds have taught and what the gate let pass.

Judges nothing and forecasts nothing; the result is an Ensemble.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa

from market.errors import NotEnoughBars
from market.timeframes import Timeframe
from tuning.cross_validate import RunUnits, in_process
from tuning.ensemble import Ensemble, Weights
from tuning.features import lookback, make_spec
from tuning.fold_baselines import FoldBaselines, fit_fold_baselines, training_part
from tuning.learners.fitting import NET_FAMILIES, fit_to_files, load_learner, settings_of
from tuning.lessons import make_lessons
from tuning.out_of_fold import OutOfFold
from tuning.panel import Panel, final_rows, make_panel, recent
from tuning.presets import Preset
from tuning.stack_folds import BASELINE, ECONOMETRIC, stacked_log_rv, z_quantiles


def fit_ensemble(
    bars: Mapping[str, pa.Table],
    timeframe: Timeframe,
    preset: Preset,
    out_of_fold: OutOfFold,
    passed: Mapping[str, bool],
    *,
    floor: Mapping[str, bool] | None = None,
    run_units: RunUnits = in_process,
) -> Ensemble:
    """Fit what serves on all bars: per target the stack where `passed[target]`, else the baseline.

    `floor`: targets on which the stack of econometric families alone stands in for the baseline.
    Weights are those of the last fold; learners that carry none in a passed target are not fitted. Nets whose chain
    has already run to its end (`out_of_fold.nets`) are taken from there. NotEnoughBars when no symbol has enough
    labelled bars.
    """
    look = lookback(timeframe)
    panel = make_panel(recent(bars, preset.scheme(max(timeframe.horizons)), look), timeframe, timeframe.horizons, look)
    train = final_rows(panel, preset.max_train_bars)
    fitted = fit_fold_baselines(panel, train, train[:0])
    if not fitted.models:
        raise NotEnoughBars("No symbol has enough bars for the final fit.", hint="Backfill a longer history.")
    if len(fitted.models) < len(panel.series):  # learners number the symbols, so leave the short ones out altogether
        enough = {panel.symbols[s]: bars[panel.symbols[s]] for s in fitted.models}
        return fit_ensemble(enough, timeframe, preset, out_of_fold, passed, floor=floor, run_units=run_units)
    weights = _final_weights(out_of_fold, passed, floor or {})
    used = sorted({f for w in weights.values() for f in w} & set(preset.families))
    files = {f: out_of_fold.nets[f] for f in used if f in out_of_fold.nets and out_of_fold.symbols == panel.symbols}
    unfitted = [f for f in used if f not in files]
    units = make_lessons(panel, fitted, unfitted)
    arguments = [(f, settings_of(f, preset), preset.seed, *units[f], train) for f in unfitted]
    if unfitted:
        files |= zip(unfitted, run_units(fit_to_files, arguments), strict=True)
    named = {s: panel.symbols[s] for s in fitted.models}
    return Ensemble(
        timeframe=timeframe,
        symbols=tuple(named.values()),
        spec=make_spec(timeframe, preset.nets.context + 1 if set(used) & set(NET_FAMILIES) else 1),
        baselines={named[s]: models for s, models in fitted.models.items()},
        weights=weights,
        z_quantiles=_final_quantiles(panel, fitted, train, out_of_fold, weights),
        baseline_quantiles=_final_quantiles(
            panel, fitted, train, out_of_fold, {f"r{h}": {BASELINE: 1.0} for h in panel.horizons}
        ),
        base_rate={h: {name: float(fitted.base_rate[h][s]) for s, name in named.items()} for h in panel.horizons},
        usual_volatility=_usual_volatility(panel, fitted, weights),
        learners={f: load_learner(f, files[f]) for f in used},
    )


def _final_weights(out: OutOfFold, passed: Mapping[str, bool], floor: Mapping[str, bool]) -> dict[str, Weights]:
    weights: dict[str, Weights] = {}
    for h in out.horizons:
        stack, odds = out.stack_weights[f"rv{h}"], out.stack_weights[f"sign{h}"]
        fallback = out.stack_weights.get(f"econometric_stack/rv{h}", stack)
        for target in (f"rv{h}", f"r{h}"):
            chosen = stack if passed.get(target) else fallback if floor.get(target) else {BASELINE: 1.0}
            weights[target] = dict(chosen)
        weights[f"sign{h}"] = dict(odds) if passed.get(f"sign{h}") else {"base_rate": 1.0}
    return weights


def _final_quantiles(
    panel: Panel, fitted: FoldBaselines, train: np.ndarray, out: OutOfFold, weights: dict[str, Weights]
) -> dict[int, dict[str, list[float]]]:
    """z-quantiles of the forecast that scales the quantiles, from the training part and every out-of-fold row."""
    number = [out.symbols.index(symbol) for symbol in panel.symbols]  # symbols too short to be fitted are in `out` only
    part = training_part(panel, train, fitted.log_rv)
    part = replace(part, symbol=np.array(number)[part.symbol])
    known = np.ones(len(out), bool)
    found: dict[int, dict[str, list[float]]] = {}
    for h in panel.horizons:
        used = weights[f"r{h}"]
        scaled = stacked_log_rv({f: out.families[f].log_rv[h] for f in {*used, BASELINE}}, used)
        z = z_quantiles(out, scaled, h, known, part, used)
        found[h] = {panel.symbols[s]: z[number[s]].tolist() for s in fitted.models}
    return found


def _usual_volatility(panel: Panel, fitted: FoldBaselines, weights: dict[str, Weights]) -> dict[int, dict[str, float]]:
    """Median over training of the baselines' part of the volatility forecast, per symbol."""
    usual: dict[int, dict[str, float]] = {}
    for h in panel.horizons:
        used = {f: w for f, w in weights[f"rv{h}"].items() if f in (BASELINE, *ECONOMETRIC)}
        sigma = np.exp(0.5 * stacked_log_rv({f: fitted.log_rv[f][h] for f in {*used, BASELINE}}, used))
        usual[h] = {panel.symbols[s]: float(np.nanmedian(sigma[panel.slice(s)])) for s in fitted.models}
    return usual
