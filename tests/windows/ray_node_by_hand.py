"""A Windows Ray node joins a Linux head and the product's mt5 actor on it reads MetaTrader5: there, a simulator.

Run by hand, it can take minutes on a busy machine: `python -m pytest tests/windows/ray_node_by_hand.py`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.nodes import free_ports
from configs.settings import make_settings
from market.broker_clock import BrokerClock
from mt5_actor_windows.feeds import SimulatedFeed
from mt5_actor_windows.session import Mt5Session
from mt5_actor_windows.simulated_market import SimulatedMarket
from mt5_actor_windows.simulated_terminal import SimulatedTerminal
from tests.windows.ray_driver import last_week
from tests.windows.wine_lab import ROOT, WineLab

TOKEN = "a-token-for-this-test-only-0123456789"
PACKAGE = Path(__file__).with_name("simulated_package")
TRIES, START_SECONDS = 3, 75.0  # the raylet gives its agent 15 s; on a busy machine it must be started again


def environment(**more: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "LSTMC_"))}
    ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
    ray |= {"RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
    quick = {"RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "5000"}
    return clean | ray | quick | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | more


@dataclass
class Cluster:
    """A Linux head, a driver beside it, and the Windows node's lab."""

    lab: WineLab
    address: str
    driver: subprocess.Popen[str]
    wedge: Path

    def ask(self, what: str) -> dict[str, Any]:
        assert self.driver.stdin is not None
        assert self.driver.stdout is not None
        self.driver.stdin.write(what + "\n")
        self.driver.stdin.flush()
        answer: dict[str, Any] = json.loads(self.driver.stdout.readline() or '{"error": "the driver ended"}')
        return answer

    def eventually(self, what: str, good: Callable[[dict[str, Any]], bool], seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while True:
            answer = self.ask(what)
            if good(answer):
                return answer
            assert time.monotonic() < deadline, f"{what}: {answer}"
            time.sleep(0.5)

    def start_node(self) -> None:
        """`ray start` on Windows Python, again where the raylet lost its race."""
        for _ in range(TRIES):
            self.start_once()
            try:
                self.eventually("nodes", lambda nodes: "mt5" in nodes["alive"], START_SECONDS)
                return
            except AssertionError:
                self.lab.end()
        pytest.fail("The Windows node did not join.")

    def start_once(self) -> None:
        ray = environment(LSTMC_SECRET_DATA_API_KEY="k" * 20, LSTMC_TEST_WEDGE=f"Z:{self.wedge}")
        variables = {name: value for name, value in ray.items() if name.startswith(("RAY_", "LSTMC_"))}
        variables |= {"PYTHONPATH": f"Z:{PACKAGE};Z:{ROOT}", "PYTHONUNBUFFERED": "1"}
        arguments = ["--num-cpus=0", '--resources={"mt5": 1}', "--labels=role=mt5,os=windows", r"--temp-dir=C:\rt"]
        arguments += ["--object-store-memory=100000000", "--block", "--log-style=record", "--log-color=false"]
        self.lab.start_quietly(
            "-m", "ray.scripts.scripts", "start", f"--address={self.address}", *arguments, variables=variables
        )


@pytest.fixture(scope="module")
def cluster(windows: WineLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    port, api_port, folder = *free_ports(2), tmp_path_factory.mktemp("r")
    head = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", f"--port={port}", "--num-cpus=1"]
    head += ["--include-dashboard=false", f"--temp-dir=/tmp/lw{os.getpid()}", "--object-store-memory=100000000"]
    null = subprocess.DEVNULL
    heading = subprocess.Popen(
        head, env=environment(), stdin=null, stdout=null, stderr=null, start_new_session=True, cwd=ROOT
    )
    address = f"{_own_address()}:{port}"
    settings = make_settings(home=folder, market="mt5", symbols="EURUSD,USDJPY", speed=1.0, data_api_port=api_port)
    _until_listening(port, heading)
    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.windows.ray_driver", address, settings.model_dump_json()],
        env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=null, text=True, cwd=ROOT,
    )  # fmt: skip
    made = Cluster(windows, address, driver, folder / "wedged")
    try:
        made.start_node()
        yield made
    finally:
        driver.communicate(timeout=30)
        windows.end()
        _end_group(heading)


def _own_address() -> str:
    import ray

    return str(ray.util.get_node_ip_address())


def _until_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    from cluster.nodes import listens

    deadline = time.monotonic() + 60
    while not listens(port, _own_address()):
        assert process.poll() is None, "the head ended"
        assert time.monotonic() < deadline, "the head does not listen"
        time.sleep(0.2)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """The head and what it started: its own session, nobody else's."""
    started = [process, *psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    for one in started:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            one.kill()
    process.wait(10)


def answered(answer: dict[str, Any]) -> bool:
    return "closes" in answer


def test_the_mt5_actor_on_windows_reads_the_same_bars(cluster: Cluster) -> None:
    clock, market = BrokerClock("new_york"), SimulatedMarket(5)
    since, until = last_week()
    terminal = SimulatedTerminal(SimulatedFeed(market, ("EURUSD", "USDJPY"), clock), clock, lambda: until)
    here = Mt5Session(lambda: terminal, clock, lambda: until).closed_bars("EURUSD", "H1", since, until)
    assert cluster.ask("start") == {}
    there = cluster.eventually("bars", answered, 60.0)
    assert there["closes"] == here["close"].to_pylist()
    assert there["opens"] == here["open_time"].cast("int64").to_pylist()
    assert len(there["closes"]) == 120
    health = cluster.ask("health")
    assert (health["market"], health["connected"], health["server"]) == ("mt5", True, "Simulated-Demo")
