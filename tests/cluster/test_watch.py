"""Prometheus and Grafana beside the cluster, with small programs of their names on the PATH: what is asked of them, what is
said of one that is absent or fails, who is started again and who is ended. `tests/ray` starts the real Prometheus.
"""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from cluster import health, nodes, watch
from cluster.progress import Progress
from cluster.run_record import Run, read_run, write_run
from configs.settings import Settings, make_settings

# Answers 200 on every path of the port it is told, and leaves its arguments and environment in its log.
WORKS = """#!{python}
import http.server, json, os, sys

class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass

print(json.dumps([sys.argv[1:], dict(os.environ)]), flush=True)
port = os.environ.get("GF_SERVER_HTTP_PORT") or sys.argv[-1].rpartition(":")[2]
http.server.HTTPServer(("127.0.0.1", int(port)), Ready).serve_forever()
""".replace("{python}", sys.executable)
FAILS = "#!/bin/sh\necho opening storage failed >&2; exit 1\n"
HANGS = "#!/bin/sh\nexec sleep 600\n"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def put(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for (name, program), port in zip(watch.PROGRAMS.items(), nodes.free_ports(2), strict=True):
        monkeypatch.setitem(watch.PROGRAMS, name, program._replace(port=port))
    return make_settings(home=tmp_path / "home")


@pytest.fixture
def run(settings: Settings) -> Iterator[Run]:
    made = nodes.new_run(settings)
    settings.home_path.mkdir()
    write_run(settings.home_path, made)
    yield made
    nodes.stop(settings.home_path)


def watched(settings: Settings, run: Run) -> tuple[Run, str]:
    said = io.StringIO()
    return watch.watch(settings, run, Progress(said)), said.getvalue()


def told(settings: Settings, name: str) -> tuple[list[str], dict[str, str]]:
    """With which arguments and environment the program was started last."""
    words, environment = json.loads((settings.home_path / "logs" / f"{name}.log").read_text().splitlines()[-1])
    return words, environment


def test_an_absent_program_is_one_sentence(settings: Settings, run: Run, path: Path) -> None:
    put(path, "grafana-server", WORKS)  # has nothing to show without the other
    after, said = watched(settings, run)
    assert after == run == read_run(settings.home_path)
    assert "without prometheus, which is not on the PATH. " in said
    assert "`apt-get install prometheus`" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("program", "says"),
    [(FAILS, "opening storage failed"), (HANGS, "within 0 s"), ("#!/no/such/shell\n", "No such file")],
)
def test_a_program_that_does_not_start_is_said_and_ended(
    settings: Settings, run: Run, path: Path, monkeypatch: pytest.MonkeyPatch, program: str, says: str
) -> None:
    monkeypatch.setattr(watch, "START_SECONDS", 0.3 if program == HANGS else 20.0)
    put(path, "prometheus", program)
    after, said = watched(settings, run)
    assert after == run == read_run(settings.home_path)
    assert says in said
    assert nodes.stop(settings.home_path) == 0  # nothing was left


def test_prometheus_reads_this_clusters_nodes_with_our_rules(settings: Settings, run: Run, path: Path) -> None:
    real_path = os.defpath
    put(path, "prometheus", WORKS)
    after, said = watched(settings, run)
    assert "without grafana-server, which is not on the PATH" in said
    assert after == read_run(settings.home_path)
    words, environment = told(settings, "prometheus")
    given = dict(word.lstrip("-").split("=", 1) for word in words)
    port = watch.PROGRAMS["prometheus"].port
    assert given["web.listen-address"] == f"127.0.0.1:{port}"
    assert health.watchers(after) == {"prometheus": f"http://127.0.0.1:{port}"}
    assert {"storage.tsdb.retention.time", "storage.tsdb.retention.size"} < given.keys()
    assert "LSTMC_HOME" not in environment
    file = Path(given["config.file"])
    subprocess.run(["promtool", "check", "config", file], check=True, capture_output=True, env={"PATH": real_path})
    config = yaml.safe_load(file.read_text())
    assert config["rule_files"] == [str(watch.DEPLOY / "prometheus" / "rules.yaml")]
    found = config["scrape_configs"][0]["file_sd_configs"][0]["files"]
    assert found == [str(nodes.temp_dir(settings.home_path) / "prom_metrics_service_discovery.json")]


def test_only_what_is_missing_is_started_again_and_down_ends_both(settings: Settings, run: Run, path: Path) -> None:
    for name in watch.PROGRAMS:
        put(path, name, WORKS)
    first, _ = watched(settings, run)
    assert first.processes.keys() == watch.PROGRAMS.keys()
    assert watched(settings, first) == (first, "")
    nodes.end_processes([psutil.Process(first.processes["grafana-server"].pid)])
    assert health.watchers(first) == {
        "prometheus": f"http://127.0.0.1:{first.ports['prometheus']}",
        "grafana-server": None,
    }
    again, said = watched(settings, first)
    assert "prometheus" not in said
    assert again.processes["prometheus"] == first.processes["prometheus"]
    assert again.processes["grafana-server"] != first.processes["grafana-server"]
    assert again.ports == first.ports
    assert nodes.stop(settings.home_path) == 2
    assert not any(again.alive(name) for name in watch.PROGRAMS)


def test_grafana_has_its_source_and_all_boards(settings: Settings, run: Run, path: Path) -> None:
    for name in watch.PROGRAMS:
        put(path, name, WORKS)
    with socket.socket() as other:  # somebody's Grafana
        other.bind(("127.0.0.1", watch.PROGRAMS["grafana-server"].port))
        other.listen()
        after, _ = watched(settings, run)
    port = after.ports["grafana-server"]
    assert port != watch.PROGRAMS["grafana-server"].port
    _, environment = told(settings, "grafana-server")
    assert (environment["GF_SERVER_HTTP_ADDR"], environment["GF_SERVER_HTTP_PORT"]) == ("127.0.0.1", str(port))
    provisioning = Path(environment["GF_PATHS_PROVISIONING"])
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())
    assert source["datasources"][0]["url"] == health.watchers(after)["prometheus"]
    providers = yaml.safe_load((provisioning / "dashboards" / "boards.yaml").read_text())["providers"]
    boards = [json.loads(file.read_text()) for one in providers for file in Path(one["options"]["path"]).glob("*.json")]
    assert len({board["uid"] for board in boards}) == 5
