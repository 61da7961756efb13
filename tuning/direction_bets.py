"""What the direction forecasts would have earned, bet by bet, and whether that is more than the best of many tries.

Size-free: each symbol has an equal part of the capital, and a bet held for h bars an h-th of that, so that overlapping bets
never add up to more than the whole. Returns are in basis points (bp) of the capital. Judges nothing: the gate does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from tuning.contests import ECONOMETRIC_STACK, STACK, Contest, contests
from tuning.deflated_sharpe import deflated, expected_best, sharpe
from tuning.out_of_fold import OutOfFold
from tuning.promotion import bets_taken
from tuning.significance import panel_mean

POINTS = 400  # of a curve that is kept: more cannot be seen
YEAR = np.timedelta64(365 * 86400 + 6 * 3600, "s")


@dataclass(frozen=True)
class Earnings:
    """Per timestamp [m], bp of capital: `gross` of leaning the forecast's way at every bar, `net` of the bets taken."""

    time: np.ndarray
    gross: np.ndarray
    net: np.ndarray
    bets: int
    reason: str  # why there are no bets; "" otherwise

    @property
    def basis(self) -> str:
        """Which of the two can be judged: net where there are bets, else gross."""
        return "net" if self.bets else "gross"

    @property
    def judged(self) -> np.ndarray:
        return self.net if self.bets else self.gross


def earnings(oof: OutOfFold, contest: Contest) -> Earnings:
    """Of a direction forecast over the test folds; bets as the gate counts them (promotion.bets_taken)."""
    h = contest.horizon
    rows = (oof.fold >= 0) & np.isfinite(contest.forecast) & np.isfinite(oof.ret[h])
    gross = np.sign(contest.forecast - 0.5) * oof.ret[h] * 1e4 / h
    bets = bets_taken(oof, contest, rows)
    times, leaning = panel_mean(np.where(rows, gross, np.nan), oof.time)
    net = np.where(bets, gross - oof.spread * 1e4 / h, 0.0)
    _, taken = panel_mean(np.where(rows, net, np.nan), oof.time)
    reason = ""
    if not bets.any():
        known = bool(np.isfinite(oof.spread[rows]).any())
        reason = "no forecast expected more than its spread" if known else "the source has no spread"
    return Earnings(times, leaning, taken, int(bets.sum()), reason)


def direction_bets(oof: OutOfFold, settings: Mapping[str, int] | None = None) -> dict[str, dict[str, Any]]:
    """Per direction target the stack's curve and drawdown, its Sharpe ratio and the deflated one.

    A trial is one family on one direction target with one setting; `settings`: family -> how many a search has tried, one
    where it says nothing. The variance over trials is that of all families' ratios, on all targets, here.
    """
    stacks = {c.target: earnings(oof, c) for c in contests(oof, STACK) if c.kind == "sign"}
    ratios = {target: _ratios(oof, target, made.basis) for target, made in stacks.items()}
    count = sum((settings or {}).get(family, 1) for of in ratios.values() for family in of)
    known = [ratio for of in ratios.values() for ratio in of.values() if np.isfinite(ratio)]
    variance = float(np.var(known, ddof=1)) if len(known) > 1 else 0.0
    return {
        target: _figures(made, _horizon(target), count, variance) | {"family_sharpe": ratios[target]}
        for target, made in stacks.items()
    }


def _ratios(oof: OutOfFold, target: str, basis: str) -> dict[str, float]:
    """Sharpe ratio a bar of every family that forecasts the target, the stack among them."""
    found = {}
    for name, family in oof.families.items():
        if _horizon(target) not in family.p_up or name == ECONOMETRIC_STACK:
            continue
        for contest in contests(oof, name):
            if contest.target == target:
                made = earnings(oof, contest)
                found[name] = sharpe(made.net if basis == "net" else made.gross, contest.horizon).ratio
    return found


def _horizon(target: str) -> int:
    return int(target.removeprefix("sign"))


def _figures(made: Earnings, horizon: int, trials: int, variance: float) -> dict[str, Any]:
    found = sharpe(made.judged, horizon)
    bars = _bars_per_year(made.time)
    return {
        "basis": made.basis,
        "bets": made.bets,
        "reason": made.reason,
        "mean_bp": float(made.judged.mean()) if len(made.judged) else float("nan"),
        "break_even_bp": float(made.gross.mean()) * horizon if len(made.gross) else float("nan"),
        "max_drawdown_bp": drawdown(made.judged).max(initial=0.0),
        "sharpe_year": found.ratio * sqrt(bars),
        "deflated_sharpe": deflated(found, trials, variance),
        "expected_best_sharpe_year": expected_best(trials, variance) * sqrt(bars),
        "trials": trials,
        "skew": found.skew,
        "kurtosis": found.kurtosis,
        "curve": _curve(made),
    }


def drawdown(returns: np.ndarray) -> np.ndarray:
    """How far the running sum lies below its highest value so far, the start included; bp, never negative. [n]"""
    level = np.concatenate([[0.0], np.cumsum(returns)])
    return (np.maximum.accumulate(level) - level)[1:]


def _bars_per_year(time: np.ndarray) -> float:
    if len(time) < 2:
        return float("nan")
    years = (time[-1] - time[0]) / YEAR
    return float((len(time) - 1) / years)


def _curve(made: Earnings) -> Mapping[str, list[Any]]:
    last = max(len(made.time) - 1, 0)
    keep = np.unique(np.linspace(0, last, POINTS).astype(int))[: len(made.time)]
    series = {"gross": np.cumsum(made.gross), "net": np.cumsum(made.net), "drawdown": drawdown(made.judged)}
    stamps = [f"{moment}Z" for moment in made.time[keep].astype("datetime64[s]")]
    return {"time": stamps} | {name: [float(f"{x:.5g}") for x in values[keep]] for name, values in series.items()}
