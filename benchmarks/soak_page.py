"""The soak's tables for docs/operations.md."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from benchmarks.soak_verdict import keeper

BEGIN, END = "<!-- soak: begin -->", "<!-- soak: end -->"
SMALL_MB = 0.005  # growth that the table does not show


def page(report: dict[str, Any], when: datetime) -> str:
    """From marker to marker, of the JSON object of benchmarks.soak."""
    low, high = report["load"]
    answers, with_jobs = report["answers"], report["with_jobs"]
    lines = [
        BEGIN,
        f"`{report['command']}`, {when:%Y-%m-%d}, {report['machine']}, load average {low:g} to {high:g}: {report['market_hours']:g} market hours of 28",
        f"symbols in {report['minutes']:g} minutes, {report['jobs']['succeeded']} training runs one after the other, "
        f"{answers.get('ok', 0)} answers `200` and {answers.get('not modified', 0)} `304`, "
        f"{answers.get('update', 0)} updates",
        f"on streams. Growth is the slope of Theil and Sen over the last {report['judged_minutes']:g} minutes. Before the first training there were",
        f"{with_jobs['before']['processes']} processes with {with_jobs['before']['memory_mb']:.0f} MB, after the last {with_jobs['after']['processes']} "
        f"with {with_jobs['after']['memory_mb']:.0f} MB. {'All bounds were held.' if report['ok'] else '**Not held:** ' + '; '.join(report['wrong'])}",
        "",
        "| role | processes | memory | growth | | file handles | growth |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for role, one in report["roles"].items():
        memory, handles = one["memory_mb"], one["handles"]
        lines.append(
            f"| {role} | {one['processes']} | {memory['level']:g} MB | {memory['growth']:+.1f} MB | {memory['percent']:+.1f} % "
            f"| {handles['level']:g} | {handles['growth']:+.1f} |"
        )
    lines += [
        "",
        "A day is the market's for `home/data`, the wall's (full of trainings) for the rest.",
        "",
        "| folder | size | grew by | a day | files a day | held by |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for folder, one in report["disk"].items():
        if one["mb_more"] >= SMALL_MB:
            lines.append(
                f"| `{folder}` | {one['mb']:.1f} MB | {one['mb_more']:.2f} MB | {one['mb_a_day']:.1f} MB "
                f"| {one['files_a_day']:g} | {keeper(folder)} |"
            )
    return "\n".join([*lines, END])
