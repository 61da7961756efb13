"""Startup: seconds from a fresh clone (`make up`) and from a second `lstmc up` to forecasts over HTTP, and idle memory.

It runs the product's own commands in a clone and a home of their own, on free ports, and ends what it started.
Knows nothing about what is started.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from configs.settings import ROOT

PORT_FLAGS = ("--port", "--dashboard-port", "--data-api-port", "--head-port")


def free_ports(count: int) -> list[int]:
    """Distinct TCP ports that nobody listens on at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def timed(command: list[str], **options: Any) -> float:
    """Wall seconds of a command, its output on our stderr; raises CalledProcessError when it fails."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=sys.stderr, **options)
    return time.perf_counter() - start


def measure(folder: Path, *, settle_seconds: float) -> dict[str, Any]:
    """Clone, `make up`, wait until the stack is idle, read its memory, down, up again, down."""
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    ports = [part for pair in zip(PORT_FLAGS, map(str, free_ports(len(PORT_FLAGS))), strict=True) for part in pair]
    flags = ["--detach", "--no-train", *ports]
    lstmc = str(clone / ".venv" / "bin" / "lstmc")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LSTMC_", "RAY_", "VIRTUAL_ENV"))}
    run = {"cwd": clone, "env": environment}
    try:
        cold = timed(["make", "up", f"UP_FLAGS={' '.join(flags)}"], **run)
        time.sleep(settle_seconds)
        status = subprocess.run([lstmc, "status", "--json"], check=True, capture_output=True, text=True, **run)  # type: ignore[call-overload]
        timed([lstmc, "down"], **run)
        warm = timed([lstmc, "up", *flags], **run)
    finally:
        subprocess.run([lstmc, "down"], check=False, stdout=sys.stderr, **run)  # type: ignore[call-overload]
    return {"cold_s": round(cold, 1), "warm_s": round(warm, 1), "idle_mb": json.loads(status.stdout)["memory_mb"]}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lstmc bench startup", description=__doc__)
    parser.add_argument("--settle", type=float, default=30.0, help="seconds to wait before memory is read")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="lstmc-bench-") as folder:
        figures = measure(Path(folder), settle_seconds=options.settle)
    print(json.dumps(figures | {"command": "lstmc bench startup --json", "machine": machine()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
