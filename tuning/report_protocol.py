"""The report's pictures of the protocol: how the folds were cut, what was purged, and the experiments on known truths."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from tuning.report_figures import PALETTE, Figure, layout, level_line, trace

PARTS = {"train": PALETTE[0], "embargoed": PALETTE[6], "purged": PALETTE[4], "test": PALETTE[2]}
RUN_THEM = "python -m tuning.experiments all --seeds 40 --workers 2 --out honesty.json"


def protocol_figures(report: Mapping[str, Any]) -> list[Figure]:
    return [folds(report["folds"]), *([purging(report["purge_example"])] if report["purge_example"] else [])]


def folds(periods: list[Mapping[str, Any]]) -> Figure:
    names = ["lockbox" if p["fold"] < 0 else f"fold {p['fold'] + 1}" for p in periods]
    data = []
    for part, color in (("train", PARTS["train"]), ("test", PARTS["test"])):
        x: list[str | None] = []
        y: list[str | None] = []
        for name, p in zip(names, periods, strict=True):
            x += [p[f"{part}_from"].removesuffix("Z"), p[f"{part}_to"].removesuffix("Z"), None]
            y += [name, name, None]
        data.append(trace("scatter", part, x, y, mode="lines", line={"color": color, "width": 14}))
    first, last = periods[0], periods[-1]
    return Figure(
        "folds",
        "How the bars were cut",
        "Each fold learns from the past and is tested on what follows; the lockbox is read once, at the gate.",
        f"{len(periods)} rows of a time line: training from {first['train_from'][:10]}, tests from {first['test_from'][:10]} "
        f"to {last['test_to'][:10]}, each test after its own training part.",
        data,
        layout(yaxis={"autorange": "reversed", "type": "category"}),
        90 + 34 * len(periods),
    )


def purging(example: Mapping[str, Any]) -> Figure:
    """Bars around the first fold's first test bar, every third with the span that its label answers for."""
    horizon, bars = example["horizon"], example["bars"]
    words = {
        "train": "trained on",
        "embargoed": "embargoed: left out for safety",
        "purged": "purged: the label would reach into the test",
        "test": "tested on",
    }
    data = []
    row = 0
    for part, color in PARTS.items():
        x: list[int | None] = []
        y: list[int | None] = []
        for bar in bars[part][:: max(horizon // 8, 1)]:
            x += [bar, bar + horizon, None]
            y += [row, row, None]
            row += 1
        data.append(
            trace(
                "scatter",
                words[part],
                x,
                y,
                mode="lines+markers",
                line={"color": color, "width": 2},
                marker={"size": 4},
            )
        )
    counts = ", ".join(f"{len(bars[part])} {part}" for part in PARTS)
    last = max((bar for bar in bars["train"]), default=0)
    edge = {
        "type": "line",
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "x0": 0,
        "x1": 0,
        "line": {"color": PALETTE[6], "dash": "dot"},
    }
    return Figure(
        "purging",
        "What purging is",
        f"A forecast made at a bar is about the {horizon} bars after it: its label is the line to the right. A bar whose label "
        "reaches past the first test bar (dotted) would tell the model about the test; it is purged, and as many bars more "
        "are left out for safety.",
        f"Around the first test bar: {counts} bars shown. The last training label ends {-(last + horizon)} bars before the test.",
        data,
        layout(xaxis={"title": {"text": "bars from the first test bar"}}, yaxis={"visible": False}, shapes=[edge]),
        420,
    )  # fmt: skip


def experiments_section(experiments: Mapping[str, Any] | None) -> str:
    """Criteria as a table with met or not, or how to run them."""
    if not experiments or not experiments.get("experiments"):
        return (
            "<section><h2>Noise and a planted signal</h2><p>Not part of this report: give the folder of the saved JSON with "
            f"<code>--experiments DIR</code>. It is made by <code>{escape(RUN_THEM)}</code>.</p></section>"
        )
    rows = "".join(
        f"<tr><td>{_met(c['passed'])}</td><td>{escape(c['name'])}</td><td>{escape(c['words'])}</td></tr>"
        for made in experiments["experiments"].values()
        for c in made["criteria"]
    )
    found = experiments["experiments"]
    seeds = ", ".join(f"{name}: {made['seeds']} seeds, {made['cpu_seconds']:.0f} CPU-s" for name, made in found.items())
    return (
        "<section><h2>Noise and a planted signal</h2><p>The same code on simulated bars whose truth is known. The intervals are "
        "exact (Clopper-Pearson): with 40 seeds even none promoted leaves up to 8.8 % possible.</p>"
        f"<table><thead><tr><th></th><th>Criterion</th><th>Found</th></tr></thead><tbody>{rows}</tbody></table>"
        f"<p>{escape(seeds)}; commit {escape(str(experiments.get('commit')))}.</p></section>"
    )


def _met(passed: bool) -> str:
    return '<b class="yes">met</b>' if passed else '<b class="no">not met</b>'


def experiment_figures(experiments: Mapping[str, Any] | None) -> list[Figure]:
    """Each seed's next-bar direction skill: noise beside planted."""
    found = (experiments or {}).get("experiments", {})
    if not found:
        return []
    data, said = [], []
    for k, (name, made) in enumerate(found.items()):
        skills = [run["targets"]["sign1"]["skill"] for run in made["runs"]]
        seeds = [run["seed"] for run in made["runs"]]
        marks = ["star" if run["promoted"] else "circle" for run in made["runs"]]
        marker = {"color": PALETTE[k * 4 % len(PALETTE)], "size": 9, "symbol": marks}
        data.append(trace("scatter", name, seeds, skills, mode="markers", marker=marker))
        said.append(
            f"{name}: {min(skills):+.2%} to {max(skills):+.2%}, promoted in {made['promoted']} of {made['seeds']}"
        )
    return [
        Figure(
            "experiments",
            "What the direction forecast found, where the truth is known",
            "Next-bar log-loss skill of the stack, a point per simulated panel. Dotted: nothing, and all of a 55 % edge. A star: "
            "something was promoted there.",
            f"Skill by seed, {'; '.join(said)}. A whole 55 % edge is worth +0.72%.",
            data,
            layout(
                xaxis={"title": {"text": "seed"}, "zeroline": False, "tickformat": "d"},
                yaxis={"tickformat": "+.1%", "zeroline": True},
                shapes=[level_line(0.0, PALETTE[6]), level_line(0.00722, PALETTE[6])],
            ),
            320,
        )
    ]
