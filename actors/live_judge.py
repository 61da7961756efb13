"""Is the champion still worth its place? Its live losses against those of its own baseline.

The same outcomes judge both forecasts, which were recorded before them. Moves no pointer; knows neither Ray nor models.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from math import pi
from typing import Any

import numpy as np
from scipy.special import stdtrit

from actors.live_losses import LiveLosses
from market.forecasts import iso_utc, jsonable
from tuning.significance import hac_test

LOOK_EVERY = 250  # as-of closes with known outcomes between two looks, and before the first: two trading weeks of H1
WINDOW = 1000  # closes that a look goes back: an old success must not hide a break for long
LIMIT = 2.0  # HAC t; later looks need more
FALSE_ALARMS = 0.05  # chance that all looks together, at both targets, bring down a champion as good as its baseline
METRICS = {"rv": "qlike", "r": "pinball"}


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


def verdicts(losses: LiveLosses) -> list[LiveVerdict]:
    """At the longest horizon, volatility and return quantiles; of forecasts made since the model became champion: one
    that is promoted again by hand is judged anew."""
    horizon = max(losses.horizons)
    return [
        look_at(f"{kind}{horizon}", horizon, losses.baseline, *losses.tenure_losses(f"{kind}{horizon}"), losses.skipped)
        for kind in METRICS
    ]


def look_at(
    target: str,
    horizon: int,
    baseline: str,
    time: np.ndarray,
    loss: np.ndarray,
    baseline_loss: np.ndarray,
    skipped: int = 0,
) -> LiveVerdict:
    """The verdict at the newest look that [m] closes allow, oldest first, each with its mean losses over symbols.

    Looks stand at every LOOK_EVERY-th close, whenever they are taken: asking more often finds nothing new. `skipped`
    closes came before those; with fewer than WINDOW + LOOK_EVERY given, that must be 0.
    """
    metric = METRICS[target.rstrip("0123456789")]
    closes = skipped + len(time)
    number = closes // LOOK_EVERY
    if number == 0:
        reason = f"judged from {LOOK_EVERY} known outcomes on"
        return LiveVerdict(target, metric, baseline, closes, reason=reason)
    until = number * LOOK_EVERY - skipped
    window = slice(max(0, until - WINDOW), until)
    test = hac_test(loss[window] - baseline_loss[window], horizon)
    limit, testable = t_limit(number, test.lag / test.n), bool(np.isfinite(test.t))
    return LiveVerdict(
        target,
        metric,
        baseline,
        closes,
        float(loss[window].mean()),
        float(baseline_loss[window].mean()),
        test.t if testable else None,
        limit,
        testable and test.t >= limit,
        _moment(time[window][-1]),
        "" if testable else f"{test.n} closes are too few for a horizon of {horizon} bars",
    )


def _moment(time: np.datetime64) -> datetime:
    return time.astype("datetime64[us]").item().replace(tzinfo=UTC)
