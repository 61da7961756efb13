"""The report's figures as Plotly data and layout, plain dicts: what one is made of, and those of losses and weights.

Draws judged figures and out-of-fold forecasts; computes no verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuning.contests import ECONOMETRIC_STACK, STACK, Contest, contests
from tuning.out_of_fold import OutOfFold
from tuning.report_words import FAMILY_NAMES, KIND_NAMES, horizon_words, kind_of, share
from tuning.significance import panel_mean

# After Okabe & Ito (2008): told apart by the colour-blind; middle tones, legible on light and on dark
PALETTE = ("#2E86C1", "#E69F00", "#1BA784", "#CC79A7", "#D55E00", "#56B4E9", "#8C8C8C", "#B8A100")
COLOURS = {  # one family, one colour, in every figure
    "stack": "#2E86C1",
    "econometric_stack": "#E69F00",
    "lightgbm": "#1BA784",
    "xgboost": "#CC79A7",
    "lstm": "#D55E00",
    "gru": "#56B4E9",
    "attention": "#B8A100",
    "har_how": "#8E6CC9",
    "har_range": "#5B7FB0",
    "ewma_how": "#D9B04F",
    "unconditional_how": "#7FB3A0",
    "base_rate": "#8C8C8C",
}
POINTS = 400  # per line: more cannot be seen
LEARNERS = ("lightgbm", "xgboost", "lstm", "gru", "attention")


@dataclass(frozen=True)
class Figure:
    """`alt`: what there is to see, in a sentence with numbers, for those who cannot see it. Height in pixels."""

    key: str
    title: str
    caption: str
    alt: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    height: int = 340


def loss_figures(report: Mapping[str, Any], oof: OutOfFold) -> list[Figure]:
    """Cumulative differences of the main targets, skill by symbol, the stack's weights."""
    judged = {c.target: c for c in contests(oof)}
    longest, shortest = max(oof.horizons), min(oof.horizons)
    main = [t for t in (f"rv{longest}", f"r{longest}", f"sign{shortest}") if t in judged]
    return [*(cumulative(report, oof, judged[t]) for t in main), symbol_skill(report), weights(report)]


def cumulative(report: Mapping[str, Any], oof: OutOfFold, contest: Contest) -> Figure:
    """Running sum of the panel's loss difference against the named baseline; downwards is gaining on it."""
    v = report["targets"][contest.target]
    baseline = v["baseline"]
    losses = {n: contest.families[n] for n in (ECONOMETRIC_STACK, *LEARNERS) if n in contest.families}
    losses[STACK] = contest.candidate  # last: drawn above the others
    rows = oof.fold >= 0
    data = []
    for k, (name, values) in enumerate(losses.items()):
        times, mean = panel_mean((values - contest.baselines[baseline])[rows], oof.time[rows])
        keep = np.unique(np.linspace(0, len(times) - 1, POINTS).astype(int))
        line = {"color": COLOURS.get(name, PALETTE[k % len(PALETTE)]), "width": 3 if name == STACK else 1.3}
        named = FAMILY_NAMES.get(name, name)
        data.append(trace("scatter", named, dates(times[keep]), np.cumsum(mean)[keep], mode="lines", line=line))
    against = FAMILY_NAMES.get(baseline, baseline)
    ends = ", ".join(f"{one['name']} {one['y'][-1]:+.3g}" for one in reversed(data) if one["y"])
    return Figure(
        f"cumulative_{contest.target}",
        f"{contest.target}: who gains on {against}, and when",
        f"Cumulative {contest.metric} difference of the {KIND_NAMES[contest.kind]} forecast "
        f"({horizon_words(contest.target)}), mean over symbols. Downwards: better than the baseline. One steep stretch is "
        "luck, a steady slope is skill.",
        f"Running sum of loss differences to {against}; at the end {ends}; below zero is better. "
        f"The stack's skill is {share(v['skill'])}.",
        data,
        layout(yaxis={"title": {"text": "loss difference, summed"}, "zeroline": True}),
    )


