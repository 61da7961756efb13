"""A private installation for a benchmark: its own home, free ports, and nothing of it left afterwards. Runs the code beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.nodes import PORT_FLAGS, free_ports, stop
from configs.settings import ROOT, Settings, load_settings

LSTMC = str(Path(sys.executable).parent / "lstmc")


def shell(home: Path, **more: str) -> dict[str, str]:
    """This process's environment for commands on `home`, without what speaks of another cluster."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "LSTMC_"))}
    return clean | {"LSTMC_HOME": str(home), "PYTHONPATH": str(ROOT)} | more


@contextmanager
def live_cluster(home: Path, *flags: str, code: Path = ROOT, **environment: str) -> Iterator[Settings]:
    """`lstmc up` with `flags`, without training; `code`: the checkout that runs; `environment`: settings that have no flag
    (LSTMC_...)."""
    ports = zip(PORT_FLAGS.values(), map(str, free_ports(len(PORT_FLAGS))), strict=True)
    words = [word for pair in ports for word in pair]
    command = [LSTMC, "up", "--detach", "--no-train", *words, *flags]
    try:
        environment |= {"PYTHONPATH": str(code)}
        subprocess.run(command, cwd=code, check=True, stdout=sys.stderr, env=shell(home, **environment))
        yield load_settings(home)
    finally:
        stop(home)
