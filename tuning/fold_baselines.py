"""Every baseline of every symbol, fitted on one fold's training rows: the yardstick of whatever is learned next.

Knows panels and folds, no learners.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from market.errors import NotEnoughBars
from tuning.learners.baseline import BASELINES, VarianceModel, fit_baselines
from tuning.panel import Panel
from tuning.stack_folds import BASELINE, ECONOMETRIC, TrainingPart

BASE_RATE_PRIOR = 500.0  # non-overlapping labels at one half that the share of ups is shrunk with


@dataclass
class FoldBaselines:
    """What the baselines say in one fold, on the flat axis: log_rv[family][h] float [n], NaN outside the fold.

    models[s][family]: the fitted baselines of symbol number s.
    """

    models: dict[int, dict[str, VarianceModel]]
    log_rv: dict[str, dict[int, np.ndarray]]
    base_rate: dict[int, np.ndarray]  # [symbols]
    cpu_seconds: dict[str, float] = field(default_factory=dict)


def fit_fold_baselines(panel: Panel, train: np.ndarray, test: np.ndarray) -> FoldBaselines:
    """Fit every baseline per symbol on the flat rows `train`; forecast the rows `train` and `test`.

    A symbol with too few training rows stays NaN and has no models.
    """
    fitted: dict[int, dict[str, VarianceModel]] = {}
    log_rv = {family: {h: np.full(len(panel), np.nan) for h in panel.horizons} for family in BASELINES}
    base_rate = {h: np.full(len(panel.series), np.nan) for h in panel.horizons}
    cpu = time.process_time()
    for s, series in enumerate(panel.series):
        own = panel.own_rows(train, s)
        try:
            models = fitted[s] = fit_baselines(series, panel.targets[s].rv, own, panel.timeframe)
        except NotEnoughBars:
            continue
        rows = np.concatenate([own, panel.own_rows(test, s)])
        for family, model in models.items():
            for h, values in model.log_rv(series).items():
                log_rv[family][h][panel.starts[s] + rows] = values[rows]
        for h in panel.horizons:
            base_rate[h][s] = share_of_ups(panel.targets[s].ret[h][own], h)
    spent = (time.process_time() - cpu) / len(BASELINES)
    return FoldBaselines(fitted, log_rv, base_rate, dict.fromkeys(BASELINES, spent))


def share_of_ups(ret: np.ndarray, horizon: int) -> float:
    """Share of ret > 0, shrunk to one half: a past trend is no forecast. NaN returns are left out."""
    known = ret[np.isfinite(ret)]
    n = len(known) / horizon
    share = float((known > 0).mean()) if len(known) else 0.5
    return (n * share + BASE_RATE_PRIOR * 0.5) / (n + BASE_RATE_PRIOR)


def training_part(panel: Panel, train: np.ndarray, log_rv: dict[str, dict[int, np.ndarray]]) -> TrainingPart:
    """The training rows `train` of one fold, with the baselines' in-sample forecasts log_rv[family][h] [n]."""
    used = (BASELINE, *ECONOMETRIC)
    return TrainingPart(
        symbol=panel.symbol[train],
        ret={h: panel.ret[h][train] for h in panel.horizons},
        rv={h: panel.rv[h][train] for h in panel.horizons},
        log_rv={f: {h: log_rv[f][h][train] for h in panel.horizons} for f in used},
    )
