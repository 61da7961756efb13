"""Soak: hours of a market in minutes on a private installation, under load and beside training; what grew meanwhile.

    lstmc bench soak [--minutes 16] [--speed 360] [--warm-up 4] [--out docs/operations.md]

Prints one JSON object; with --out also the tables, between their markers in that page. Exit code 1 when a bound is not held.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.machine import machine
from benchmarks.placed_section import placed
from benchmarks.private_installation import Installation, answers, installation
from benchmarks.soak_page import page
from benchmarks.soak_samples import Disk, Sample, disk, error_lines, sample
from benchmarks.soak_verdict import disk_growth, failed_answers, gone, left_behind, roles, unbounded
from cluster import health
from cluster.attach import heed_stop_signals
from cluster.run_record import read_run
from market.errors import ClusterError, InputError
from market.market_clock import open_time_between
from market.symbols import CATALOGUE

SYMBOLS = tuple(CATALOGUE)[:28]
TRAINED = "EURUSD,GBPUSD,USDJPY"
PATHS = (
    "/api/v1/predictions/EURUSD",
    "/api/v1/forex/all",
    "/api/v1/signals",
    "/api/v1/bars/GBPUSD?limit=240",
    "/api/v1/predictions/USDJPY/history?limit=50",
    "/api/v1/models/EURUSD",
    "/api/v1/predictions/AUDUSD",
)
DISK_SECONDS = 30.0
QUIET_SECONDS = 30.0  # before the first job, and after the last: Ray ends an idle worker after a second
BUDGET, JOB_SECONDS = "90s", 600.0  # a wall, so that runs come and go on a busy machine as well
DAY = timedelta(days=1)


@dataclass
class Watch:
    """What was seen. `jobs`: seconds of each that succeeded. `before`: the last sample before the first job."""

    samples: list[Sample] = field(default_factory=list)
    disks: list[Disk] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    jobs: list[float] = field(default_factory=list)
    job_errors: list[str] = field(default_factory=list)
    before: Sample | None = None
    told: int = -1

    def look(self, made: Installation) -> None:
        run = read_run(made.home)
        if run is None:
            raise ClusterError("The installation is gone.")
        self.samples.append(sample(run))
        self.loads.append(os.getloadavg()[0])
        if not self.disks or time.time() - self.disks[-1].at >= DISK_SECONDS:
            self.disks.append(disk(roots(made)))

    def tell(self) -> None:
        """Once a minute."""
        last = self.samples[-1]
        minute = int((last.at - self.samples[0].at) / 60)
        if minute > self.told:
            self.told = minute
            print(f"{minute:3} min: {len(last.processes)} processes, {last.memory_mb:.0f} MB, {len(self.jobs)} jobs, load {self.loads[-1]:.1f}", file=sys.stderr, flush=True)  # fmt: skip


def roots(made: Installation) -> dict[str, Path]:
    run = read_run(made.home)
    return {"home": made.home, "ray": Path(run.temp_dir)} if run else {"home": made.home}


def train(made: Installation, watch: Watch, stopped: threading.Event) -> None:
    """One training run after the other, as a user submits them."""
    while not stopped.is_set():
        began = time.monotonic()
        name = f"soak-{len(watch.jobs) + len(watch.job_errors) + 1}"
        words = ["--preset", "quick", "--symbols", TRAINED, "--budget", BUDGET, "--submission-id", name, "--follow"]
        try:
            done = made.lstmc("train", *words, seconds=JOB_SECONDS)
        except subprocess.TimeoutExpired:
            watch.job_errors.append(f"{name}: not over after {JOB_SECONDS:.0f} s")
            continue
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
            watch.job_errors.append(f"{name}: {said[-1]}")
        else:
            watch.jobs.append(time.monotonic() - began)


@contextmanager
def training(made: Installation, watch: Watch) -> Iterator[threading.Thread]:
    stopped = threading.Event()
    thread = threading.Thread(target=train, args=(made, watch, stopped))
    thread.start()
    try:
        yield thread
    finally:
        stopped.set()


def soak(made: Installation, minutes: float, every: float, watch: Watch) -> None:
    """Quiet, then training for `minutes`, then until the last run has ended, then quiet again; looked at every few seconds."""

    def look_for(seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            watch.look(made)
            watch.tell()
            time.sleep(every)

    look_for(QUIET_SECONDS)
    watch.before = watch.samples[-1]
    with training(made, watch) as thread:
        look_for(60 * minutes)
    while thread.is_alive():
        look_for(every)
    look_for(QUIET_SECONDS)


def restarted(made: Installation) -> list[str]:
    return [
        f"{one['name']} was restarted {one['restarts']} times"
        for one in health.actors(made.settings)
        if one["restarts"]
    ]


def judged(made: Installation, watch: Watch, warm_up: float) -> dict[str, Any]:
    """The JSON object, less what it was measured with. `warm_up`: seconds from the first sample."""
    assert watch.before is not None
    since, until = watch.samples[0].at + warm_up, watch.samples[-1].at
    samples = [one for one in watch.samples if one.at >= since]
    disks = [one for one in watch.disks if one.at >= since]
    clock = made.settings.market_clock
    open_days = open_time_between(clock.now(disks[0].at), clock.now(disks[-1].at)) / DAY
    hours = open_time_between(clock.now(watch.samples[0].at), clock.now(until)) / timedelta(hours=1)
    told = answers(made.load_file, watch.samples[0].at, until)
    kinds = Counter(str(line["kind"]) for line in told)
    found, folders, failed = roles(samples), disk_growth(disks, open_days), failed_answers(told)
    ledger = json.loads(made.lstmc("ledger", "verify", "--json").stdout)
    grew = [why for role in found for why in role.wrong] + unbounded(folders)
    more = left_behind(watch.before, watch.samples[-1], os.cpu_count() or 1)
    lost = [f"{role} died or was replaced" for role in gone(samples[0], samples[-1])] + restarted(made)
    errors = error_lines(roots(made))
    wrong = [*grew, *more, *lost, *watch.job_errors, *errors[:10]]
    wrong += [f"{n} x {kind}" for kind, n in failed.items()]
    wrong += [] if ledger["intact"] else ["the ledger is not intact"]
    wrong += [] if watch.jobs and kinds["ok"] and kinds["update"] else ["no job, answer or update came to a good end"]
    return {
        "ok": not wrong,
        "wrong": wrong,
        "market_hours": round(hours, 1),
        "minutes": round((until - watch.samples[0].at) / 60, 1),
        "judged_minutes": round((until - since) / 60, 1),
        "roles": {
            one.role: {
                "processes": one.processes,
                "memory_mb": one.memory.rounded(),
                "mb_a_day": round(one.memory.growth / (open_days or 1), 3),
                "handles": one.handles.rounded(),
            }
            for one in found
        },
        "with_jobs": {"before": figures(watch.before), "after": figures(watch.samples[-1])},
        "disk": folders,
        "ledger": {"rows": ledger["rows"], "intact": ledger["intact"]},
        "answers": dict(kinds),
        "jobs": {"succeeded": len(watch.jobs), "seconds": round(median(watch.jobs), 1) if watch.jobs else None},
        "error_lines": len(errors),
        "load": [round(min(watch.loads), 1), round(max(watch.loads), 1)],
    }


def figures(one: Sample) -> dict[str, float]:
    return {"processes": len(one.processes), "memory_mb": round(one.memory_mb, 1)}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lstmc bench soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=16.0, help="of training; the last run is waited for")
    parser.add_argument("--warm-up", type=float, default=4.0, help="minutes that are not judged")
    parser.add_argument("--speed", type=float, default=360.0, help="market seconds per second")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two samples")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    parser.add_argument("--streams", type=int, default=4, help="held open")
    parser.add_argument("--out", type=Path, help="write the tables between their markers in this page")
    given = parser.parse_args(argv)
    if given.warm_up >= given.minutes:
        raise InputError("Nothing would be judged.", hint="More --minutes, or a smaller --warm-up.")
    heed_stop_signals()
    load, watch = ["--paths", ",".join(PATHS), "--conditional", "--streams", str(given.streams)], Watch()
    with installation(given.rate, symbols=",".join(SYMBOLS), speed=given.speed, load=load) as made:
        soak(made, given.minutes, given.every, watch)
        report = judged(made, watch, 60 * given.warm_up)
    words = f"--minutes {given.minutes:g} --warm-up {given.warm_up:g} --speed {given.speed:g} --rate {given.rate:g}"
    report |= {"command": f"python -m benchmarks.soak {words}", "machine": machine()}
    if given.out:
        old = given.out.read_text() if given.out.exists() else ""
        given.out.write_text(placed(old, page(report, datetime.now(UTC))))
    print(json.dumps(report))
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
