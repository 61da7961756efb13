"""Presets: the timetable's training runs on 28 symbols and a year of history, as real jobs of a private cluster beside its
serving; how long each takes of the wall that it has.

    lstmc bench presets [--only quick,m15]

Prints one JSON object, after each run its figures on stderr. Exit code 1 when one took more than half of its wall.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from actors.timetable import Entry, load_timetable
from benchmarks.live_cluster import live_cluster
from benchmarks.machine import machine
from benchmarks.private_installation import until
from cluster import health, jobs
from cluster.attach import heed_stop_signals
from configs.settings import Settings
from market.errors import InputError
from market.symbols import CATALOGUE
from tuning.registry import Registry

SYMBOLS = tuple(CATALOGUE)[:28]
MOST = 0.5  # of its wall
FIRST = "H1"  # whose preset has no timeframe of its own


def run(settings: Settings, entry: Entry) -> dict[str, Any]:
    """One job from its submission to its end: seconds, and what it made."""
    submission, frame = f"bench-{entry.preset}", entry.timeframe or FIRST
    load = os.getloadavg()[0]
    jobs.submit_training(settings, entry.preset, timeframe=frame, budget=entry.budget, submission_id=submission)
    found: dict[str, Any] = {}

    def ended() -> bool:
        time.sleep(2)
        found.update(next(job for job in jobs.list_jobs(settings) if job["id"] == submission))
        return found["status"] in jobs.TERMINAL

    until(ended, entry.wall.total_seconds() + 120, f"the job {submission} ends")
    seconds, wall = found["ended"] - found["started"], entry.wall.total_seconds()
    last = Registry.of(settings).runs(frame)[-1]
    return {
        "preset": entry.preset,
        "timeframe": frame,
        "status": found["status"],
        "seconds": round(seconds, 1),
        "wall_seconds": wall,
        "share": round(seconds / wall, 3),
        "promoted": last["promoted"],
        "budget": last.get("budget"),
        "load_before": round(load, 1),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="lstmc bench presets", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="presets, separated by commas; default: every one of the timetable")
    given = parser.parse_args(argv)
    entries = {entry.preset: entry for entry in load_timetable() if not entry.on_alarm}
    names = given.only.split(",") if given.only else list(entries)
    if strange := [name for name in names if name not in entries]:
        raise InputError(f"The timetable has no preset {strange[0]!r}.", hint=f"Known: {', '.join(entries)}.")
    heed_stop_signals()  # or nothing would be taken down
    flags = ["--symbols", ",".join(SYMBOLS), "--timeframes", f"{FIRST},M15", "--no-schedule"]
    seen = []
    with (
        tempfile.TemporaryDirectory(prefix="lstmc-bench-") as folder,
        live_cluster(Path(folder) / "home", *flags) as settings,
    ):
        health.use_token(settings)
        for name in names:
            seen.append(run(settings, entries[name]))
            print(seen[-1], file=sys.stderr, flush=True)
    print(
        json.dumps(
            {"presets": seen, "symbols": len(SYMBOLS), "command": "lstmc bench presets --json", "machine": machine()}
        )
    )
    return 0 if all(one["status"] == "SUCCEEDED" and one["share"] <= MOST for one in seen) else 1
