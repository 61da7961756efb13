"""Live losses of one model beside those of the baseline inside it, per close and symbol, and what they say: live skill.

Both forecasts were recorded before the outcome that judges them. Pure; bounded: the newest CLOSES_KEPT closes count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from actors.ledger_reading import Settled
from market.forecasts import QUANTILE_LEVELS
from tuning.adaptive_calibration import in_levels
from tuning.metrics import log_loss, pinball, qlike
from tuning.significance import hac_test

KINDS = ("rv", "r", "sign")  # QLIKE of the variance, pinball loss of the quantiles, log-loss of the direction
CLOSES_KEPT = 1500  # three months of H1
SPARE = 300  # closes that may pile up before the oldest are thrown away
_NO_QUANTILES = [np.nan] * len(QUANTILE_LEVELS)


@dataclass(frozen=True)
class LiveFigure:
    """Live skill of one target, of one symbol or of all: value = 1 - loss / baseline loss, HAC t (negative: better).

    n: outcomes; since: as-of of the first; coverage80: of the return's 80 % interval. What is None is so for `reason`.
    """

    value: float | None
    t: float | None
    n: int
    since: datetime | None
    coverage80: float | None
    reason: str


def closes_needed(bars: int) -> int:
    """Closes with known outcomes from which on a horizon's live skill is said: those that its HAC t needs."""
    return max(30, 4 * bars)


def losses_of(rows: Sequence[Settled]) -> np.ndarray:
    """Loss and baseline's loss of each row and kind: [n, kinds, 2]. NaN, both, where one of them said nothing.

    Quantiles are the model's own: adapting their widths would do the baseline's as much good.
    """
    nothing: dict[str, Any] = {}
    said = [(row.horizon, row.horizon.get("baseline") or nothing) for row in rows]
    rv = np.array([row.outcome["volatility"] for row in rows]) ** 2
    ret = np.array([row.outcome["return"] for row in rows])
    found = np.full((len(rows), len(KINDS), 2), np.nan)
    for k in range(2 if rows else 0):
        own = [pair[k] for pair in said]
        sigma = np.array([one.get("volatility") for one in own], float)
        p_up = np.array([one.get("p_up") for one in own], float)
        levels = [in_levels(one.get("model_quantiles") or one.get("quantiles")) or _NO_QUANTILES for one in own]
        found[:, 0, k] = qlike(rv, sigma**2)
        found[:, 1, k] = pinball(ret, np.array(levels, float))
        found[:, 2, k] = log_loss((ret > 0).astype(float), p_up)
    found[~np.isfinite(found).all(axis=2)] = np.nan
    return found


