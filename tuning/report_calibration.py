"""The report's figures of calibration: coverage, quantiles, probabilities, the fan. Drawn from report.json's figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from market.forecasts import QUANTILE_LEVELS
from tuning.contests import STACK
from tuning.out_of_fold import OutOfFold
from tuning.report_figures import PALETTE, Figure, banded, dates, layout, level_line, plain, trace
from tuning.report_words import horizon_words

BANDS = "Bars: 95 % bands that allow for overlapping labels and shared shocks (binomial-HAC)."
FAN_BARS = 240


def calibration_figures(report: Mapping[str, Any], oof: OutOfFold) -> list[Figure]:
    longest, shortest = max(oof.horizons), min(oof.horizons)
    made = []
    for name, v in report["calibration"].items():
        if name == f"r{longest}":
            made += [coverage(name, v, kind) for kind in ("session", "symbol")]
            made += [quantiles(name, v), fan(oof, longest)]
        elif name == f"sign{shortest}" and v["bins"]:
            made.append(probabilities(name, v))
    return made


def coverage(name: str, v: Mapping[str, Any], kind: str) -> Figure:
    """Share of outcomes inside the central 80 and 90 % intervals, by symbol or by session."""
    data, said = [], []
    for k, (promised, of) in enumerate(v["coverage"].items()):
        symbol = "circle" if promised == "80" else "diamond"
        marker = {"color": PALETTE[k], "size": 10, "symbol": symbol}
        every = {"all": of["all"]["all"]} | of[kind]
        data.append(banded(f"{promised} % interval", list(every), list(every.values()), PALETTE[k], marker=marker))
        off = [name for name, s in of[kind].items() if not s["low"] <= int(promised) / 100 <= s["high"]]
        said.append(
            f"{promised} %: " + ", ".join(f"{g} {s['value']:.1%}" for g, s in every.items() if s["value"] is not None)
        )
        said.append(f"beyond its band: {', '.join(off) or 'none'}")
    lows = [s["low"] for of in v["coverage"].values() for s in of[kind].values() if s["low"] is not None]
    return Figure(
        f"coverage_{kind}",
        f"{name}: do the intervals hold what they promise, by {kind}?",
        f"Share of outcomes ({horizon_words(name)}) inside the interval, by the {kind} of the forecast. Dotted: what was "
        f"promised. {BANDS}",
        f"Coverage of {'; '.join(said)}.",
        data,
        layout(
            shapes=[level_line(int(p) / 100, PALETTE[k]) for k, p in enumerate(v["coverage"])],
            yaxis={"tickformat": ".0%", "range": [min([0.7, *(low - 0.02 for low in lows)]), 1.0]},
        ),
    )


def quantiles(name: str, v: Mapping[str, Any]) -> Figure:
    """Share at or below each forecast quantile minus its level: the PIT at seven points."""
    levels = [one["level"] for one in v["quantiles"]]
    gaps = [
        {key: None if one[key] is None else one[key] - one["level"] for key in ("value", "low", "high")}
        | {"n": one["n"]}
        for one in v["quantiles"]
    ]
    names = [f"{level:.0%}" for level in levels]
    said = ", ".join(f"{one['level']:.0%}: {one['value']:.1%}" for one in v["quantiles"] if one["value"] is not None)
    return Figure(
        "quantiles",
        f"{name}: is each quantile where it says?",
        "Share of outcomes at or below the quantile, minus its level (the probability integral transform at seven points). "
        f"Above zero: the quantile is too high. {BANDS}",
        f"Outcomes at or below each quantile: {said}.",
        [banded("stack", names, gaps, PALETTE[0])],
        layout(
            showlegend=False,
            yaxis={"tickformat": "+.1%", "zeroline": True, "title": {"text": "observed minus promised"}},
            xaxis={"title": {"text": "quantile"}, "type": "category"},
        ),
        300,
    )


def probabilities(name: str, v: Mapping[str, Any]) -> Figure:
    """Observed share of ups against the forecast probability, with the base rate and perfect reliability."""
    bins, base = v["bins"], v["base_rate"]["value"]
    said = [one["said"] for one in bins]
    ends = [x for one in bins for x in (one["said"], one["low"], one["high"])]
    low, high = min(ends) - 0.005, max(ends) + 0.005
    lean = {"mode": "lines", "line": {"dash": "dot", "color": PALETTE[6]}}
    flat = {"mode": "lines", "line": {"dash": "dash", "color": PALETTE[1]}}
    edges = [min(said) - 0.005, max(said) + 0.005]
    width = max((edges[1] - edges[0]) / 60, 1e-4)
    counts = trace(
        "bar", "rows", said, [one["n"] for one in bins], yaxis="y2", width=width, marker={"color": PALETTE[6]}
    )
    return Figure(
        f"reliability_{name}",
        f"{name}: when it says p, how often does it rise?",
        "Groups of about equal size by forecast probability, their rows counted below. On the dotted line: reliable. All at "
        f"the height of the base rate (dashed): no information. {BANDS}",
        f"Base rate {base:.1%}. " + "; ".join(f"said {one['said']:.1%}, rose {one['value']:.1%}" for one in bins) + ".",
        [
            trace("scatter", "perfect", edges, edges, **lean),
            trace("scatter", "base rate", edges, [base, base], **flat),
            banded("stack", said, bins, PALETTE[0]),
            counts,
        ],
        layout(
            xaxis={"title": {"text": "forecast P(up)"}, "tickformat": ".1%", "anchor": "y2"},
            yaxis={
                "title": {"text": "observed share of ups"},
                "tickformat": ".1%",
                "range": [low, high],
                "domain": [0.28, 1],
            },
            yaxis2={"title": {"text": "rows"}, "domain": [0, 0.2], "automargin": True, "nticks": 3},
        ),
        400,
    )


def fan(oof: OutOfFold, h: int) -> Figure:
    """The last test bars of the first symbol: the forecast intervals and the returns that came, in bp."""
    rows = np.flatnonzero((oof.fold >= 0) & (oof.symbol == 0) & np.isfinite(oof.ret[h]))[-FAN_BARS:]
    times, q, came = dates(oof.time[rows]), oof.quantiles[STACK][h][rows] * 1e4, oof.ret[h][rows] * 1e4
    level = {p: k for k, p in enumerate(QUANTILE_LEVELS)}
    data = []
    for low, high, alpha in ((0.05, 0.95, 0.16), (0.10, 0.90, 0.22), (0.25, 0.75, 0.34)):
        fill = {"fill": "toself", "mode": "none", "fillcolor": f"rgba(46,134,193,{alpha})", "hoverinfo": "skip"}
        edge = np.concatenate([q[:, level[high]], q[::-1, level[low]]])
        data.append(trace("scatter", f"{high - low:.0%} interval", [*times, *times[::-1]], edge, **fill))
    inside = (came >= q[:, level[0.05]]) & (came <= q[:, level[0.95]])
    for name, chosen, color in (("came, inside 90 %", inside, PALETTE[6]), ("came, outside", ~inside, PALETTE[4])):
        x = [t for t, ok in zip(times, chosen, strict=True) if ok]
        data.append(trace("scatter", name, x, plain(came[chosen]), mode="markers", marker={"color": color, "size": 4}))
    share = f"{inside.mean():.0%}" if len(inside) else "none"
    return Figure(
        "fan",
        f"r{h}: the fan, and what came ({oof.symbols[0]})",
        f"The forecast intervals of the return over the {horizon_words(f'r{h}')}, drawn at the moment they were made, and the "
        "return that came. Neighbouring outcomes overlap: they leave the fan together.",
        f"The last {len(rows)} test bars of {oof.symbols[0]}: {share} of the returns lie inside the 90 % interval.",
        data,
        layout(yaxis={"title": {"text": "return, bp"}, "zeroline": True}),
        360,
    )
