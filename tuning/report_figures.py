"""The report's figures as Plotly data and layout, plain dicts. Reads out-of-fold forecasts and the judged figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuning.contests import ECONOMETRIC_STACK, STACK, Contest, contests
from tuning.metrics import central_coverage
from tuning.out_of_fold import OutOfFold
from tuning.report_words import FAMILY_NAMES, KIND_NAMES, horizon_words, kind_of
from tuning.series import seconds_into_week
from tuning.significance import panel_mean

# Okabe & Ito (2008): told apart by the colour-blind, legible on light and dark
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C8C8C", "#B8A100")
COLOURS = {  # one family, one colour, in every figure
    "stack": "#0072B2",
    "econometric_stack": "#E69F00",
    "lightgbm": "#009E73",
    "xgboost": "#CC79A7",
    "lstm": "#D55E00",
    "gru": "#56B4E9",
    "attention": "#B8A100",
    "har_how": "#6A3D9A",
    "har_range": "#1F4E79",
    "ewma_how": "#F4B942",
    "unconditional_how": "#7FB3A0",
    "base_rate": "#8C8C8C",
}
POINTS = 500  # per line: more cannot be seen
SESSIONS = {"Asia": range(17, 27), "London": range(3, 9), "New York": range(9, 17)}  # New York hours, 24 + for next day
LEARNERS = ("lightgbm", "xgboost", "lstm", "gru", "attention")


@dataclass(frozen=True)
class Figure:
    key: str
    title: str
    caption: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    height: int = 360


def figures(report: Mapping[str, Any], oof: OutOfFold) -> list[Figure]:
    """All figures that this run has data for."""
    judged = {c.target: c for c in contests(oof)}
    longest, shortest = max(oof.horizons), min(oof.horizons)
    made = [
        cumulative(report, oof, judged[t]) for t in (f"rv{longest}", f"r{longest}", f"sign{shortest}") if t in judged
    ]
    made.append(symbol_skill(report))
    if f"r{longest}" in judged:
        made.append(coverage_by(oof, longest))
    if f"sign{shortest}" in judged:
        made.append(reliability(oof, judged[f"sign{shortest}"]))
    made.append(weights(report))
    return made


def cumulative(report: Mapping[str, Any], oof: OutOfFold, contest: Contest) -> Figure:
    """Running sum of the panel's loss difference against the named baseline; downwards is gaining on it."""
    baseline = report["targets"][contest.target]["baseline"]
    losses = {STACK: contest.candidate} | {
        n: contest.families[n] for n in (ECONOMETRIC_STACK, *LEARNERS) if n in contest.families
    }
    rows = oof.fold >= 0
    data = []
    for k, (name, values) in enumerate(losses.items()):
        times, mean = panel_mean((values - contest.baselines[baseline])[rows], oof.time[rows])
        keep = np.unique(np.linspace(0, len(times) - 1, POINTS).astype(int))
        line = {"color": COLOURS.get(name, PALETTE[k % len(PALETTE)]), "width": 3 if name == STACK else 1.3}
        data.append(
            _trace(
                "scatter",
                FAMILY_NAMES.get(name, name),
                _dates(times[keep]),
                np.cumsum(mean)[keep],
                mode="lines",
                line=line,
            )
        )
    kind = KIND_NAMES[contest.kind]
    return Figure(
        f"cumulative_{contest.target}",
        f"{contest.target}: who gains on {FAMILY_NAMES.get(baseline, baseline)}, and when",
        f"Cumulative {contest.metric} difference of the {kind} forecast ({horizon_words(contest.target)}), mean over symbols. "
        "Downwards: better than the baseline. One steep stretch is luck, a steady slope is skill.",
        data,
        _layout(yaxis={"title": {"text": "cumulative loss difference"}, "zeroline": True}),
    )


def symbol_skill(report: Mapping[str, Any]) -> Figure:
    data = []
    for k, (target, v) in enumerate(report["targets"].items()):
        if kind_of(target) == "sign":
            continue
        symbols = list(v["per_symbol"])
        skills = [v["per_symbol"][s]["skill"] for s in symbols]
        color = {"color": PALETTE[k % len(PALETTE)]}
        data.append(
            _trace(
                "bar", f"{target} over {FAMILY_NAMES.get(v['baseline'], v['baseline'])}", symbols, skills, marker=color
            )
        )
    return Figure(
        "symbols",
        "Skill by symbol",
        "1 - loss / the named baseline's loss. Above zero on one symbol only is luck; the gate asks for most of them.",
        data,
        _layout(barmode="group", yaxis={"tickformat": "+.1%", "zeroline": True}),
    )


