"""The whole path with a real Windows node: `lstmc up --market mt5` on Linux, and the product's supervisor, Ray node and mt5
actor on Windows Python, where a simulator stands in the MetaTrader5 package's place.

The tests build on each other: each leaves the cluster as the next expects it.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.health import api_status
from cluster.nodes import PORT_FLAGS, free_ports, stop
from cluster.run_record import members
from configs.settings import ensure_secrets, make_settings
from market.bar_store import BarStore
from market.broker_clock import BrokerClock
from market.errors import LstmcError
from mt5_actor_windows.api_keys import accept, digest_of
from mt5_actor_windows.feeds import SimulatedFeed
from mt5_actor_windows.node_ports import NODE_MANAGER
from mt5_actor_windows.session import Mt5Session
from mt5_actor_windows.simulated_market import SimulatedMarket
from mt5_actor_windows.simulated_terminal import SimulatedTerminal
from tests.ray.conftest import LSTMC, Cluster, eventually
from tests.windows.wine_lab import ROOT, WineLab

PACKAGE = Path(__file__).with_name("simulated_package")
SYMBOLS = ("EURUSD", "USDJPY")
DEADLINE_SECONDS = 6
CONTENT = ["symbol", "timeframe", "open_time", "open", "high", "low", "close", "tick_volume", "spread_points"]


@dataclass
class WindowsCluster(Cluster):
    """A Linux head and a Windows node, each of which a user would start with one command."""

    address: str
    lab: WineLab
    wedge: Path
    node_home: Path
    port_shift: int

    @property
    def environment(self) -> dict[str, str]:
        certificate = str(self.node_home / "secrets" / "data_api_cert.pem")  # as copied from there
        more = {"LSTMC_TERMINAL_DEADLINE_SECONDS": str(DEADLINE_SECONDS), "LSTMC_DATA_API_CA": certificate}
        return super().environment | more

    @property
    def flags(self) -> list[str]:
        given = [word for name, port in self.ports.items() for word in (PORT_FLAGS[name], str(port))]
        words = [
            "--market",
            "mt5",
            "--head-host",
            self.address,
            "--symbols",
            ",".join(SYMBOLS),
            "--no-train",
            "--detach",
        ]
        return [*words, "--data-api-url", f"https://{self.address}:{self.ports['data_api_port']}", *given]

    def start_node(self) -> None:
        """The supervisor, as run.ps1 starts it; of the head's key this host holds the digest only."""
        accept(self.node_home, digest_of((self.home / "secrets" / "data_api_key").read_bytes()), "head")
        secret = (self.home / "secrets" / "ray_token").read_text().strip()
        variables = {"PYTHONPATH": f"Z:{PACKAGE};Z:{ROOT}", "PYTHONUNBUFFERED": "1", "RAY_AUTH_TOKEN": secret}
        variables |= {"LSTMC_TEST_WEDGE": f"Z:{self.wedge}", "LSTMC_HOME": f"Z:{self.node_home}"}
        words = ["-m", "mt5_actor_windows.node", "--head", f"{self.address}:{self.ports['head_port']}"]
        words += ["--address", self.address, "--data-api-port", str(self.ports["data_api_port"])]
        self.lab.start_quietly(*words, "--port-shift", str(self.port_shift), variables=variables)

    def source(self) -> dict[str, Any]:
        """What the market data actor says of its source."""
        try:
            status = api_status(self.settings)
        except LstmcError as error:
            return {"connected": False, "reason": str(error)}
        return dict((status.get("source") or {}).get("source") or {})

    def said(self) -> str:
        return (self.lab.folder / "last.log").read_text(errors="replace")


