"""Load from a second process: wrk on a URL, and what it saw. Knows nothing about what is asked."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

REPORT = """
done = function(summary, latency, requests)
  local bad = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format('\\n{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "bad": %d}\\n', summary.requests,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, bad + summary.errors.status))
end
"""


@dataclass(frozen=True)
class Seen:
    """`rate`: answers a second. `p50_ms`, `p99_ms`: from a request to its whole answer. `cpu_us`: of the servers, for one."""

    rate: float
    cpu_us: float
    p50_ms: float
    p99_ms: float


def install_wrk() -> None:
    """Debian's package, when it is not there; CalledProcessError where that cannot be."""
    subprocess.run([Path(__file__).parent / "install_wrk.sh"], check=True)


def load(
    url: str,
    seconds: float,
    connections: int,
    servers: Sequence[psutil.Process],
    headers: Mapping[str, str] | None = None,
    *,
    there: Sequence[str] = (),
) -> Seen:
    """Ask `url`, which `servers` answer, as fast as answers come; RuntimeError when one answer was an error, or did not
    come within a minute. `there`: the first words of a command that runs elsewhere."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(REPORT)
        script.flush()
        given = [word for name, value in (headers or {}).items() for word in ("-H", f"{name}: {value}")]
        command = [
            *there,
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds:g}s",
            "--timeout",
            "60s",
            "-s",
            script.name,
            *given,
            url,
        ]
        before = cpu_seconds(servers)
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        spent = cpu_seconds(servers) - before
    counted = json.loads(told.strip().splitlines()[-1])
    if counted["bad"] or not counted["requests"]:
        raise RuntimeError(f"{url}: {counted['bad']} of {counted['requests']} requests failed.")
    cpu_us = spent / counted["requests"] * 1e6
    return Seen(counted["requests"] / counted["seconds"], cpu_us, counted["p50_ms"], counted["p99_ms"])


def cpu_seconds(servers: Sequence[psutil.Process]) -> float:
    """User and system time that they have used so far."""
    return sum(times.user + times.system for times in (server.cpu_times() for server in servers))
