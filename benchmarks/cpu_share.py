"""A share of this machine's CPU for all that one command starts: a control group of Linux with a quota. Wants root.

Version 2 where its tree has the CPU controller, else version 1. Knows nothing about what runs in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from market.errors import ClusterError

CGROUPS = Path("/sys/fs/cgroup")
PERIOD_US = 20_000  # short, so that whoever is stopped goes on soon
SECONDS = 10.0  # for what ran in it to be gone


@contextmanager
def cpu_share(name: str, cores: float, root: Path = CGROUPS, seconds: float = SECONDS) -> Iterator[list[str]]:
    """The first words of a command that is held to `cores` with all its children, until then ended by whoever started it.

    ClusterError where no control group can be made, or when something in it still runs `seconds` after that.
    """
    group = _group(name, root)
    try:
        group.mkdir()
        for file, value in quota(group, cores).items():
            (group / file).write_text(value)
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        hint = "It takes root and a writable cgroup file system with the CPU controller; in a container, --privileged."
        raise ClusterError(f"No control group for the CPU: {error}.", hint=hint) from None
    try:
        yield ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(group / "cgroup.procs")]
    finally:
        _remove(group, seconds)


def _group(name: str, root: Path) -> Path:
    """Where it is to be. The controller is handed down in version 2's root, where that is not done yet."""
    controllers = root / "cgroup.controllers"
    if controllers.exists() and "cpu" in controllers.read_text().split():
        handed_down = root / "cgroup.subtree_control"
        try:
            if "cpu" not in handed_down.read_text().split():
                handed_down.write_text("+cpu")
        except OSError as error:
            raise ClusterError(f"{handed_down} takes no +cpu: {error}.", hint="It takes root.") from None
        return root / name
    return root / "cpu" / name


def quota(group: Path, cores: float) -> dict[str, str]:
    """file -> what is written into it."""
    share = str(round(PERIOD_US * cores))
    if (group.parent / "cgroup.controllers").exists():
        return {"cpu.max": f"{share} {PERIOD_US}"}
    return {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": share}


def _remove(group: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return group.rmdir()
        except OSError as error:
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"{group} could not be removed: {error}.", hint="Something in it still runs."
                ) from None
            time.sleep(0.1)
