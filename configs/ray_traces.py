"""What Ray writes and remembers about itself, and what bounds it: it rotates at half a gigabyte, and never removes a log.

Knows neither Ray nor which node this is.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from math import inf
from pathlib import Path

RAY_LOG_LIMITS = {  # of each log 10 MB and four older parts of it
    "RAY_ROTATION_MAX_BYTES": str(10 * 2**20),
    "RAY_ROTATION_BACKUP_COUNT": "4",
    "RAY_event_stats_print_interval_ms": "600000",  # every minute they were nine tenths of all lines
}
RAY_MEMORY_LIMITS = {  # of the control store, for Ray's dashboard; 100,000 each otherwise
    "RAY_task_events_max_num_task_in_gcs": "10000",
    "RAY_maximum_gcs_destroyed_actor_cached_count": "1000",
}
KEPT_SECONDS = 14 * 86_400.0  # logs of processes that have ended, and of runs
OWNER = re.compile(r"[-_](\d+)(?:\.\d+)?\.(?:log|out|err)(?:\.\d+)?$")  # the pid in python-core-worker-3f2a_4711.log


def has_process(pid: int) -> bool:
    return Path("/proc", str(pid)).exists()


def sweep(session: Path, now: float, is_alive: Callable[[int], bool] = has_process, *, others: bool = False) -> int:
    """Remove the logs of ended processes and runs that were last written `KEPT_SECONDS` before `now` (epoch seconds); every
    training leaves a few dozen. `others`: also sessions beside it that are as old; only in a folder of our own. Returns how
    many files and sessions went. Raises nothing of the file system's: who trains must not fail for it.

    session: Ray's session folder of this node. A log without a pid stays, and so does one whose pid lives.
    """
    went, session = 0, session.resolve()
    with suppress(OSError):  # another run sweeps, too, and takes folders away under our eyes
        for path in (session / "logs").rglob("*"):
            owner = OWNER.search(path.name)
            ended = not is_alive(int(owner[1])) if owner else path.name.startswith("job-driver-")
            if ended and now - _written(path) > KEPT_SECONDS:
                path.unlink(missing_ok=True)
                went += 1
    with suppress(OSError):
        for other in session.parent.glob("session_*") if others else ():
            if other.is_symlink() or other == session:
                continue
            # A living raylet writes its state every minute, whoever's it is.
            if now - max(map(_written, (other / "logs").glob("*")), default=now) > KEPT_SECONDS:
                shutil.rmtree(other, ignore_errors=True)
                went += 1
    return went


def _written(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return inf
