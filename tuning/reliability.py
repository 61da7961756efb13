"""Do forecasts keep what they promise: shares with confidence bands, by bin, level, symbol and session.

Outcomes overlap in time and symbols share shocks, so a plain binomial band is too narrow: bands here are binomial-HAC.
Knows shares and times; fits nothing and passes no verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

import numpy as np

from market.forecasts import QUANTILE_LEVELS
from tuning.out_of_fold import OutOfFold
from tuning.series import seconds_into_week
from tuning.significance import bandwidth, long_run_variance

# Hours of a day in New York, where the trading week is told: 17 is the open, London's morning is 03.
SESSIONS = {
    "Rollover": (14, 15, 16, 17, 18),
    "Asia": (19, 20, 21, 22, 23, 0, 1, 2),
    "London": (3, 4, 5, 6, 7),
    "New York": (8, 9, 10, 11, 12, 13),
}
BINS = 10


@dataclass(frozen=True)
class Share:
    """A share of rows, its 95 % band, and how many rows and timestamps it is taken from."""

    value: float
    low: float
    high: float
    n: int
    timestamps: int


def hac_share(hits: np.ndarray, rows: np.ndarray, time: np.ndarray, horizon: int) -> Share:
    """Share of hits (bool [n]) among `rows` (bool [n]) at `time` [n], labels `horizon` bars long.

    A ratio of two sums over time, with the delta method on their long-run variance: rows of one timestamp count together,
    and timestamps without such rows count as zero. Never narrower than the binomial band of Agresti & Coull (1998).
    """
    n = int(rows.sum())
    if n == 0:
        return Share(float("nan"), float("nan"), float("nan"), 0, 0)
    _, at = np.unique(time, return_inverse=True)
    value = float(hits[rows].mean())
    error = np.bincount(at, weights=np.where(rows, hits - value, 0.0))
    length = len(error)
    serial = long_run_variance(error, bandwidth(length, horizon)) * length / n**2
    shrunk = (value * n + 2) / (n + 4)
    half = 1.96 * sqrt(max(serial, shrunk * (1 - shrunk) / (n + 4)))
    return Share(value, max(value - half, 0.0), min(value + half, 1.0), n, len(np.unique(at[rows])))


def session_of(time: np.ndarray) -> np.ndarray:
    """Name of the session in which the bar after each close opens. datetime64 [n] -> str [n]"""
    hour = (17 + seconds_into_week(time) // 3600) % 24
    names = np.empty(24, object)
    for name, hours in SESSIONS.items():
        names[list(hours)] = name
    return names[hour]


def groups(oof: OutOfFold) -> dict[str, dict[str, np.ndarray]]:
    """Rows of the test folds, bool [n]: {"all": {"all"}, "symbol": {...}, "session": {...}}; empty ones left out."""
    tested = oof.fold >= 0
    session = session_of(oof.time)
    found = {
        "all": {"all": tested},
        "symbol": {name: tested & (oof.symbol == k) for k, name in enumerate(oof.symbols)},
        "session": {name: tested & (session == name) for name in SESSIONS},
    }
    return {kind: {name: rows for name, rows in of.items() if rows.any()} for kind, of in found.items()}


def coverage_by_group(oof: OutOfFold, quantiles: np.ndarray, h: int, promised: float) -> dict[str, dict[str, Any]]:
    """Share of outcomes inside the central interval that promises `promised`, by group. quantiles [n, levels]"""
    low = int(np.argmin(np.abs(np.asarray(QUANTILE_LEVELS) - (1.0 - promised) / 2.0)))
    lower, upper, ret = quantiles[:, low], quantiles[:, len(QUANTILE_LEVELS) - 1 - low], oof.ret[h]
    known = np.isfinite(lower) & np.isfinite(upper) & np.isfinite(ret)
    inside = (ret >= lower) & (ret <= upper)
    return {
        kind: {name: asdict(hac_share(inside, rows & known, oof.time, h)) for name, rows in of.items()}
        for kind, of in groups(oof).items()
    }


def quantile_reliability(oof: OutOfFold, quantiles: np.ndarray, h: int) -> list[dict[str, Any]]:
    """Per level the share of outcomes at or below the quantile: the probability integral transform at seven points."""
    rows = (oof.fold >= 0) & np.isfinite(quantiles).all(axis=1) & np.isfinite(oof.ret[h])
    return [
        {"level": level} | asdict(hac_share(oof.ret[h] <= quantiles[:, k], rows, oof.time, h))
        for k, level in enumerate(QUANTILE_LEVELS)
    ]


def probability_bins(oof: OutOfFold, p_up: np.ndarray, h: int) -> list[dict[str, Any]]:
    """Rows cut into BINS groups of about equal size by p_up: the mean forecast ("said") and the share of ups with its band.

    Equal forecasts stay in one group, so a forecast with few values has fewer groups.
    """
    rows = (oof.fold >= 0) & np.isfinite(p_up) & np.isfinite(oof.ret[h])
    if not rows.any():
        return []
    edges = np.unique(np.quantile(p_up[rows], np.linspace(0, 1, BINS + 1)))[1:-1]
    place = np.searchsorted(edges, p_up, side="right")
    made = []
    for k in np.unique(place[rows]):
        own = rows & (place == k)
        made.append({"said": float(p_up[own].mean())} | asdict(hac_share(oof.ret[h] > 0, own, oof.time, h)))
    return made


def calibration(oof: OutOfFold, name: str) -> dict[str, Mapping[str, Any]]:
    """All of the above for the family `name`: {"r24": {"coverage", "quantiles"}, "sign24": {"bins", "base_rate"}, ...}."""
    found: dict[str, Mapping[str, Any]] = {}
    for h in sorted(oof.horizons, reverse=True):
        quantiles = oof.quantiles.get(name, {}).get(h)
        if quantiles is not None:
            by = {str(round(100 * share)): coverage_by_group(oof, quantiles, h, share) for share in (0.8, 0.9)}
            found[f"r{h}"] = {"coverage": by, "quantiles": quantile_reliability(oof, quantiles, h)}
        p_up = oof.families[name].p_up.get(h) if name in oof.families else None
        if p_up is not None:
            tested = (oof.fold >= 0) & np.isfinite(oof.ret[h])
            ups = asdict(hac_share(oof.ret[h] > 0, tested, oof.time, h))
            found[f"sign{h}"] = {"bins": probability_bins(oof, p_up, h), "base_rate": ups}
    return found
