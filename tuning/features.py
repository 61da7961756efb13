"""Engineered features for the trees: one implementation for training and for serving. Fits nothing.

Every feature is scale-free, known at the bar's close and has a finite look-back, and is computed so that the tail of a
history gives the same bits as the whole of it (see rolling.py).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache, cached_property

import numpy as np

from market.timeframes import Timeframe
from tuning.learners.baseline import TINY, components, parkinson
from tuning.learners.baseline import lookback as baseline_lookback
from tuning.rolling import lagged, rolling_maxima, rolling_means, rolling_minima, rolling_sums
from tuning.series import Series, positions_per_week

PIECE = 16_384  # rows
VERSION = 1  # raise it when a feature changes its meaning: bundles made before are refused then


@dataclass(frozen=True)
class FeatureSpec:
    """What a model was fed: column names, bars of look-back, chunk length of the nets, horizons in bars."""

    timeframe: str
    names: tuple[str, ...]
    lookback: int
    window: int
    horizons: tuple[int, ...]
    version: int = VERSION

    @cached_property
    def digest(self) -> str:
        """sha256 of the canonical JSON of all fields."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def make_spec(timeframe: Timeframe, window: int) -> FeatureSpec:
    return FeatureSpec(timeframe.value, feature_names(timeframe), lookback(timeframe), window, timeframe.horizons)


def lookback(timeframe: Timeframe) -> int:
    """Bars before a row, the row's own included, that its features and its baseline forecasts may look at."""
    return max(baseline_lookback(timeframe), components(timeframe)[3] + 2)


def feature_names(timeframe: Timeframe) -> tuple[str, ...]:
    short, day, week, month = _windows(timeframe)
    momentum = [f"momentum_{k}" for k in (1, short, 2 * short, day, week, month)]
    ratios = [f"{kind}_{k}" for kind in ("volatility", "range") for k in (short, 2 * short, day, month)]
    shares = [f"{kind}_{k}" for kind in ("downside", "autocorrelation", "place") for k in (day, week)]
    return (
        *momentum, "return_lag1", "return_lag2", "body", "range_1", *ratios, *shares,
        "day_sin", "day_cos", "week_sin", "week_cos", "hour", "spread",
    )  # fmt: skip


def _windows(timeframe: Timeframe) -> tuple[int, int, int, int]:
    short, day, week, month = components(timeframe)
    return max(short, 3), max(day, 8), max(week, 12), month


def make_features(series: Series, timeframe: Timeframe, last: int | None = None) -> np.ndarray:
    """[..., last or n, len(feature_names)] float64; NaN in the first `lookback` rows and, in "spread", where there is none.

    `last`: that many rows at the end only. Long histories are worked through in pieces that fit the processor's cache,
    each with its look-back. All give the same bits.
    """
    n, names = len(series), feature_names(timeframe)
    rows = n if last is None else last
    out = np.empty((*series.close.shape[:-1], rows, len(names)))
    for start in range(n - rows, n, PIECE):
        end = min(start + PIECE, n)
        made = _columns(series.rows(max(start - lookback(timeframe), 0), end), timeframe, end - start)
        for k, column in enumerate(made):
            out[..., start - (n - rows) : end - (n - rows), k] = column
    return out


def _columns(series: Series, timeframe: Timeframe, last: int) -> list[np.ndarray]:
    """One array [..., last] (or [last] for all symbols) per feature, in the order of feature_names."""
    short, day, week, month = _windows(timeframe)
    windows = (short, 2 * short, day, week, month)
    r, squared, before = series.log_return, series.log_return**2, lagged(series.log_return, 1)
    variance = {k: np.maximum(mean, TINY) for k, mean in rolling_means(squared, windows, last).items()}
    spans = {k: np.maximum(mean, TINY) for k, mean in rolling_means(parkinson(series), (1, *windows), last).items()}
    usual, usual_range = variance[week], spans[week]
    sigma, bars = np.sqrt(usual), series.tail(last)
    columns = [total / (sigma * np.sqrt(k)) for k, total in rolling_sums(r, (1, *windows), last).items()]
    columns += [before[..., -last:] / sigma, lagged(r, 2)[..., -last:] / sigma]
    height = np.maximum(bars.high - bars.low, bars.close * 1e-9)
    columns += [(bars.close - bars.open) / height, np.log(spans[1] / usual_range)]
    columns += [np.log(variance[k] / usual) for k in (short, 2 * short, day, month)]
    columns += [np.log(spans[k] / usual_range) for k in (short, 2 * short, day, month)]
    for shared in (squared * (r < 0), r * before):  # downside, autocorrelation
        columns += [mean / variance[k] for k, mean in rolling_means(shared, (day, week), last).items()]
    low, high = rolling_minima(series.low, (day, week), last), rolling_maxima(series.high, (day, week), last)
    columns += [(bars.close - low[k]) / np.maximum(high[k] - low[k], bars.close * 1e-9) for k in (day, week)]
    columns += [*clock(bars.position, timeframe), bars.spread / sigma]
    return columns


def clock(position: np.ndarray, timeframe: Timeframe) -> list[np.ndarray]:
    """Sine and cosine of the New York day and trading week, and the hour of the day (0 is 17:00).

    int [..., n] -> five of [..., n]
    """
    return [column[position] for column in _clock_table(timeframe)]


@cache
def _clock_table(timeframe: Timeframe) -> list[np.ndarray]:
    """The same by place in the week. A day more than a week: the weekend of a clock change is an hour longer."""
    places = positions_per_week(timeframe)
    position = np.arange(places * 8 // 7 + 1)
    week, day = 2 * np.pi * position / places, 2 * np.pi * position * 7 / places
    hour = (position * timeframe.seconds // 3600) % 24
    return [np.sin(day), np.cos(day), np.sin(week), np.cos(week), hour.astype(float)]
