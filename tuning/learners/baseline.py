"""Econometric volatility forecasts: HAR, EWMA and the unconditional mean, each with and without hour-of-week.

They cost milliseconds and are the bar every other learner has to beat. All share one form,

    log f[t, h] = log S_h(t) + c0 + c1 x1[t] + ... ,

where S_h is the season of the next h bars (h itself without hour-of-week) and x are logs of mean deseasonalised squared
returns: over an hour, a day and a week for HAR (Corsi 2009), exponentially weighted for EWMA (RiskMetrics 1996). "har_range"
adds the high-low range (Parkinson 1980) and a longer memory. Long horizons are fitted on logs, then scaled so that the
mean of rv / f is one, which is what QLIKE asks; the next bar, whose rv is one squared return and often zero, by gamma
regression. Fits one symbol at a time and forecasts one, or several side by side ([symbols, n]). Knows no folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from market.errors import NotEnoughBars
from market.timeframes import Timeframe
from tuning.rolling import ewma, rolling_means
from tuning.series import Series, positions_per_week

BASELINES = ("har", "har_how", "har_range", "ewma", "ewma_how", "unconditional", "unconditional_how")
SEASONAL = ("har_how", "har_range", "ewma_how", "unconditional_how")
EWMA_DECAY = 0.94
EWMA_WINDOW = 256
_COMPONENTS = {  # bars: about an hour, a day, a week, and four weeks (the last for "har_range" only)
    "M1": (5, 60, 480, 1440),
    "M5": (12, 96, 288, 1440),
    "M15": (4, 96, 480, 960),
    "M30": (2, 48, 240, 960),
    "H1": (1, 24, 120, 480),
    "H4": (1, 6, 30, 120),
    "D1": (1, 5, 22, 66),
}
CALM_FLOOR = 0.05  # a component never counts as less than this share of the weekly one: a zero return is not news
TINY = 1e-12  # variance of one bar below any price step


def components(timeframe: Timeframe) -> tuple[int, int, int, int]:
    return _COMPONENTS[timeframe.value]


def lookback(timeframe: Timeframe) -> int:
    """Bars before the as-of bar that any baseline looks at, the as-of bar included."""
    return max(*components(timeframe), EWMA_WINDOW) + 1


@dataclass(frozen=True)
class Season:
    """Mean squared return by place in the trading week, relative to the week's mean; which places are traded at all."""

    factor: np.ndarray  # [places], or [symbols, places] side by side
    traded: np.ndarray  # bool, the same shape

    def ahead(self, h: int) -> np.ndarray:
        """Sum of factors over the next h traded bars after a bar at each place. [..., places]

        The calendar, not the data, says which bars come next: this is what a live forecast knows.
        """
        if self.factor.ndim > 1:
            return np.stack([Season(*one).ahead(h) for one in zip(self.factor, self.traded, strict=True)])
        places = np.flatnonzero(self.traded)
        laps = h // len(places) + 2
        total = np.concatenate([[0.0], np.cumsum(np.tile(self.factor[places], laps))])
        first = np.searchsorted(places, np.arange(len(self.factor)), side="right")
        return total[first + h] - total[first]

    def log_ahead(self, h: int, unit: int = 1) -> np.ndarray:
        """log(ahead(h) / unit), kept: a forecast asks for the same ones at every bar. [..., places]"""
        if (h, unit) not in self._logs:
            self._logs[h, unit] = np.log(self.ahead(h) / unit)
        return self._logs[h, unit]

    @cached_property
    def _logs(self) -> dict[tuple[int, int], np.ndarray]:
        return {}