@pytest.fixture(scope="module")
def cluster(windows: WineLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WindowsCluster]:
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("windows")
    ports = dict(zip(PORT_FLAGS, free_ports(4), strict=True))
    made = WindowsCluster(home, ports, own_address(), windows, folder / "wedged", folder / "home", free_shift())
    ensure_secrets(make_settings(home=home))
    made.lstmc("key", "certificate", "--address", made.address, "--out", str(made.node_home / "secrets"))
    up = subprocess.Popen(
        [LSTMC, "up", *made.flags], env=made.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        made.start_node()
        said = up.communicate(timeout=240)[0].decode()
        assert up.returncode == 0, f"{said}\n{made.said()}"
        read_over(made, "ray", 180)  # a slow machine may have begun over HTTP
        yield made
    finally:
        up.kill()
        up.wait()
        windows.end()
        stop(home)


def own_address() -> str:
    """This machine's address as another one would reach it; traffic to it never leaves the machine."""
    import ray

    return str(ray.util.get_node_ip_address())


def free_shift() -> int:
    """By how much to move the node's fixed ports, so that two runs on one machine do not meet."""
    return 10_000 + 200 * (os.getpid() % 50)  # below the ports that the system hands out


def truth(symbol: str, stored: Any) -> Any:
    """What the simulator says of the stored range, read on Linux."""
    clock = BrokerClock("new_york")
    terminal = SimulatedTerminal(SimulatedFeed(SimulatedMarket(5), SYMBOLS, clock), clock, lambda: datetime.now(UTC))
    session = Mt5Session(lambda: terminal, clock, lambda: datetime.now(UTC))
    return session.closed_bars(symbol, "H1", stored["open_time"][0].as_py(), stored["close_time"][-1].as_py())


def assert_stored_bars_are_the_truth(cluster: WindowsCluster) -> None:
    store = BarStore(cluster.settings.bars_path)
    for symbol in SYMBOLS:
        stored = store.read([symbol], "H1")
        assert stored.num_rows > 6000
        assert stored.select(CONTENT).equals(truth(symbol, stored).select(CONTENT)), symbol


def test_forecasts_are_served_from_the_bars_of_a_windows_node(cluster: WindowsCluster) -> None:
    report = cluster.json("status")
    node = next(n for n in report["nodes"] if n["role"] == "mt5")
    actors = {actor["name"]: actor for actor in report["actors"]}
    assert actors["mt5"]["node_id"] == node["id"]
    assert actors["market_data"]["node_id"] != node["id"]
    assert report["root_cause"] == ""
    assert_stored_bars_are_the_truth(cluster)
    token = cluster.json("token", "issue")["token"]
    code, body = cluster.get("/api/v1/forex/all", token)
    assert code == 200
    assert {forecast["symbol"]: forecast["market"] for forecast in body["forecasts"]} == dict.fromkeys(SYMBOLS, "mt5")
    source = cluster.source()
    assert (source["connected"], source["transport"], source["server"]) == (True, "ray", "Simulated-Demo")


def read_over(cluster: WindowsCluster, transport: str, seconds: float) -> None:
    """Wait until bars come that way; what the source said last when they do not."""
    said: list[dict[str, Any]] = []

    def look() -> bool:
        said.append(cluster.source())
        return bool(said[-1].get("connected")) and said[-1].get("transport") == transport

    try:
        eventually(look, seconds)
    except AssertionError:
        pytest.fail(f"not read over {transport} within {seconds:.0f} s: {said[-1]}\n{cluster.said()}")


def raylet(cluster: WindowsCluster) -> psutil.Process:
    """The Windows node's raylet, as Linux sees it."""
    mark = f"--node_manager_port={NODE_MANAGER + cluster.port_shift}"
    [one] = [process for process in psutil.process_iter(["cmdline"]) if mark in (process.info["cmdline"] or [])]
    return one


def test_a_killed_raylet_comes_back_by_itself(cluster: WindowsCluster) -> None:
    raylet(cluster).send_signal(signal.SIGKILL)
    read_over(cluster, "http", 60)  # the data API beside it goes on
    read_over(cluster, "ray", 150)  # its supervisor starts it again


def test_a_new_head_gets_the_node_back(cluster: WindowsCluster) -> None:
    for process in members(cluster.run, "head"):
        process.kill()
    assert cluster.lstmc("status", check=False).returncode == 3
    again = cluster.lstmc("up", *cluster.flags)
    assert "cleared away a stale head" in again.stderr
    read_over(cluster, "ray", 120)
    assert_stored_bars_are_the_truth(cluster)


def test_a_hung_terminal_is_killed_and_recovers(cluster: WindowsCluster) -> None:
    assert cluster.source()["connected"] is True
    cluster.wedge.touch()
    try:
        hung = eventually(lambda: None if (now := cluster.source())["connected"] else now, 60)
    finally:
        cluster.wedge.unlink()
    assert f"did not answer within {DEADLINE_SECONDS} s" in hung["reason"]
    eventually(lambda: cluster.source()["connected"], 90)
