"""What learners see beside the plain features: each symbol's own baseline as the yardstick. Fits nothing itself.

Learners forecast the rest: how far rv lies from the baseline's forecast, and how far the odds lie from the base rate.
The yardstick comes from the training part of a fold, looks back only, and so scales training and serving alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from market.timeframes import Timeframe
from tuning.features import make_features
from tuning.learners.baseline import VarianceModel, make_states, parkinson
from tuning.rolling import lagged
from tuning.series import Series, positions_per_week

YARDSTICK = "har_range"  # the baseline whose residual the learners forecast
COMPARED = ("har_how", "ewma_how", "unconditional_how")
CLIP = 8.0


@dataclass(frozen=True)
class BaselineView:
    """What one symbol's baselines say of every row: log_rv[family][h] [n], and the yardstick's states [n, k]."""

    states: np.ndarray
    log_rv: dict[str, dict[int, np.ndarray]]


def baseline_view(
    series: Series,
    timeframe: Timeframe,
    models: dict[str, VarianceModel],
    families: tuple[str, ...] = (YARDSTICK, *COMPARED),
) -> BaselineView:
    """`families`: YARDSTICK, COMPARED and whatever else is asked for."""
    states = make_states(YARDSTICK, series, models[YARDSTICK].season, timeframe)
    return BaselineView(states, {f: models[f].log_rv(series, states if f == YARDSTICK else None) for f in families})


def tree_inputs(
    series: Series,
    timeframe: Timeframe,
    models: dict[str, VarianceModel],
    features: np.ndarray | None = None,
    view: BaselineView | None = None,
) -> np.ndarray:
    """Features and the baselines' view of the same rows. [n, features + k] float32, NaN while warming up.

    `features`: make_features(series, timeframe), `view`: baseline_view(...), when the caller has them already.
    """
    if features is None:
        features = make_features(series, timeframe)
    view = view or baseline_view(series, timeframe, models)
    return np.concatenate([features, _compared(series, models, view)], axis=1, dtype=np.float32)


def _compared(series: Series, models: dict[str, VarianceModel], view: BaselineView) -> np.ndarray:
    """Log ratios: the yardstick's states against their mean, other baselines and the season against the yardstick."""
    yardstick, states = models[YARDSTICK], view.states
    middle = states.mean(axis=1)
    own = view.log_rv[YARDSTICK]
    columns = [states[:, k] - middle for k in range(states.shape[1])]
    for h in own:
        season = np.log(yardstick.season.ahead(h) / h)[series.position % len(yardstick.season.factor)]
        columns += [season, own[h] - season - middle]
    for family in COMPARED:
        other = view.log_rv[family]
        columns += [other[h] - own[h] for h in own]
    return np.stack(columns, axis=1)


def net_inputs(
    series: Series, timeframe: Timeframe, models: dict[str, VarianceModel], view: BaselineView | None = None
) -> np.ndarray:
    """Raw bars for the nets, volatility-normalised. [n, 10] float32 within +-CLIP; 0 while warming up.

    Columns: return, high-low range and its wicks over the bar's expected standard deviation (known a bar earlier, times the
    bar's season), the baseline's two horizons against its level, the season ahead, New York time of day and week.
    """
    view = view or baseline_view(series, timeframe, models, (YARDSTICK,))
    yardstick, states = models[YARDSTICK], view.states
    factor = yardstick.season.factor[series.position % len(yardstick.season.factor)]
    level = states[:, 1]  # a week of squared returns
    sigma = np.exp(0.5 * lagged(level, 1)) * np.sqrt(factor)
    own = view.log_rv[YARDSTICK]
    first, last = min(own), max(own)
    ahead = {h: np.log(yardstick.season.ahead(h) / h)[series.position % len(yardstick.season.factor)] for h in own}
    places = positions_per_week(timeframe)
    week, day = 2 * np.pi * series.position / places, 2 * np.pi * series.position * 7 / places
    columns = [
        series.log_return / sigma,
        0.5 * np.log(np.maximum(parkinson(series), 1e-16)) - np.log(sigma),
        np.log(series.close / series.low) / sigma - np.log(series.high / series.close) / sigma,
        own[first] - ahead[first] - level,
        own[last] - ahead[last] - level,
        states[:, 0] - level,
        np.sin(day),
        np.cos(day),
        np.sin(week),
        np.cos(week),
    ]
    return np.nan_to_num(np.clip(np.stack(columns, axis=1), -CLIP, CLIP)).astype(np.float32)
