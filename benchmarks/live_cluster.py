"""A private installation for a benchmark: its own home, free ports, and nothing of it left afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.nodes import PORT_FLAGS, free_ports, stop
from configs.settings import Settings, load_settings


@contextmanager
def live_cluster(home: Path, *flags: str, **environment: str) -> Iterator[Settings]:
    """`lstmc up` with `flags`, without training; `environment`: settings that have no flag (LSTMC_...)."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "LSTMC_"))}
    ports = zip(PORT_FLAGS.values(), map(str, free_ports(len(PORT_FLAGS))), strict=True)
    words = [word for pair in ports for word in pair]
    program = str(Path(sys.executable).parent / "lstmc")
    command = [program, "up", "--detach", "--no-train", *words, *flags]
    try:
        subprocess.run(command, check=True, stdout=sys.stderr, env=clean | {"LSTMC_HOME": str(home)} | environment)
        yield load_settings(home)
    finally:
        stop(home)
