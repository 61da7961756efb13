"""Do several recordings tell the same time? Markets move together, so a day that fits better an hour later has slipped.

Works on hourly returns; cannot say which of two clocks is wrong, only that they differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

HOURS = np.array([-2, -1, 0, 1, 2])
MIN_HOURS = 12  # of a day, in both recordings
MIN_PEERS = 2
CLEARLY = 0.45  # mean correlation gained by the shift; news days reach 0.4 by chance, a slipped day 0.47 and more


@dataclass(frozen=True)
class Disagreement:
    """On `day` (UTC) this recording's clock reads `hours` more than its peers' do."""

    day: np.datetime64
    hours: int


def disagreements(
    hours: np.ndarray, returns: np.ndarray, peers: list[tuple[np.ndarray, np.ndarray]]
) -> list[Disagreement]:
    """`hours`: whole hours since 1970, ascending [n]; `returns`: log-returns of those bars [n]; `peers`: the same of others.

    Score of a shift on a day: mean over peers of |correlation| of returns and of their sizes, so that neither the sign of
    the relation nor its stability matters. [] with fewer than MIN_PEERS that overlap.
    """
    if len(hours) == 0:
        return []
    first = int(hours[0]) // 24 * 24
    days = int(hours[-1]) // 24 + 1 - first // 24
    overlapping = [(h, r) for h, r in peers if len(h) and h[0] < first + days * 24 and h[-1] > first]
    if len(overlapping) < MIN_PEERS:
        return []
    ours = _by_day(hours, returns, first, days)
    scores = np.stack([_score(ours, overlapping, first, days, int(shift)) for shift in HOURS])  # [5, days]
    gain = np.where(np.isnan(scores), -np.inf, scores)
    best = gain.argmax(axis=0)
    still = scores[list(HOURS).index(0)]
    clear = gain.max(axis=0) - np.where(np.isnan(still), np.inf, still) > CLEARLY
    start = np.datetime64(first // 24, "D")
    return [Disagreement(start + int(day), int(HOURS[best[day]])) for day in np.flatnonzero(clear)]


def _by_day(hours: np.ndarray, values: np.ndarray, first: int, days: int) -> np.ndarray:
    """[days, 24], NaN where there is no bar."""
    grid = np.full(days * 24, np.nan)
    place = hours - first
    inside = (place >= 0) & (place < len(grid))
    grid[place[inside]] = values[inside]
    return grid.reshape(days, 24)


def _score(
    ours: np.ndarray, peers: list[tuple[np.ndarray, np.ndarray]], first: int, days: int, shift: int
) -> np.ndarray:
    total, count = np.zeros(days), np.zeros(days)
    for hours, returns in peers:
        theirs = _by_day(hours + shift, returns, first, days)
        for a, b in ((ours, theirs), (np.abs(ours), np.abs(theirs))):
            found = np.abs(_correlation(a, b))
            known = ~np.isnan(found)
            total[known] += found[known]
            count[known] += 1
    return np.where(count >= 2 * MIN_PEERS, total / np.maximum(count, 1), np.nan)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of each row, over the hours known in both; NaN with fewer than MIN_HOURS or without variation. [days]"""
    known = ~np.isnan(a) & ~np.isnan(b)
    n = known.sum(axis=1)
    a, b = np.where(known, a, 0.0), np.where(known, b, 0.0)
    count = np.maximum(n, 1)[:, None]
    a = np.where(known, a - a.sum(axis=1, keepdims=True) / count, 0.0)
    b = np.where(known, b - b.sum(axis=1, keepdims=True) / count, 0.0)
    scale = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    usable = (n >= MIN_HOURS) & (scale > 0)
    return np.where(usable, (a * b).sum(axis=1) / np.where(usable, scale, 1.0), np.nan)