class LiveLosses:
    """`since`: wall time from which on the model serves; only forecasts made since then are its tenure's.

    `skipped`: closes of the tenure that came before all those that will be given.
    """

    def __init__(self, symbols: Sequence[str], horizons: Sequence[int], since: datetime, skipped: int = 0) -> None:
        self.symbols, self.horizons = tuple(symbols), tuple(horizons)
        self.skipped, self.baseline = skipped, "har_how"
        self._since, self._n, self._forgotten = since, 0, np.datetime64(0, "us")
        self._column = {symbol: k for k, symbol in enumerate(self.symbols)}
        self._row: dict[datetime, int] = {}
        rows = CLOSES_KEPT + SPARE
        self._time = np.zeros(rows, "datetime64[us]")
        self._tenure = np.zeros(rows, bool)
        self._loss = np.full((rows, len(self.symbols), len(self.horizons), len(KINDS), 2), np.nan)
        self._inside = np.full((rows, len(self.symbols), len(self.horizons)), np.nan)

    def take(self, rows: Sequence[Settled]) -> None:
        """Outcomes of this model's forecasts, each once, in any order."""
        known = [row for row in rows if row.symbol in self._column and row.horizon["bars"] in self.horizons]
        for row, losses in zip(known, losses_of(known), strict=True):
            at = self._place(row.as_of)
            if at is None:
                continue
            where = at, self._column[row.symbol], self.horizons.index(row.horizon["bars"])
            self._loss[where] = losses
            inside = row.outcome.get("inside80")
            self._inside[where] = np.nan if inside is None else inside
            self._tenure[at] |= row.made_at >= self._since
            self.baseline = (row.horizon.get("baseline") or {}).get("name", self.baseline)

    def _place(self, as_of: datetime) -> int | None:
        """The close's row; None for one that is too old."""
        if as_of not in self._row:
            time = np.datetime64(as_of.astimezone(UTC).replace(tzinfo=None), "us")
            if time <= self._forgotten:
                return None
            if self._n == len(self._time):
                self._forget()
            self._time[self._n] = time
            self._row[as_of] = self._n
            self._n += 1
        return self._row[as_of]

    def _forget(self) -> None:
        """Keep the newest CLOSES_KEPT, in order."""
        order = np.argsort(self._time, kind="stable")
        old, kept = order[:-CLOSES_KEPT], order[-CLOSES_KEPT:]
        self.skipped += int(self._tenure[old].sum())
        self._forgotten = self._time[old].max()
        for array in (self._time, self._tenure, self._loss, self._inside):
            array[: len(kept)] = array[kept]
        self._tenure[len(kept) :] = False
        self._loss[len(kept) :] = self._inside[len(kept) :] = np.nan
        place = {int(row): k for k, row in enumerate(kept)}
        self._row = {as_of: place[row] for as_of, row in self._row.items() if row in place}
        self._n = len(kept)

    def tenure_losses(self, target: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As-of closes of the tenure, oldest first, and there the means over symbols of loss and baseline loss: [m] each."""
        order = np.argsort(self._time[: self._n], kind="stable")
        order = order[self._tenure[order]]
        h, k = self._where(target)
        mean, known = _over_symbols(self._loss[order, :, h, k])
        return self._time[order][known], mean[:, 0], mean[:, 1]

    def figures(self) -> dict[tuple[str, str | None], LiveFigure]:
        """(target, symbol, or None for all) -> its figure."""
        order = np.argsort(self._time[: self._n], kind="stable")[-CLOSES_KEPT:]
        time = self._time[order]
        found: dict[tuple[str, str | None], LiveFigure] = {}
        for h, bars in enumerate(self.horizons):
            inside = self._inside[order, :, h]
            for k, kind in enumerate(KINDS):
                losses = self._loss[order, :, h, k]
                found[f"{kind}{bars}", None] = _figure(time, losses, inside, bars)
                for symbol, s in self._column.items():
                    one = slice(s, s + 1)
                    found[f"{kind}{bars}", symbol] = _figure(time, losses[:, one], inside[:, one], bars)
        return found

    def _where(self, target: str) -> tuple[int, int]:
        kind = target.rstrip("0123456789")
        return self.horizons.index(int(target[len(kind) :])), KINDS.index(kind)


def _over_symbols(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over symbols at each close that has any: [closes, symbols, 2] -> [m, 2], and which closes those are."""
    known = np.isfinite(losses[..., 0])
    count = known.sum(axis=1)
    sums = np.where(known[..., None], losses, 0.0).sum(axis=1)
    return sums[count > 0] / count[count > 0, None], count > 0


def _figure(time: np.ndarray, losses: np.ndarray, inside: np.ndarray, bars: int) -> LiveFigure:
    """losses: [closes, symbols, 2], inside: [closes, symbols] of one target at `time`, oldest first."""
    judged = np.isfinite(inside)
    counted = judged | np.isfinite(losses[..., 0])
    n, at = int(counted.sum()), np.flatnonzero(counted.any(axis=1))
    since = time[at[0]].astype(datetime).replace(tzinfo=UTC) if n else None
    coverage = float(inside[judged].mean()) if judged.any() else None
    mean, _ = _over_symbols(losses)
    needed = closes_needed(bars)
    if len(mean) < needed:
        reason = f"{len(mean)} closes have known outcomes of the forecast and its baseline; {needed} are needed."
        return LiveFigure(None, None, n, since, coverage, reason)
    own, other = mean.mean(axis=0)
    gap = mean[:, 0] - mean[:, 1]
    gap[np.abs(gap) < 1e-12 * np.abs(mean[:, 1]).max()] = 0.0  # the same forecast, but for the last digit
    t = hac_test(gap, bars).t
    reason = "" if np.isfinite(t) else "t cannot be measured: the losses differ by a constant."
    value = 1.0 - own / other if other > 0 else None
    if value is None:
        reason = "The baseline's loss is zero."
    return LiveFigure(value, float(t) if np.isfinite(t) else None, n, since, coverage, reason)
