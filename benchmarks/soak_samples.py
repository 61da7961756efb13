"""What a running installation holds at one moment: memory and file handles of each process, bytes and files on disk.

Reads /proc and folders only. Judges nothing.
"""

from __future__ import annotations

import os
import re
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.run_record import Run, members

PROGRAMS = {  # part of a command line -> role, the first that fits
    "gcs_server": "control store",
    "raylet/raylet": "raylet",
    "haproxy": "HAProxy",
    "log_monitor.py": "log monitor",
    "monitor.py": "autoscaler monitor",
    "dashboard/dashboard.py": "dashboard",
    "multiprocessing.forkserver": "dashboard",
    "ray.util.client.server": "Ray client server",
    "bin/ray start": "ray start",
}
SESSION = re.compile(r"session_\d{4}[\d_-]+")
HASHED = re.compile(r"^[0-9a-f]{32,}$")
LOGS = {".log", ".err", ".out"}
ERROR = re.compile(rb"\bERROR\b|^Traceback|\bCRITICAL\b|^\[[^\]]* [EF] \d")  # of ours, Python's, and Ray's C++


@dataclass(frozen=True)
class Process:
    """`memory_mb`: anonymous and shared memory, proportional (shared pages counted once). Pages of files are left out:
    they can be dropped, and whoever else maps the same library changes whose they are."""

    role: str
    memory_mb: float
    handles: int


@dataclass(frozen=True)
class Sample:
    """`at`: epoch seconds. `processes`: by pid and start time, since pids are used again."""

    at: float
    processes: Mapping[str, Process]

    @property
    def memory_mb(self) -> float:
        return sum(process.memory_mb for process in self.processes.values())


@dataclass(frozen=True)
class Disk:
    """`folders`: folder -> (bytes, files)."""

    at: float
    folders: Mapping[str, tuple[int, int]]


def role_of(title: str) -> str:
    """ "Api" for `ray::ServeReplica:lstmc:Api.handle_request`, "ForecasterActor", "raylet", "job", or the program's name."""
    if title.startswith("ray::"):
        name = re.split(r"[.(\s]", title.removeprefix("ray::"))[0]
        if name.startswith("_ray_internal_job_actor_"):  # a job's supervisor, at times under its actor's name
            return "JobSupervisor"
        return "idle worker" if name == "IDLE" else name.removeprefix("ServeReplica:lstmc:") or "worker"
    if title.startswith("ray-dashboard-"):
        return "dashboard"  # one of its modules, each a process
    if "tuning.retrain" in title:
        return "job"
    known = next((role for part, role in PROGRAMS.items() if part in title), None)
    return known or Path(title.split(" ")[0]).name or "unnamed"


def sample(run: Run) -> Sample:
    """Of every living process of the run; one that ends while it is looked at is left out."""
    found = {}
    for process in members(run):
        try:
            with process.oneshot():
                key = f"{process.pid}@{process.create_time():.2f}"
                role = role_of(" ".join(process.cmdline()) or process.name())
            folder = Path("/proc", str(process.pid))
            memory = memory_mb((folder / "smaps_rollup").read_text())
            found[key] = Process(role, memory, len(os.listdir(folder / "fd")))
        except (psutil.Error, OSError):
            continue
    return Sample(time.time(), found)


def memory_mb(rollup: str) -> float:
    """Of a /proc/PID/smaps_rollup."""
    kib = {line.split(":")[0]: int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss_")}
    return (kib["Pss_Anon"] + kib["Pss_Shmem"]) / 1024


def disk(roots: Mapping[str, Path]) -> Disk:
    """`roots`: name -> folder; each is divided into what lies in it, two levels deep. Bytes are those that the disk gives."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for name, root in roots.items():
        for path, _, files in os.walk(root):
            parts = folder_name(Path(path).relative_to(root).parts)
            for file in files:
                try:
                    size = os.lstat(os.path.join(path, file)).st_blocks * 512
                except OSError:
                    continue  # gone meanwhile
                held = found["/".join((name, *parts))]
                held[0] += size
                held[1] += 1
    return Disk(time.time(), {folder: (size, files) for folder, (size, files) in found.items()})


def folder_name(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Session names without their date, hashes as "*", `data/<market>` as one, two levels deep."""
    known = ["session" if SESSION.fullmatch(part) else "*" if HASHED.match(part) else part for part in parts]
    if known[:1] == ["data"]:
        known = ["data", *known[2:]]
    deep = 3 if known[:1] == ["mt5"] or known[:2] == ["session", "runtime_resources"] else 2
    return tuple(known[:deep])


def error_lines(roots: Mapping[str, Path]) -> list[str]:
    """ "file: line" of each line of an error in the logs under `roots`, also in those that Ray has rotated (x.log.1)."""
    found = []
    for root in roots.values():
        for path in sorted(root.rglob("*")):
            if not LOGS.isdisjoint(path.suffixes) and path.is_file() and not path.is_symlink():
                found += [
                    f"{path.name}: {line.decode(errors='replace')}" for line in _lines(path) if ERROR.search(line)
                ]
    return found


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines()
    except OSError:
        return []  # gone meanwhile
