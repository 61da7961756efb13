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
from tuning.rolling import lagged, rolling_max, rolling_means, rolling_min, rolling_sums
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


def make_features(series: Series, timeframe: Timeframe) -> np.ndarray:
    """[n, len(feature_names)] float64; NaN in the first `lookback` rows and, in "spread", where there is none.

    Long histories are worked through in pieces that fit the processor's cache, each with its look-back: the same bits.
    """
    out = np.empty((len(series), len(feature_names(timeframe))))
    for start in range(0, len(series), PIECE):
        first = max(start - lookback(timeframe), 0)
        made = _columns(series.rows(first, start + PIECE), timeframe)
        np.stack([column[start - first :] for column in made], axis=1, out=out[start : start + PIECE])
    return out


def _columns(series: Series, timeframe: Timeframe) -> list[np.ndarray]:
    """One array [n] per feature, in the order of feature_names."""
    short, day, week, month = _windows(timeframe)
    r, squared, ranges = series.log_return, series.log_return**2, parkinson(series)
    windows = (short, 2 * short, day, week, month)
    variance = {k: np.maximum(mean, TINY) for k, mean in rolling_means(squared, windows).items()}
    spans = {k: np.maximum(mean, TINY) for k, mean in rolling_means(ranges, (1, *windows)).items()}
    usual, usual_range = variance[week], spans[week]
    sigma = np.sqrt(usual)
    sums = rolling_sums(r, (1, *windows))
    columns = [sums[k] / (sigma * np.sqrt(k)) for k in (1, *windows)]
    columns += [lagged(r, 1) / sigma, lagged(r, 2) / sigma]
    height = np.maximum(series.high - series.low, series.close * 1e-9)
    columns += [(series.close - series.open) / height, np.log(spans[1] / usual_range)]
    columns += [np.log(variance[k] / usual) for k in (short, 2 * short, day, month)]
    columns += [np.log(spans[k] / usual_range) for k in (short, 2 * short, day, month)]
    down = squared * (r < 0)
    columns += [mean / variance[k] for k, mean in rolling_means(down, (day, week)).items()]
    product = r * lagged(r, 1)
    columns += [mean / variance[k] for k, mean in rolling_means(product, (day, week)).items()]
    columns += [_place(series, k) for k in (day, week)]
    columns += [*_clock(series.position, timeframe), series.spread / sigma]
    return columns


def _place(series: Series, window: int) -> np.ndarray:
    """Where the close lies between the window's low (0) and high (1). [n]"""
    low, high = rolling_min(series.low, window), rolling_max(series.high, window)
    return (series.close - low) / np.maximum(high - low, series.close * 1e-9)


def _clock(position: np.ndarray, timeframe: Timeframe) -> list[np.ndarray]:
    """Sine and cosine of the New York day and trading week, and the hour of the day (0 is 17:00). Five of [n]"""
    return [column[position] for column in _clock_table(timeframe)]


@cache
def _clock_table(timeframe: Timeframe) -> list[np.ndarray]:
    """The same by place in the week. A day more than a week: the weekend of a clock change is an hour longer."""
    places = positions_per_week(timeframe)
    position = np.arange(places * 8 // 7 + 1)
    week, day = 2 * np.pi * position / places, 2 * np.pi * position * 7 / places
    hour = (position * timeframe.seconds // 3600) % 24
    return [np.sin(day), np.cos(day), np.sin(week), np.cos(week), hour.astype(float)]
