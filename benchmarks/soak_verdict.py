"""From samples to figures and a verdict: what grew after the warm-up, how fast, and whether a bound was passed. Pure.

Growth is the slope of Theil and Sen (the median of the slopes between all pairs of samples) over the time looked at: one
peak of a training run, or one look that fell into it, does not move it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from scipy.stats import theilslopes

from benchmarks.soak_samples import Disk, Process, Sample
from market.errors import InputError

MEMORY_PERCENT = 5.0  # over the time looked at
MEMORY_MB = 2.0  # less than this is an allocator's, whatever its share of a small process
HANDLES = 1.0  # over the time looked at, and a twentieth of them
HANDLES_BOUND = {"log monitor": 240}  # of each process: Ray closes the logs of ended workers when it has 200 open
DISK_MB = 0.1  # over the time looked at, of a folder that nothing is known to bound
PRESENT = 0.95  # of the samples: a process that lives from the warm-up to the end
COMES_AND_GOES = (
    "job",
    "JobSupervisor",
    "fit_unit",
    "idle worker",
    "worker",
    "sh",
    "sleep",
    "nice",
    "python",
    "python3.11",
)
GOOD = ("ok", "not modified", "update")
KEEPERS = {  # folders, as a shell would match them -> what bounds them
    "home/data/bars*": "grows by design, a row a bar; files of old versions go after 30 days",
    "home/data/registry*": "grows by design, a bundle for each model that was promoted; a line a run",
    "home/data": "a spool of 20,000 forecasts, a log of 500 runs, the evidence of holes",
    "home/logs": "what `ray start` says, some KB a start",
    "ray/session/logs": "50 MB a log; those of ended processes and runs go after 14 days",
    "ray/mt5/session/logs": "50 MB a log",
    "ray/*session/runtime_resources*": "Ray: 10 GB of code that jobs ran; the same code once",
}


@dataclass(frozen=True)
class Growth:
    """`level`: the median; `growth`: the slope times the time looked at, in the unit of the level."""

    level: float
    growth: float

    @property
    def percent(self) -> float:
        return 100 * self.growth / self.level if self.level else 0.0

    def rounded(self) -> dict[str, float]:
        return {"level": round(self.level, 1), "growth": round(self.growth, 2), "percent": round(self.percent, 1)}


@dataclass(frozen=True)
class Role:
    """All processes of a role that live from the warm-up to the end, summed."""

    role: str
    processes: int
    memory: Growth
    handles: Growth

    @property
    def wrong(self) -> list[str]:
        found = []
        if self.memory.percent >= MEMORY_PERCENT and self.memory.growth >= MEMORY_MB:
            found.append(f"{self.role}: memory grew by {self.memory.growth:.1f} MB ({self.memory.percent:.1f} %)")
        bounded = self.handles.level + self.handles.growth < self.processes * HANDLES_BOUND.get(self.role, 0)
        if self.handles.growth >= HANDLES + self.handles.level / 20 and not bounded:
            found.append(f"{self.role}: {self.handles.growth:.0f} more file handles")
        return found


def growth(at: Sequence[float], values: Sequence[float]) -> Growth:
    """Of values seen at epoch seconds, ascending. Fewer than three say nothing: no growth."""
    if len(values) < 3:
        return Growth(float(np.median(values)) if values else 0.0, 0.0)
    slope = float(theilslopes(values, at).slope)
    return Growth(float(np.median(values)), slope * (at[-1] - at[0]))


def long_lived(samples: Sequence[Sample]) -> dict[str, str]:
    """Key -> role of those that are in the first sample, the last one and nearly all between. The last role counts: a worker
    has none before its first task."""
    seen = Counter(key for one in samples for key in one.processes)
    first, last = samples[0].processes, samples[-1].processes
    return {
        key: process.role
        for key, process in last.items()
        if key in first and seen[key] >= PRESENT * len(samples) and process.role not in COMES_AND_GOES
    }


def roles(samples: Sequence[Sample]) -> list[Role]:
    """Growth of each role, the largest first, and of their sum as role "all of these"."""
    by_role = defaultdict(list)
    for key, role in long_lived(samples).items():
        by_role[role].append(key)
    found = [_role(role, keys, samples) for role, keys in by_role.items()]
    found.sort(key=lambda one: -one.memory.level)
    return [*found, _role("all of these", [key for keys in by_role.values() for key in keys], samples)]


def _role(role: str, keys: Sequence[str], samples: Sequence[Sample]) -> Role:
    def series(value: Callable[[Process], float]) -> Growth:
        # A process that could not be read in one sample makes that sample useless for the sum.
        whole = [one for one in samples if all(key in one.processes for key in keys)]
        return growth([one.at for one in whole], [sum(value(one.processes[key]) for key in keys) for one in whole])

    return Role(role, len(keys), series(lambda one: one.memory_mb), series(lambda one: one.handles))


def gone(before: Sample, after: Sample) -> list[str]:
    """Processes of the product that were there after the warm-up and are not at the end: somebody died or was replaced."""
    lost = [one.role for key, one in before.processes.items() if key not in after.processes]
    return sorted(role for role in lost if role not in COMES_AND_GOES)


def left_behind(before: Sample, after: Sample, idle: int) -> list[str]:
    """Roles with more processes after the last job than before the first. Ray keeps up to `idle` workers warm."""
    had, has = (Counter(one.role for one in sample.processes.values()) for sample in (before, after))
    more = {role: has[role] - had[role] for role in has}
    spare = {role: idle if role == "idle worker" else 0 for role in has}
    return [f"{n} more of {role!r} after the last job" for role, n in sorted(more.items()) if n > spare[role]]


def disk_growth(disks: Sequence[Disk], market_days: float) -> dict[str, dict[str, float]]:
    """Folder -> MB at the end, MB more than at the first look, MB and files more a day; the largest growth first.

    A day is the market's for what follows bars, and the wall's for the rest.
    """
    first, last = disks[0].folders, disks[-1].folders
    wall_days = (disks[-1].at - disks[0].at) / 86_400
    if not market_days or not wall_days:
        raise InputError(
            "The disk was not looked at twice while the market was open.",
            hint="More --minutes, or a smaller --warm-up.",
        )
    found = {}
    for folder in sorted(set(first) | set(last)):
        (size, files), (size_now, files_now) = first.get(folder, (0, 0)), last.get(folder, (0, 0))
        days = market_days if folder.startswith("home/data") else wall_days
        found[folder] = {
            "mb": round(size_now / 1e6, 2),
            "mb_more": round((size_now - size) / 1e6, 3),
            "mb_a_day": round((size_now - size) / 1e6 / days, 2),
            "files": files_now,
            "files_a_day": round((files_now - files) / days),
        }
    return dict(sorted(found.items(), key=lambda item: -item[1]["mb_more"]))


def failed_answers(lines: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Kind -> how many, of lines of benchmarks.http_load that are no good answer. A stream that ended is one."""
    return dict(Counter(f"{one['kind']} of {one['path']}" for one in lines if one["kind"] not in GOOD))


def keeper(folder: str) -> str:
    """What bounds a folder; "" when nothing is known to."""
    return next((words for pattern, words in KEEPERS.items() if fnmatchcase(folder, pattern)), "")


def unbounded(folders: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Folders that grow and that nothing is known to bound."""
    return [
        f"{folder} grew by {one['mb_more']} MB, and nothing bounds it"
        for folder, one in folders.items()
        if one["mb_more"] >= DISK_MB and not keeper(folder)
    ]