def coverage_by(oof: OutOfFold, h: int) -> Figure:
    """Share of outcomes inside the central 80 and 90 % intervals, by symbol and by session."""
    rows = oof.fold >= 0
    groups = {symbol: rows & (oof.symbol == k) for k, symbol in enumerate(oof.symbols)}
    hour = (17 + seconds_into_week(oof.time) // 3600) % 24
    groups |= {name: rows & np.isin(hour, [x % 24 for x in hours]) for name, hours in SESSIONS.items()}
    groups = {name: chosen for name, chosen in groups.items() if chosen.any()}
    data = []
    for k, share in enumerate((0.8, 0.9)):
        values = [central_coverage(oof.ret[h][g], oof.quantiles[STACK][h][g], share) for g in groups.values()]
        marker = {"color": PALETTE[k], "size": 11, "symbol": "circle" if share == 0.8 else "diamond"}
        data.append(_trace("scatter", f"{share:.0%} interval", list(groups), values, mode="markers", marker=marker))
    lines = [
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": s,
            "y1": s,
            "line": {"color": PALETTE[k], "dash": "dot", "width": 1.5},
        }
        for k, s in enumerate((0.8, 0.9))
    ]
    return Figure(
        "coverage",
        f"r{h}: do the intervals hold what they promise?",
        "Share of outcomes inside the interval, by symbol and by trading session. Dotted: what was promised.",
        data,
        _layout(shapes=lines, yaxis={"tickformat": ".0%", "range": [0.7, 1.0]}),
    )


def reliability(oof: OutOfFold, contest: Contest) -> Figure:
    """Observed share of ups against the forecast probability, ten groups of equal size."""
    rows = (oof.fold >= 0) & np.isfinite(contest.forecast) & np.isfinite(contest.actual)
    p, up = contest.forecast[rows], contest.actual[rows]
    order = np.array_split(np.argsort(p, kind="stable"), 10)
    said, seen = [float(p[g].mean()) for g in order], [float(up[g].mean()) for g in order]
    error = [1.96 * float(np.sqrt(s * (1 - s) / len(g))) for s, g in zip(seen, order, strict=True)]
    low, high = min(*said, *seen) - 0.01, max(*said, *seen) + 0.01
    diagonal = _trace(
        "scatter", "perfect", [low, high], [low, high], mode="lines", line={"dash": "dot", "color": PALETTE[6]}
    )
    points = _trace("scatter", "stack", said, seen, mode="markers+lines", marker={"color": PALETTE[0], "size": 9})
    points["error_y"] = {"type": "data", "array": error, "thickness": 1}
    return Figure(
        f"reliability_{contest.target}",
        f"{contest.target}: when it says p, how often does it rise?",
        "Ten groups of equal size by forecast probability, with 95 % error bars (too narrow where bars depend on each "
        "other). Points near one height: no information.",
        [diagonal, points],
        _layout(
            xaxis={"title": {"text": "forecast P(up)"}, "tickformat": ".1%"},
            yaxis={"title": {"text": "observed share of ups"}, "tickformat": ".1%"},
        ),
    )


def weights(report: Mapping[str, Any]) -> Figure:
    """The stack's weights in the last fold, one bar per target."""
    chosen = {t: w for t, w in report["stack_weights"].items() if "/" not in t}
    families = list(dict.fromkeys(f for w in chosen.values() for f in w))
    data = [
        _trace(
            "bar",
            FAMILY_NAMES.get(f, f),
            [w.get(f, 0.0) for w in chosen.values()],
            list(chosen),
            orientation="h",
            marker={"color": COLOURS.get(f, PALETTE[k % len(PALETTE)])},
        )
        for k, f in enumerate(families)
    ]
    return Figure(
        "weights",
        "What the stack is made of",
        "Weights in the last fold, fitted on out-of-fold forecasts only, shrunk towards the econometric families. They are "
        "used for serving only where the gate was passed.",
        data,
        _layout(barmode="stack", xaxis={"tickformat": ".0%"}),
    )


def _trace(kind: str, name: str, x: Any, y: Any, **extra: Any) -> dict[str, Any]:
    return {"type": kind, "name": name, "x": _plain(x), "y": _plain(y)} | extra


def _plain(values: Any) -> list[Any]:
    def one(value: Any) -> Any:
        if isinstance(value, float | np.floating):
            return float(f"{value:.6g}") if np.isfinite(value) else None
        return value

    return [one(value) for value in values]


def _dates(times: np.ndarray) -> list[str]:
    return [str(t) for t in times.astype("datetime64[s]")]


def _layout(**extra: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "margin": {"l": 64, "r": 16, "t": 8, "b": 48},
        "legend": {"orientation": "h", "y": -0.18},
        "xaxis": {"automargin": True},
        "yaxis": {"automargin": True},
    }
    for key, value in extra.items():
        base[key] = base.get(key, {}) | value if isinstance(value, dict) else value
    return base
