"""One live cluster for a module: its own home, free ports, three simulated pairs at ten minutes a second."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest

from actors.retrain_scheduler import log_file
from cluster.health import http_get
from cluster.nodes import PORT_FLAGS, free_ports, stop
from cluster.run_record import Run, read_run
from configs.settings import Settings, load_settings

LSTMC = str(Path(sys.executable).parent / "lstmc")
T = TypeVar("T")


@dataclass
class Cluster:
    """A running installation, spoken to as a user would: the command line and HTTP."""

    home: Path
    ports: dict[str, int]

    @property
    def flags(self) -> list[str]:
        given = [(PORT_FLAGS[name], str(port)) for name, port in self.ports.items()]
        return [
            "--symbols", "EURUSD,GBPUSD,USDJPY", "--speed", "600", "--no-train", "--detach",
            *[word for pair in given for word in pair],
        ]  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "LSTMC_"))}
        # Waiting for something asks more often than a trader may; a full queue is one call that waits.
        ours = {"LSTMC_HOME": str(self.home), "LSTMC_REQUESTS_PER_MINUTE": "100000", "LSTMC_ON_DEMAND_QUEUE": "1"}
        return clean | ours

    @property
    def settings(self) -> Settings:
        return load_settings(self.home)

    @property
    def run(self) -> Run:
        run = read_run(self.home)
        assert run is not None
        return run

    def lstmc(self, *words: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        shell = self.environment | environment
        done = subprocess.run([LSTMC, *words], capture_output=True, text=True, env=shell, timeout=300)
        assert not check or done.returncode == 0, f"lstmc {' '.join(words)}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *words: str) -> Any:
        return json.loads(self.lstmc(*words, "--json").stdout)

    def get(self, path: str, token: str = "") -> tuple[int, Any]:
        return http_get(f"http://127.0.0.1:{self.ports['port']}{path}", token)


def eventually(look: Callable[[], T], seconds: float = 60.0, what: str = "") -> T:
    """The first true answer of `look`; an AssertionError with its last answer after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what or look}; last answer {found!r}"
        time.sleep(0.25)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("home"), dict(zip(PORT_FLAGS, free_ports(4), strict=True)))
    try:
        made.lstmc("up", *made.flags)
        with log_file(
            made.settings
        ).change() as held:  # else a slot of the real night would train in the midst of a test
            held[0] = replace(held[0], paused_since=datetime.now(UTC))
        yield made
    finally:
        stop(made.home)


@pytest.fixture(scope="module")
def token(cluster: Cluster) -> str:
    return str(cluster.json("token", "issue", "--subject", "test")["token"])