def by_place(table: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Each bar's entry in a table by place in the week. [..., places], int [n] or [..., n] -> [..., n]"""
    place = position % table.shape[-1]
    return table[..., place] if place.ndim == 1 else np.take_along_axis(table, place, axis=-1)


def flat_season(timeframe: Timeframe) -> Season:
    places = positions_per_week(timeframe)
    return Season(np.ones(places), np.ones(places, bool))


def fit_season(position: np.ndarray, squared: np.ndarray, timeframe: Timeframe, shrink: float = 30.0) -> Season:
    """Hour-of-week season of squared returns (longer bars: one place per bar), shrunk towards the hour of the day.

    position, squared: [n] of the training rows, NaN rows are left out. `shrink`: the hour-of-day mean counts as that
    many observations.
    """
    places = positions_per_week(timeframe)
    known = np.isfinite(squared)
    position, squared = position[known] % places, squared[known]
    hours = np.arange(places) * timeframe.seconds // 3600  # hour of the week of each place
    level = max(float(squared.mean()), TINY)
    by_hour = np.bincount(hours[position], minlength=168), np.bincount(hours[position], squared, minlength=168)
    by_day = (np.bincount(np.arange(168) % 24, values, minlength=24) for values in by_hour)
    count_day, sum_day = by_day
    prior = (sum_day + shrink * level) / (count_day + shrink)
    count, total = by_hour
    mean = (total + shrink * prior[np.arange(168) % 24]) / (count + shrink)
    seen = np.bincount(position, minlength=places)
    traded = seen > 0.5 * np.median(seen[seen > 0])
    factor = mean[hours] / level
    return Season(np.maximum(factor / factor[traded].mean(), 0.02), traded)


@dataclass(frozen=True)
class VarianceModel:
    """A fitted baseline. `coefficients[h]` [k]: c0, c1, ... ; a family without states has c0 only.

    Of one symbol, or of several side by side (`side_by_side`): every array has a leading axis [symbols] then.
    """

    family: str
    timeframe: Timeframe
    season: Season
    coefficients: dict[int, np.ndarray]

    def log_rv(
        self, series: Series, states: np.ndarray | None = None, last: int | None = None
    ) -> dict[int, np.ndarray]:
        """Log of the forecast rv over the next h bars. h -> [..., last or n], NaN while the look-back warms up.

        `states`: make_states of the same rows, when the caller has them already.
        """
        if states is None:
            states = make_states(self.family, series, self.season, self.timeframe, last)
        design, position = _design(states), series.tail(states.shape[-2]).position
        return {
            h: (design @ c[..., None])[..., 0] + by_place(self.season.log_ahead(h), position)
            for h, c in self.coefficients.items()
        }

    def to_dict(self) -> dict[str, Any]:
        return {
            "family": self.family,
            "timeframe": self.timeframe.value,
            "factor": self.season.factor.tolist(),
            "traded": self.season.traded.astype(int).tolist(),
            "coefficients": {str(h): c.tolist() for h, c in self.coefficients.items()},
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> VarianceModel:
        season = Season(np.array(fields["factor"], float), np.array(fields["traded"], bool))
        coefficients = {int(h): np.array(c, float) for h, c in fields["coefficients"].items()}
        return cls(fields["family"], Timeframe.parse(fields["timeframe"]), season, coefficients)


def side_by_side(models: Sequence[VarianceModel]) -> VarianceModel:
    """One family's models of several symbols as one, for a Series [symbols, n]: each forecasts as if it were alone."""
    first = models[0]
    season = Season(np.stack([m.season.factor for m in models]), np.stack([m.season.traded for m in models]))
    coefficients = {h: np.stack([m.coefficients[h] for m in models]) for h in first.coefficients}
    return VarianceModel(first.family, first.timeframe, season, coefficients)


def make_states(
    family: str, series: Series, season: Season, timeframe: Timeframe, last: int | None = None
) -> np.ndarray:
    """Logs of deseasonalised variance the family looks at, of all rows or the `last` ones. [..., last or n, k]

    NaN while warming up; k = 0 for the unconditional.
    """
    kind = family.removesuffix("_how")
    if kind == "unconditional":
        return np.empty((*series.close.shape[:-1], last or len(series), 0))
    factor = by_place(season.factor, series.position)
    squared = series.log_return**2 / factor
    if kind == "ewma":
        return np.log(np.maximum(ewma(squared, EWMA_DECAY, EWMA_WINDOW, last), TINY))[..., None]
    short, day, week, month = components(timeframe)
    means = list(rolling_means(squared, (short, day, week), last).values())
    floor = np.maximum(CALM_FLOOR * means[-1], TINY)
    if kind == "har_range":
        ranges = parkinson(series) / factor
        means = means[1:] + list(rolling_means(ranges, (short, day, week, month), last).values())
    return np.log(np.stack([np.maximum(mean, floor) for mean in means], axis=-1))


def parkinson(series: Series) -> np.ndarray:
    """Variance of each bar from its high and low, log(high / low)^2 / (4 log 2). [..., n]"""
    return np.log(series.high / series.low) ** 2 / (4.0 * np.log(2.0))


def _design(states: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((*states.shape[:-1], 1)), states], axis=-1)


def fit_baselines(
    series: Series,
    rv: dict[int, np.ndarray],
    rows: np.ndarray,
    timeframe: Timeframe,
    families: tuple[str, ...] = BASELINES,
) -> dict[str, VarianceModel]:
    """Fit on the training `rows` (ascending) of one symbol. NotEnoughBars when fewer than 100 rows have labels.

    Squared returns of the training rows give the season: nothing after the last training row is looked at, except
    through the labels `rv`, which the caller has purged.
    """
    if len(rows) < 100:
        raise NotEnoughBars(f"{series.symbol}: {len(rows)} training rows, 100 are needed.", hint="Backfill more bars.")
    season = fit_season(series.position[rows], series.log_return[rows] ** 2, timeframe)
    flat = flat_season(timeframe)
    models = {}
    for family in families:
        used = season if family in SEASONAL else Season(flat.factor, season.traded)
        states = make_states(family, series, used, timeframe)[rows]
        place = series.position[rows] % len(used.factor)
        coefficients = {h: _fit(family, states, rv[h][rows] / used.ahead(h)[place], h) for h in rv}
        models[family] = VarianceModel(family, timeframe, used, coefficients)
    return models


def _fit(family: str, states: np.ndarray, y: np.ndarray, h: int) -> np.ndarray:
    """Coefficients of log E[y | states], y the deseasonalised variance per bar. EWMA only gets its level fitted."""
    known = np.isfinite(y) & np.isfinite(states).all(axis=1)
    states, y = states[known], np.maximum(y[known], 0.0)
    if not family.startswith("har"):
        return _scaled(np.concatenate([[0.0], np.ones(states.shape[1])]), states, y)
    if h == 1:
        return fit_gamma(_design(states), y)
    floored = np.log(np.maximum(y, max(0.01 * float(np.median(y)), TINY)))
    return _scaled(least_squares(_design(states), floored), states, y)


def least_squares(design: np.ndarray, y: np.ndarray, ridge: float = 1e-6) -> np.ndarray:
    """Ordinary least squares through the normal equations; `design` has a leading column of ones. [k]"""
    centre, middle = design[:, 1:].mean(axis=0), float(y.mean())
    x = design[:, 1:] - centre
    slopes = np.linalg.solve(x.T @ x / len(x) + ridge * np.eye(x.shape[1]), x.T @ (y - middle) / len(x))
    return np.concatenate([[middle - centre @ slopes], slopes])


def _scaled(coefficients: np.ndarray, states: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The same slopes with the level at which the mean of y / forecast is one: the QLIKE optimum."""
    ratio = float(np.mean(y * np.exp(-(_design(states) @ coefficients))))
    return coefficients + np.where(np.arange(len(coefficients)) == 0, np.log(max(ratio, TINY)), 0.0)


def fit_gamma(design: np.ndarray, y: np.ndarray, ridge: float = 1e-3, steps: int = 25) -> np.ndarray:
    """Minimise mean QLIKE, y / mu + log(mu) with mu = exp(design @ beta), by Fisher scoring. [k]

    design: [n, k] with a leading column of ones; y: [n] >= 0. Rows further than 20 times above their forecast count as
    20 times, so that one shock does not own the coefficients.
    """
    level = np.log(max(float(y.mean()), TINY))
    centre = design.mean(axis=0)
    x = design - np.where(np.arange(design.shape[1]) == 0, 0.0, centre)
    gram = x.T @ x / len(x) + ridge * np.diag(np.arange(x.shape[1]) > 0)
    beta = np.zeros(x.shape[1])
    beta[0] = level
    for _ in range(steps):
        surprise = np.clip(y * np.exp(-(x @ beta)), 0.0, 20.0) - 1.0
        step = np.linalg.solve(gram, x.T @ surprise / len(x) - ridge * np.where(np.arange(len(beta)) > 0, beta, 0.0))
        beta = beta + np.clip(step, -1.0, 1.0)
        if np.abs(step).max() < 1e-7:
            break
    beta[0] -= centre[1:] @ beta[1:]
    return beta
