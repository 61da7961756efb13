"""What we forecast: forward log-returns and realised variances, dated at the close they are forecast from.

r[t, h] = log(close[t+h] / close[t]); rv[t, h] = sum of squared 1-bar log-returns over (t, t+h], h in bars.
Row t's label ends at bar t+h: rows whose label ends after the last bar hold NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuning.rolling import lagged, rolling_sum
from tuning.series import Series

NEVER = np.datetime64("9999-12-31T00:00:00", "us")  # the label's end lies after the last bar


@dataclass(frozen=True)
class Targets:
    """Labels of one symbol, each [n]. `label_end`: close time of bar t + the longest horizon; NEVER where open."""

    ret: dict[int, np.ndarray]
    rv: dict[int, np.ndarray]
    label_end: np.ndarray


def make_targets(series: Series, horizons: tuple[int, ...]) -> Targets:
    ret, rv = {}, {}
    squared = series.log_return**2
    log_close = np.log(series.close)
    for h in horizons:
        ret[h] = lead(log_close, h) - log_close
        rv[h] = lead(rolling_sum(squared, h), h)
    longest = max(horizons)
    end = np.full(len(series), NEVER)
    end[: len(series) - longest] = series.close_time[longest:]
    return Targets(ret, rv, end)


def lead(x: np.ndarray, rows: int) -> np.ndarray:
    """The value `rows` later; NaN where there is none. [n] -> [n]"""
    return lagged(x[::-1], rows)[::-1]
