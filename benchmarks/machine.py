"""What a figure was measured on. One line that goes into every benchmark's JSON."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine() -> str:
    """For example "2 cores AMD EPYC 7B13, 23 GiB, Linux 6.18, Python 3.11.7"."""
    cpu = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    kib = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    system = f"{platform.system()} {platform.release().split('-')[0]}"
    return f"{os.cpu_count()} cores {cpu}, {kib / 2**20:.0f} GiB, {system}, Python {platform.python_version()}"


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []
