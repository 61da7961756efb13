"""What the honesty experiments must show (PROTOCOL's figures), with intervals. Pure arithmetic on rows of seeds."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt
from typing import Any

import numpy as np

MAX_PROMOTED = 0.05
MIN_RECOVERED = 0.70
MIN_POSITIVE = 0.90
# Log-loss skill of a single family on a series that has no direction. A 55 % signal, all of it, is worth 0.7 %.
TOO_GOOD = 0.01
Row = dict[str, Any]


def summarise(name: str, runs: Sequence[Row], accuracy: float) -> dict[str, Any]:
    """Rows of one world -> rates with 95 % intervals, and the criteria with met or not.

    `promoted`: seeds in which the gate would have let anything at all be served. accuracy: the world's P(next bar goes the way of this one).
    """
    promoted = [run["seed"] for run in runs if run["promoted"]]
    out: dict[str, Any] = {
        "seeds": len(runs),
        "promoted": len(promoted),
        "rate": len(promoted) / len(runs),
        "interval": clopper_pearson(len(promoted), len(runs)),
        "promoted_seeds": promoted,
        "passed_by_target": _by_target(runs),
        "cpu_seconds": round(sum(run["cpu_seconds"] for run in runs), 1),
    }
    if accuracy == 0.5:
        return out | {"criteria": [_stays_shut(out), _nobody_finds_direction(runs), _leak_tests(name, runs)]}
    edge = recovered_edge([run["targets"]["sign1"]["skill"] for run in runs], accuracy)
    return out | edge | {"criteria": [_recovers(edge), _sees(edge, len(runs)), _leak_tests(name, runs)]}


def clopper_pearson(hits: int, n: int, level: float = 0.95) -> list[float]:
    """Exact binomial interval of a rate (Clopper & Pearson 1934). [low, high]"""
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = float(beta.ppf(tail, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, n - hits)) if hits < n else 1.0
    return [low, high]


def recovered_edge(skills: Sequence[float], accuracy: float) -> dict[str, Any]:
    """Share of a planted direction that the forecasts found, from their log-loss skills over a coin or the base rate.

    With P(up) = 1/2 +- d the skill is about 2 d^2 / log 2 for small d, so the found share of d is the root of the found
    share of the skill; a negative skill counts as a negative share. The interval is the mean's, by Student's t.
    """
    from scipy.stats import t

    full = 1.0 + (accuracy * log(accuracy) + (1 - accuracy) * log(1 - accuracy)) / log(2)
    found = np.array(skills, float) / full
    shares = np.sign(found) * np.sqrt(np.abs(found))
    n = len(shares)
    half = float(t.ppf(0.975, n - 1) * shares.std(ddof=1) / sqrt(n)) if n > 1 else float("inf")
    mean, positive = float(shares.mean()), int((found > 0).sum())
    return {
        "edge_recovered": mean,
        "edge_interval": [mean - half, mean + half] if n > 1 else None,
        "positive_skill": positive,
        "positive_skill_rate": positive / n,
        "positive_skill_interval": clopper_pearson(positive, n),
    }


def _by_target(runs: Sequence[Row]) -> dict[str, int]:
    targets = sorted({target for run in runs for target in run["targets"]})
    return {target: sum(target in run["passed"] for run in runs) for target in targets}


def _stays_shut(out: dict[str, Any]) -> dict[str, Any]:
    low, high = out["interval"]
    words = (
        f"{out['promoted']} of {out['seeds']} seeds, at most {MAX_PROMOTED:.0%} (95 % interval {low:.1%} to {high:.1%})"
    )
    return _criterion("nothing is promoted on noise", out["rate"], MAX_PROMOTED, out["rate"] <= MAX_PROMOTED, words)


def _nobody_finds_direction(runs: Sequence[Row]) -> dict[str, Any]:
    """A leak in the split or the features shows in a single family long before it passes the gate."""
    best, whose = -np.inf, ""
    for run in runs:
        for target, figures in run["targets"].items():
            for family, skill in figures["families"].items() if target.startswith("sign") else ():
                if skill is not None and skill > best:
                    best, whose = skill, f"{family}, {target}, seed {run['seed']}"
    words = f"best {best:+.2%} ({whose}), at most {TOO_GOOD:.0%}"
    return _criterion("no family finds a direction in noise", float(best), TOO_GOOD, bool(best <= TOO_GOOD), words)


def _leak_tests(name: str, runs: Sequence[Row]) -> dict[str, Any]:
    failed = [run["seed"] for run in runs if run["leaks"]]
    words = f"{len(runs) - len(failed)} of {len(runs)} seeds" + (f", not in {failed}" if failed else "")
    return _criterion(f"leak tests pass ({name})", float(len(failed)), 0.0, not failed, words)


def _recovers(edge: dict[str, Any]) -> dict[str, Any]:
    found, interval = edge["edge_recovered"], edge["edge_interval"]
    band = f" (95 % interval {interval[0]:.0%} to {interval[1]:.0%})" if interval else ""
    words = f"{found:.0%}, at least {MIN_RECOVERED:.0%}{band}"
    return _criterion("the planted edge is recovered", found, MIN_RECOVERED, found >= MIN_RECOVERED, words)


def _sees(edge: dict[str, Any], n: int) -> dict[str, Any]:
    rate, (low, high) = edge["positive_skill_rate"], edge["positive_skill_interval"]
    words = (
        f"{edge['positive_skill']} of {n} seeds, at least {MIN_POSITIVE:.0%} (95 % interval {low:.0%} to {high:.0%})"
    )
    return _criterion("the planted edge shows in the log-loss", rate, MIN_POSITIVE, rate >= MIN_POSITIVE, words)


def _criterion(name: str, value: float, limit: float, passed: bool, words: str) -> dict[str, Any]:
    return {"name": name, "value": value, "limit": limit, "passed": bool(passed), "words": words}