def symbol_skill(report: Mapping[str, Any]) -> Figure:
    data = []
    for k, (target, v) in enumerate(report["targets"].items()):
        if kind_of(target) == "sign":
            continue
        symbols = list(v["per_symbol"])
        skills = [v["per_symbol"][s]["skill"] for s in symbols]
        name = f"{target} over {FAMILY_NAMES.get(v['baseline'], v['baseline'])}"
        data.append(trace("bar", name, symbols, skills, marker={"color": PALETTE[k % len(PALETTE)]}))
    better = [f"{one['name']}: {sum((y or 0) > 0 for y in one['y'])} of {len(one['y'])} symbols" for one in data]
    return Figure(
        "symbols",
        "Skill by symbol",
        "1 - loss / the named baseline's loss. Above zero on one symbol only is luck; the gate asks for most of them.",
        f"Bars by symbol. Above zero: {'; '.join(better)}. The table of losses by symbol has the numbers.",
        data,
        layout(barmode="group", yaxis={"tickformat": "+.1%", "zeroline": True}),
    )


def weights(report: Mapping[str, Any]) -> Figure:
    """The stack's weights, a bar per fold and target."""
    by_target = {t: by for t, by in report["fold_weights"].items() if "/" not in t}
    places = [(t, fold, w) for t, by in by_target.items() for fold, w in by.items()]
    axis = [[t for t, _, _ in places], [_fold(fold) for _, fold, _ in places]]
    families = list(dict.fromkeys(f for _, _, w in places for f in w))
    data = [
        trace(
            "bar",
            FAMILY_NAMES.get(f, f),
            axis,
            [w.get(f, 0.0) for _, _, w in places],
            marker={"color": COLOURS.get(f, PALETTE[k % len(PALETTE)])},
        )
        for k, f in enumerate(families)
    ]
    last = {t: list(by.values())[-1] for t, by in by_target.items()}
    said = "; ".join(
        f"{t}: " + ", ".join(f"{FAMILY_NAMES.get(f, f)} {x:.0%}" for f, x in w.items()) for t, w in last.items()
    )
    return Figure(
        "weights",
        "What the stack is made of, fold by fold",
        "Weights are fitted on out-of-fold forecasts of earlier folds only, shrunk towards the econometric families. L is the "
        "lockbox. They are used for serving only where the gate was passed.",
        f"Stacked bars. In the last fold {said}.",
        data,
        layout(barmode="stack", yaxis={"tickformat": ".0%", "range": [0, 1]}, xaxis={"tickangle": 0}),
        380,
    )


def _fold(number: str) -> str:
    return "L" if int(number) < 0 else str(int(number) + 1)


def trace(kind: str, name: str, x: Any, y: Any, **extra: Any) -> dict[str, Any]:
    return {"type": kind, "name": name, "x": plain(x), "y": plain(y)} | extra


def banded(
    name: str, x: Sequence[Any], shares: Sequence[Mapping[str, Any]], color: str, **extra: Any
) -> dict[str, Any]:
    """Points with their confidence bands; shares hold value, low, high, n (reliability.Share)."""
    values = [s["value"] for s in shares]
    up = [None if v is None else s["high"] - v for v, s in zip(values, shares, strict=True)]
    down = [None if v is None else v - s["low"] for v, s in zip(values, shares, strict=True)]
    bars = {"type": "data", "array": plain(up), "arrayminus": plain(down), "thickness": 1.4, "width": 3, "color": color}
    hover = {"text": [f"{s['n']:,} rows" for s in shares], "error_y": bars}
    return trace(
        "scatter", name, x, values, **({"mode": "markers", "marker": {"color": color, "size": 9}} | hover | extra)
    )


def level_line(y: float, color: str, dash: str = "dot") -> dict[str, Any]:
    """A horizontal line over the whole width, for layout(shapes=...)."""
    line = {"color": color, "dash": dash, "width": 1.5}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line}


def plain(values: Any) -> list[Any]:
    def one(value: Any) -> Any:
        if isinstance(value, list):
            return value
        if isinstance(value, float | np.floating):
            return float(f"{value:.6g}") if np.isfinite(value) else None
        return value

    return [one(value) for value in values]


def dates(times: np.ndarray) -> list[str]:
    return [str(t) for t in times.astype("datetime64[s]")]


def layout(**extra: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "margin": {"l": 64, "r": 12, "t": 8, "b": 40},
        "showlegend": True,
        "legend": {"orientation": "h", "y": -0.16, "yanchor": "top"},
        "xaxis": {"automargin": True},
        "yaxis": {"automargin": True},
    }
    for key, value in extra.items():
        base[key] = base.get(key, {}) | value if isinstance(value, dict) else value
    return base
