"""Load from a second process: wrk on a URL, and what it saw. Knows nothing about what is asked."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REPORT = """
done = function(summary, latency, requests)
  local bad = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format('\\n{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "bad": %d}\\n', summary.requests,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, bad + summary.errors.status))
end
"""


@dataclass(frozen=True)
class Seen:
    """`rate`: answers a second. `p50_ms`, `p99_ms`: from a request to its whole answer."""

    rate: float
    p50_ms: float
    p99_ms: float


def install_wrk() -> None:
    """Debian's package, when it is not there; CalledProcessError where that cannot be."""
    subprocess.run([Path(__file__).parent / "install_wrk.sh"], check=True)


def load(url: str, seconds: float, connections: int, headers: Mapping[str, str] | None = None) -> Seen:
    """Ask `url` as fast as answers come; RuntimeError when one answer was an error, or did not come."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(REPORT)
        script.flush()
        given = [word for name, value in (headers or {}).items() for word in ("-H", f"{name}: {value}")]
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", script.name, *given, url]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    counted = json.loads(told.strip().splitlines()[-1])
    if counted["bad"] or not counted["requests"]:
        raise RuntimeError(f"{url}: {counted['bad']} of {counted['requests']} requests failed.")
    return Seen(counted["requests"] / counted["seconds"], counted["p50_ms"], counted["p99_ms"])
