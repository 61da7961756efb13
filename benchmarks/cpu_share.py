"""A share of this machine's CPU for all that one command starts: a control group of Linux with a quota. Wants root.

Version 2 where its tree has the CPU controller, else version 1. Knows nothing about what runs in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from market.errors import ClusterError

CGROUPS = Path("/sys/fs/cgroup")
PERIOD_US = 20_000  # short, so that whoever is stopped goes on soon
SECONDS = 10.0  # for what ran in it to be gone
HINT = "It takes root and a writable cgroup file system with the CPU controller; in a container, --privileged."


@dataclass(frozen=True)
class CpuGroup:
    """`folder`: of its files. Without a limit until `hold_to`."""

    folder: Path

    @property
    def words(self) -> list[str]:
        """The first ones of a command that is to be in it, with all its children."""
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self.folder / "cgroup.procs")]

    def hold_to(self, cores: float) -> None:
        """All of it together, from now on; ClusterError where that is refused."""
        share = str(round(PERIOD_US * cores))
        files = {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": share}
        if (self.folder.parent / "cgroup.controllers").exists():
            files = {"cpu.max": f"{share} {PERIOD_US}"}
        try:
            for file, value in files.items():
                (self.folder / file).write_text(value)
        except OSError as error:
            raise ClusterError(f"{self.folder} takes no quota: {error}.", hint=HINT) from None


@contextmanager
def cpu_group(name: str, root: Path = CGROUPS, seconds: float = SECONDS) -> Iterator[CpuGroup]:
    """A new one; whoever started something in it has ended that when this ends. ClusterError where none can be made, or when
    something in it still runs `seconds` after that."""
    folder = _parent(root) / name
    try:
        folder.mkdir()
    except OSError as error:
        raise ClusterError(f"No control group for the CPU: {error}.", hint=HINT) from None
    try:
        yield CpuGroup(folder)
    finally:
        _remove(folder, seconds)


def _parent(root: Path) -> Path:
    """Where groups with the CPU controller are. In version 2's root it is handed down, where that is not done yet."""
    controllers, handed_down = root / "cgroup.controllers", root / "cgroup.subtree_control"
    if not controllers.exists() or "cpu" not in controllers.read_text().split():
        return root / "cpu"
    try:
        if "cpu" not in handed_down.read_text().split():
            handed_down.write_text("+cpu")
    except OSError as error:
        raise ClusterError(f"{handed_down} takes no +cpu: {error}.", hint=HINT) from None
    return root


def _remove(folder: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return folder.rmdir()
        except OSError as error:
            if time.monotonic() > deadline:
                hint = "Something in it still runs."
                raise ClusterError(f"{folder} could not be removed: {error}.", hint=hint) from None
            time.sleep(0.1)
