"""Is the champion still worth its place? Its live losses against those of its own baseline, from the ledger alone.

The same outcomes judge both forecasts, which were recorded before them. Nothing is remembered that the ledger does not
hold: after a restart the same rows give the same verdicts. Moves no pointer; knows neither Ray nor models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from math import pi
from typing import Any

import numpy as np
from scipy.special import stdtrit

from actors.prediction_ledger import Settled
from market.forecasts import iso_utc, jsonable
from tuning.adaptive_calibration import in_levels
from tuning.metrics import pinball, qlike
from tuning.model_version import ModelVersion
from tuning.significance import hac_test, panel_mean

LOOK_EVERY = 250  # as-of closes with known outcomes between two looks, and before the first: two trading weeks of H1
WINDOW = 1000  # closes that a look goes back: an old success must not hide a break for long
LIMIT = 2.0  # HAC t; later looks need more
FALSE_ALARMS = 0.05  # chance that all looks together, at both targets, bring down a champion as good as its baseline
METRICS = {"rv": "qlike", "r": "pinball"}

ReadSettled = Callable[
    [str, int, str], Sequence[Settled]
]  # timeframe, after this `seq`, model -> at most SETTLED_AT_ONCE


@dataclass(frozen=True)
class LiveVerdict:
    """One target at the newest look. loss, baseline_loss: means over the look's window; `closes`: known so far.

    t: HAC t of loss minus baseline loss; `limit`: what it takes to be called worse. Both None before the first look.
    """

    target: str
    metric: str
    baseline: str
    closes: int
    loss: float | None = None
    baseline_loss: float | None = None
    t: float | None = None
    limit: float | None = None
    worse: bool = False
    known_until: datetime | None = None  # market time: the last as-of close that was looked at
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        return jsonable(asdict(self))

    def in_words(self) -> str:
        figures = [f"{value:.3g}" for value in (self.loss, self.baseline_loss, self.t, self.limit) if value is not None]
        if len(figures) < 4:
            return self.reason
        return (
            f"its live {self.metric} of {self.target} was {figures[0]} against {figures[1]} of {self.baseline} inside it "
            f"(t = {figures[2]}, limit {figures[3]}, known up to {iso_utc(self.known_until)})"
        )


def t_limit(look: int, b: float, targets: int = len(METRICS)) -> float:
    """At least LIMIT, rising with each look (1, 2, ...), so that all looks ever made share FALSE_ALARMS.

    Level of look k: FALSE_ALARMS / targets * 6 / (pi k)^2, one-sided, which sums to the whole over all k. `b` is the
    test's lag / n: its t, scaled to mean 2 what it should, keeps the tails of a Student t with 1.5 / b degrees of freedom
    (the Bartlett kernel's; Lazarus, Lewis, Stock & Watson 2018, JBES 36).
    """
    level, freedom = FALSE_ALARMS / targets * 6.0 / (pi * look) ** 2, 1.5 / b
    return max(LIMIT, float(stdtrit(freedom, 1.0 - level) / stdtrit(freedom, 0.975)) * 1.96)


def look_at(
    target: str, horizon: int, baseline: str, time: np.ndarray, loss: np.ndarray, baseline_loss: np.ndarray
) -> LiveVerdict:
    """The verdict at the newest look that [n] rows allow; rows of any symbols, `time` is the as-of close.

    Looks stand at every LOOK_EVERY-th close, whenever they are taken: asking more often finds nothing new.
    """
    metric = METRICS[target.rstrip("0123456789")]
    times, own = panel_mean(loss, time)
    _, other = panel_mean(np.where(np.isfinite(loss), baseline_loss, np.nan), time)
    number = len(times) // LOOK_EVERY
    if number == 0:
        reason = f"judged from {LOOK_EVERY} known outcomes on"
        return LiveVerdict(target, metric, baseline, len(times), reason=reason)
    window = slice(max(0, number * LOOK_EVERY - WINDOW), number * LOOK_EVERY)
    test = hac_test(own[window] - other[window], horizon)
    limit, testable = t_limit(number, test.lag / test.n), bool(np.isfinite(test.t))
    return LiveVerdict(
        target,
        metric,
        baseline,
        len(times),
        float(own[window].mean()),
        float(other[window].mean()),
        test.t if testable else None,
        limit,
        testable and test.t >= limit,
        _moment(times[window][-1]),
        "" if testable else f"{test.n} closes are too few for a horizon of {horizon} bars",
    )


def _moment(time: np.datetime64) -> datetime:
    return time.astype("datetime64[us]").item().replace(tzinfo=UTC)


@dataclass
class _Losses:
    """Of one target: as-of close, loss, baseline's loss, one entry per settled forecast."""

    baseline: str = "har_how"
    time: list[datetime] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    other: list[float] = field(default_factory=list)


class LiveJudge:
    """Reads each outcome once. `read` may raise: nothing is lost, the next call goes on where this one stopped."""

    def __init__(self, read: ReadSettled) -> None:
        self._read = read
        self._of: dict[str, tuple[str, str]] = {}  # timeframe -> (model, since)
        self._seen: dict[str, int] = {}
        self._losses: dict[str, dict[str, _Losses]] = {}

    def verdicts(self, version: ModelVersion, since: datetime) -> list[LiveVerdict]:
        """At the longest horizon, volatility and return quantiles; of forecasts made since `since`, when the model became
        champion: one that is promoted again by hand is judged anew."""
        frame, horizon = version.timeframe, max(version.horizons)
        if self._of.get(frame) != (version.id, str(since)):
            self._of[frame], self._seen[frame] = (version.id, str(since)), 0
            self._losses[frame] = {f"{kind}{horizon}": _Losses() for kind in METRICS}
        self._catch_up(version, since, horizon)
        return [
            look_at(
                target,
                horizon,
                kept.baseline,
                np.array([time.replace(tzinfo=None) for time in kept.time], "datetime64[us]"),
                np.array(kept.own),
                np.array(kept.other),
            )
            for target, kept in self._losses[frame].items()
        ]

    def _catch_up(self, version: ModelVersion, since: datetime, horizon: int) -> None:
        frame = version.timeframe
        while rows := self._read(frame, self._seen[frame], version.id):
            for row in rows:
                if row.horizon["bars"] == horizon and row.made_at >= since and row.horizon.get("baseline"):
                    self._take(row, frame, horizon)
                self._seen[frame] = row.seq

    def _take(self, row: Settled, frame: str, horizon: int) -> None:
        limit = row.horizon["baseline"]
        for target, loss in ((f"rv{horizon}", _volatility_loss), (f"r{horizon}", _quantile_loss)):
            kept = self._losses[frame][target]
            kept.baseline = limit["name"]
            kept.time.append(row.as_of)
            kept.own.append(loss(row.horizon, row.outcome))
            kept.other.append(loss(limit, row.outcome))


def _volatility_loss(forecast: dict[str, Any], outcome: dict[str, Any]) -> float:
    """QLIKE of the variance; NaN where nothing was forecast."""
    if forecast.get("volatility") is None:
        return float("nan")
    return float(qlike(np.array([outcome["volatility"] ** 2]), np.array([forecast["volatility"] ** 2]))[0])


def _quantile_loss(forecast: dict[str, Any], outcome: dict[str, Any]) -> float:
    """Pinball loss of the model's own quantiles: adapting their widths would do the baseline's as much good."""
    own = in_levels(forecast.get("model_quantiles") or forecast.get("quantiles"))
    return float(pinball(np.array([outcome["return"]]), np.array([own]))[0]) if own else float("nan")
