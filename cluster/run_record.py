"""What is running: the processes that `up` started, on which ports, written to `<home>/run.json`. Starts and ends nothing.

A process is known by pid and start time together, since pids are used again; a whole run by LSTMC_RUN in its environment,
which every descendant inherits, even one whose parent has died.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

RUN_VARIABLE = "LSTMC_RUN"
NODE_VARIABLE = "LSTMC_NODE"  # head | mt5 | prometheus | grafana-server


@dataclass(frozen=True)
class Started:
    """One process: `pid` and its start time (epoch seconds)."""

    pid: int
    create_time: float

    @classmethod
    def of(cls, pid: int) -> Started:
        return cls(pid, psutil.Process(pid).create_time())

    def process(self) -> psutil.Process | None:
        """The living process, or None when it ended (a zombie has ended; a pid given to another process is not ours)."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.create_time) < 0.05
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


@dataclass(frozen=True)
class Run:
    """The record. `state`: starting | up | down. Seconds are wall time of this `up`; None when it did not get there."""

    run_id: str
    state: str
    temp_dir: str
    ports: dict[str, int]
    processes: dict[str, Started] = field(default_factory=dict)  # by the same names
    gcs_address: str = ""
    started_at: float = 0.0
    cold_s: float | None = None  # first forecast of a fresh home
    warm_s: float | None = None  # first forecast of a home that had bars

    def alive(self, name: str) -> bool:
        started = self.processes.get(name)
        return started is not None and started.process() is not None

    def with_process(self, name: str, started: Started) -> Run:
        return replace(self, processes=self.processes | {name: started})


def run_path(home: Path) -> Path:
    return home / "run.json"


def read_run(home: Path) -> Run | None:
    """The last run of this home, or None when there was none. A torn file counts as none."""
    try:
        fields: dict[str, Any] = json.loads(run_path(home).read_text())
        fields["processes"] = {name: Started(**started) for name, started in fields["processes"].items()}
        return Run(**fields)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def write_run(home: Path, run: Run) -> None:
    path = run_path(home)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(asdict(run), indent=1))
    temporary.replace(path)


def members(run: Run, node: str | None = None) -> list[psutil.Process]:
    """Every living process of the run, or of one node of it: the recorded ones, their descendants, and whoever carries
    the run's mark."""
    found: dict[int, psutil.Process] = {}
    for name, started in run.processes.items():
        process = started.process() if node in (None, name) else None
        if process is not None:
            found[process.pid] = process
            found |= {child.pid: child for child in _children(process)}
    found |= {process.pid: process for process in _marked(run.run_id, node)}
    found.pop(os.getpid(), None)
    return list(found.values())


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _marked(run_id: str, node: str | None) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if environment.get(RUN_VARIABLE) == run_id and node in (None, environment.get(NODE_VARIABLE)):
                yield process
        except (psutil.Error, OSError):
            continue  # another user's process, or one that has just ended


def memory_mb(run: Run) -> float | None:
    """Memory of the whole run in MB as proportional set size (shared pages counted once); None where /proc cannot say."""
    total, seen = 0, False
    for process in members(run):
        size = _pss_kb(process.pid)
        seen |= size is not None
        total += size or 0
    return round(total / 1024, 1) if seen else None


def _pss_kb(pid: int) -> int | None:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return None
