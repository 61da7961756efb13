"""What learners see beside the plain features: each symbol's own baseline as the yardstick. Fits nothing itself.

Learners forecast the rest: how far rv lies from the baseline's forecast, and how far the odds lie from the base rate.
The yardstick comes from the training part of a fold, looks back only, and so scales training and serving alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from market.timeframes import Timeframe
from tuning.features import clock, make_features
from tuning.learners.baseline import VarianceModel, by_place, make_states, parkinson
from tuning.rolling import lagged
from tuning.series import Series

YARDSTICK = "har_range"  # the baseline whose residual the learners forecast
COMPARED = ("har_how", "ewma_how", "unconditional_how")
CLIP = 8.0


@dataclass(frozen=True)
class BaselineView:
    """What baselines say of the last m rows of a Series: log_rv[family][h] [..., m], the yardstick's states [..., m, k]."""

    states: np.ndarray
    log_rv: dict[str, dict[int, np.ndarray]]

    def tail(self, rows: int) -> BaselineView:
        log_rv = {f: {h: values[..., -rows:] for h, values in by_h.items()} for f, by_h in self.log_rv.items()}
        return BaselineView(self.states[..., -rows:, :], log_rv)


def baseline_view(
    series: Series,
    timeframe: Timeframe,
    models: dict[str, VarianceModel],
    families: tuple[str, ...] = (YARDSTICK, *COMPARED),
    last: int | None = None,
) -> BaselineView:
    """`families`: YARDSTICK, COMPARED and whatever else is asked for. `last`: so many rows at the end only."""
    states = make_states(YARDSTICK, series, models[YARDSTICK].season, timeframe, last)
    log_rv = {f: models[f].log_rv(series, states if f == YARDSTICK else None, last) for f in families}
    return BaselineView(states, log_rv)


def tree_inputs(
    series: Series,
    timeframe: Timeframe,
    models: dict[str, VarianceModel],
    features: np.ndarray | None = None,
    view: BaselineView | None = None,
) -> np.ndarray:
    """Features and the baselines' view of the same rows. [..., n, features + k] float32, NaN while warming up.

    `features`: make_features(series, timeframe), `view`: baseline_view(...), when the caller has them already. A view of
    the last rows makes those rows only.
    """
    view = view or baseline_view(series, timeframe, models)
    rows = view.states.shape[-2]
    if features is None:
        features = make_features(series, timeframe, rows)
    return np.concatenate([features, _compared(series.tail(rows), models, view)], axis=-1, dtype=np.float32)


def _compared(series: Series, models: dict[str, VarianceModel], view: BaselineView) -> np.ndarray:
    """Log ratios: the yardstick's states against their mean, other baselines and the season against the yardstick."""
    season, states = models[YARDSTICK].season, view.states
    middle = states.mean(axis=-1)
    own = view.log_rv[YARDSTICK]
    columns = [states[..., k] - middle for k in range(states.shape[-1])]
    for h in own:
        ahead = by_place(season.log_ahead(h, h), series.position)
        columns += [ahead, own[h] - ahead - middle]
    for family in COMPARED:
        other = view.log_rv[family]
        columns += [other[h] - own[h] for h in own]
    return np.stack(columns, axis=-1)


def net_inputs(
    series: Series, timeframe: Timeframe, models: dict[str, VarianceModel], view: BaselineView | None = None
) -> np.ndarray:
    """Raw bars for the nets, volatility-normalised. [..., n, 10] float32 within +-CLIP; 0 while warming up.

    Columns: return, high-low range and its wicks over the bar's expected standard deviation (known a bar earlier, times the
    bar's season), the baseline's two horizons against its level, the season ahead, New York time of day and week.
    A `view` of the last rows makes those rows only; the first of them has no bar before it and is 0 in part.
    """
    view = view or baseline_view(series, timeframe, models, (YARDSTICK,))
    season, states = models[YARDSTICK].season, view.states
    bars = series.tail(states.shape[-2])
    level = states[..., 1]  # a week of squared returns
    sigma = np.exp(0.5 * lagged(level, 1)) * np.sqrt(by_place(season.factor, bars.position))
    own = view.log_rv[YARDSTICK]
    first, last = min(own), max(own)
    ahead = {h: by_place(season.log_ahead(h, h), bars.position) for h in (first, last)}
    columns = [
        bars.log_return / sigma,
        0.5 * np.log(np.maximum(parkinson(bars), 1e-16)) - np.log(sigma),
        np.log(bars.close / bars.low) / sigma - np.log(bars.high / bars.close) / sigma,
        own[first] - ahead[first] - level,
        own[last] - ahead[last] - level,
        states[..., 0] - level,
        *clock(bars.position, timeframe)[:4],
    ]
    table = np.stack(np.broadcast_arrays(*columns), axis=-1)
    return np.nan_to_num(np.clip(table, -CLIP, CLIP)).astype(np.float32)
