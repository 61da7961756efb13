"""The goals of the development bars beside what a run measured, as a Markdown table made from its report.json.

    python -m tuning.goals out/report/report.json [--into docs/honesty.md]

`--into` replaces what stands between the two goals marks of that page. The limits belong to the recorded H1 bars; on other
bars the table compares what cannot be compared. Measures nothing itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from market.errors import InputError, LstmcError

BEGIN, END = "<!-- goals: begin, made by `python -m tuning.goals` -->", "<!-- goals: end -->"
Report = Mapping[str, Any]


@dataclass(frozen=True)
class Goal:
    """One row: what was measured, as words, and whether must and goal are reached and the suspect limit is passed."""

    name: str
    measured: str
    must: str
    goal: str
    suspect: str
    must_met: bool
    goal_met: bool
    suspected: bool = False


def goals(report: Report) -> list[Goal]:
    """The rows that this report has figures for. InputError when it is no report of `evaluate`."""
    try:
        made = [_volatility(report), _ranges(report), _coverage(report), _next_bar(report), _long_direction(report)]
        return [*made, _cost(report)]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"The report lacks {error}: it is none of `lstmc evaluate` on H1 bars.", hint="Run `lstmc evaluate` again."
        ) from None


def _volatility(report: Report) -> Goal:
    v = report["targets"]["rv24"]
    qlike, t = v["qlike"], v["t_har_how"]
    measured = f"{qlike:.4f}, t {t:.1f} against HAR + hour-of-week ({v['qlike_har_how']:.4f})"
    goal_met = qlike <= 0.265 and t <= -2
    return Goal(
        "volatility QLIKE, 24 bars",
        measured,
        "<= .276",
        "<= .265 and t <= -2",
        "< .24",
        qlike <= 0.276,
        goal_met,
        qlike < 0.24,
    )


def _ranges(report: Report) -> Goal:
    skill, window = (report["targets"]["r24"][name] for name in ("pinball_skill", "pinball_skill_window"))
    measured = f"{skill:+.2%} over all earlier history ({window:+.2%} over the training window's)"
    return Goal(
        "pinball skill, 24 bars", measured, ">= 2.7 %", ">= 4 %", "> 8 %", skill >= 0.027, skill >= 0.04, skill > 0.08
    )


def _coverage(report: Report) -> Goal:
    """The goal asks it of every symbol and session: the widest gap is named."""
    of = report["calibration"]["r24"]["coverage"]
    said, must, goal = [], True, True
    for promised, limit in (("80", 0.025), ("90", 0.020)):
        whole = of[promised]["all"]["all"]["value"] - int(promised) / 100
        each = {
            name: one["value"] - int(promised) / 100
            for kind in ("symbol", "session")
            for name, one in of[promised][kind].items()
        }
        worst = max(each, key=lambda name: abs(each[name]))
        must, goal = must and abs(whole) <= limit, goal and all(abs(gap) <= 0.01 for gap in (whole, *each.values()))
        said.append(f"{promised}: {int(promised) / 100 + whole:.1%}, furthest {worst} {100 * each[worst]:+.1f}")
    return Goal(
        "coverage of 80 / 90 %",
        "; ".join(said),
        "±2.5 / ±2 points",
        "±1 / ±1, every symbol and session",
        "",
        must,
        goal,
    )


def _next_bar(report: Report) -> Goal:
    v = report["targets"]["sign1"]
    whole, outside = v["auc"], v["auc_ex_rollover"]
    met = [whole >= a and outside >= b for a, b in ((0.540, 0.520), (0.550, 0.530))]
    suspected = whole > 0.58 or outside > 0.55
    name, measured = "next-bar AUC, all / without rollover", f"{whole:.3f} / {outside:.3f}"
    return Goal(name, measured, ">= .540 / .520", ">= .550 / .530", "> .58 / .55", met[0], met[1], suspected)


def _long_direction(report: Report) -> Goal:
    v = report["targets"]["sign24"]
    against = v["baseline_losses"]["base_rate"]
    gap, t = v["loss"] - against, v["family_t"]["stack"]
    accuracy = report["direction"]["sign24"]["stack"]["accuracy"]
    measured = f"{gap:+.5f} nats against the base rate, t {t:.1f}; accuracy {accuracy:.1%}"
    must, goal = gap <= 5e-6, gap < 0 and t <= -2  # less is the last digit shown
    return Goal(
        "24-bar direction, log-loss",
        measured,
        "<= 0 (abstaining is fine)",
        "t <= -2",
        "accuracy > 55 %",
        must,
        goal,
        accuracy > 0.55,
    )


def _cost(report: Report) -> Goal:
    spent = report["cpu_seconds"]
    families = len(report["protocol"]["families"])
    name = f"{len(report['protocol']['symbols'])} symbols, {report['protocol']['folds']} folds, {families} families"
    return Goal(name, f"{spent:.0f} CPU-s", "<= 300", "<= 100", "", spent <= 300, spent <= 100)


def markdown(report: Report) -> str:
    """The table, with the run it was made from."""
    rows, protocol = goals(report), report["protocol"]
    lines = ["| | measured | | must | goal | suspect a leak |", "| --- | --- | --- | --- | --- | --- |"]
    for one in rows:
        verdict = "goal reached" if one.goal_met else "must reached" if one.must_met else "**missed**"
        suspect = f"{one.suspect}{' **yes**' if one.suspected else ''}"
        lines.append(f"| {one.name} | {one.measured} | {verdict} | {one.must} | {one.goal} | {suspect} |")
    run = (
        f"{len(protocol['symbols'])} symbols ({', '.join(protocol['symbols'])}), {protocol['timeframe']}, "
        f"{protocol['test_from'][:10]} to {protocol['test_to'][:10]}, preset {protocol['preset']}, made {report['made_at'][:10]}."
    )
    return "\n".join([*lines, "", run])


def replace_goals(page: str, made: str) -> str:
    """`page` with the text between the marks replaced. InputError when it has no marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError("The page has no goals marks.", hint=f"Put {BEGIN} and {END} where the table goes.")
    return f"{before}{BEGIN}\n{made}\n{END}{after}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tuning.goals", description="The goals table of a report.json.")
    parser.add_argument("report", type=Path)
    parser.add_argument("--into", type=Path, default=None, help="a page with the goals marks, changed in place")
    given = parser.parse_args(argv)
    try:
        made = markdown(_read(given.report))
        if given.into:
            given.into.write_text(replace_goals(given.into.read_text(encoding="utf-8"), made), encoding="utf-8")
    except LstmcError as error:
        print(f"goals: {error}", file=sys.stderr)
        return error.exit_code
    print(made)
    return 0


def _read(path: Path) -> Report:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}.", hint="Give the report.json of `lstmc evaluate`.") from None
    return content


if __name__ == "__main__":
    sys.exit(main())
