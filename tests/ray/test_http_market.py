"""A cluster without a terminal's node: its bars come over HTTP from a host that cannot join. The host goes and comes back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cluster.nodes import PORT_FLAGS, free_ports, stop
from configs.settings import ensure_secrets, make_settings
from mt5_actor_windows.api_keys import accept, digest_of
from tests.ray.conftest import Cluster, eventually

SYMBOLS = ["EURUSD", "USDJPY"]


@dataclass
class HttpCluster(Cluster):
    """The cluster and the other host, here a second program with a home of its own."""

    host_home: Path
    host: subprocess.Popen[str] | None = field(default=None)

    @property
    def flags(self) -> list[str]:
        given = [word for name, port in self.ports.items() for word in (PORT_FLAGS[name], str(port))]
        url = f"http://127.0.0.1:{self.ports['data_api_port']}"
        words = ["--market", "http", "--data-api-url", url, "--symbols", ",".join(SYMBOLS), "--no-train", "--detach"]
        return [*words, *given]

    def start_host(self) -> None:
        words = ["--market", "simulated", "--symbols", ",".join(SYMBOLS), "--home", str(self.host_home), "--json"]
        words += ["--port", str(self.ports["data_api_port"])]
        self.host = subprocess.Popen(
            [sys.executable, "-m", "mt5_actor_windows.data_api", *words], stdout=subprocess.PIPE, text=True
        )
        assert self.host.stdout is not None
        assert json.loads(self.host.stdout.readline())["market"] == "simulated"

    def end_host(self) -> None:
        if self.host is not None:
            self.host.kill()
            self.host.communicate()

    def source(self) -> dict[str, Any]:
        return dict(self.json("status")["api"]["source"]["source"])


@pytest.fixture(scope="module")
def http_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpCluster]:
    ports = dict(zip(PORT_FLAGS, free_ports(4), strict=True))
    made = HttpCluster(tmp_path_factory.mktemp("head"), ports, tmp_path_factory.mktemp("host"))
    ensure_secrets(make_settings(home=made.home))
    accept(made.host_home, digest_of((made.home / "secrets" / "data_api_key").read_bytes()), "head")
    try:
        made.start_host()
        made.lstmc("up", *made.flags)
        yield made
    finally:
        made.end_host()
        stop(made.home)


def test_forecasts_come_from_bars_over_http_and_say_that_they_are_simulated(http_cluster: HttpCluster) -> None:
    token = http_cluster.json("token", "issue")["token"]
    code, body = http_cluster.get("/api/v1/forex/all", token)
    assert code == 200
    assert {one["symbol"]: one["market"] for one in body["forecasts"]} == dict.fromkeys(SYMBOLS, "simulated")
    assert http_cluster.get("/api/v1/status", token)[1]["simulated"] is True
    report = http_cluster.json("status")
    assert {node["role"] for node in report["nodes"]} == {"head"}
    assert "mt5" not in {actor["name"] for actor in report["actors"]}
    assert (http_cluster.source()["transport"], report["root_cause"]) == ("http", "")


def test_a_host_that_goes_is_named_and_is_read_again_when_it_is_back(http_cluster: HttpCluster) -> None:
    http_cluster.end_host()
    gone = eventually(lambda: None if (now := http_cluster.source())["connected"] else now, 30)
    assert "cannot be reached" in gone["reason"]
    assert "not connected" in http_cluster.json("status")["root_cause"]
    token = http_cluster.json("token", "issue")["token"]
    assert http_cluster.get("/api/v1/predictions/EURUSD", token)[0] == 200
    http_cluster.start_host()
    eventually(lambda: http_cluster.source()["connected"], 60)
    assert http_cluster.json("status")["root_cause"] == ""
