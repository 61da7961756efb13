"""What the terminal's host starts, with which environment, and what it says about wrong words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from configs.ray_traces import RAY_LOG_LIMITS
from market.errors import ConfigError
from mt5_actor_windows import node, node_ports
from mt5_actor_windows.kept_program import KeptProgram
from mt5_actor_windows.versions import mismatch, versions
from tests.mt5_actor_windows.test_kept_program import Fake


def test_the_ray_node_takes_no_work_and_only_ports_that_a_firewall_names() -> None:
    command = node.ray_command("10.8.0.1:6379", "10.8.0.2", r"C:\rt")
    assert command[:4] == [sys.executable, "-m", "ray.scripts.scripts", "start"]
    flags = dict(word.lstrip("-").split("=", 1) for word in command[4:] if "=" in word)
    assert (flags["address"], flags["node-ip-address"]) == ("10.8.0.1:6379", "10.8.0.2")
    assert (flags["num-cpus"], json.loads(flags["resources"])) == ("0", {"mt5": 1})
    assert flags["labels"] == "role=mt5,os=linux"  # here
    assert flags["temp-dir"] == r"C:\rt"
    ports = {name: int(value) for name, value in flags.items() if name.endswith("port")}
    assert sorted(ports.values()) == [*range(node_ports.NODE_MANAGER, node_ports.METRICS + 1), *node_ports.WORKERS]
    moved = node.ray_command("h:1", "a", None, port_shift=100)
    assert f"--node-manager-port={node_ports.NODE_MANAGER + 100}" in moved
    assert not any("temp-dir" in word for word in moved)


def test_the_environment_has_the_token_and_says_who_runs_the_data_api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("PYTHONPATH", "/other")
    monkeypatch.setenv(node.APART, "1")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "ray_token").write_text("a-token\n")
    apart, alone = (node.ray_environment(tmp_path, apart=one) for one in (True, False))
    assert (apart["RAY_AUTH_TOKEN"], apart["RAY_AUTH_MODE"], apart["LSTMC_HOME"]) == ("a-token", "token", str(tmp_path))
    assert apart["PYTHONPATH"].split(os.pathsep) == [str(node.ROOT), "/other"]
    assert apart.items() >= RAY_LOG_LIMITS.items()
    assert apart["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "1"
    assert (apart.get(node.APART), alone.get(node.APART)) == ("1", None)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    assert node.ray_environment(tmp_path, apart=True)["RAY_AUTH_TOKEN"] == "another"


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_without_a_token_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    if content is not None:
        (tmp_path / "secrets").mkdir()
        (tmp_path / "secrets" / "ray_token").write_text(content)
    assert node.main(["--head", "10.8.0.1:6379", "--home", str(tmp_path)]) == 2
    assert "There is no Ray token" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "is not HOST:PORT"),
        (["--head", "10.8.0.1"], "is not HOST:PORT"),
        (["--head", ":6379"], "is not HOST:PORT"),
        (["--no-ray", "--no-data-api"], "leave nothing to run"),
    ],
)
def test_wrong_words_are_named(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert node.main(words) == 2
    assert said in capsys.readouterr().err


def test_a_ray_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "WARM", "import no_such_package")
    with pytest.raises(ConfigError, match=r"Ray cannot be imported here: .*no_such_package"):
        node.warm_up(tmp_path, lambda _: None)


def test_the_data_api_waits_for_the_ray_nodes_first_start_but_not_for_a_later_one() -> None:
    first, second = Fake(), Fake()
    ray = KeptProgram("ray", lambda: first, lambda _: None, start_seconds=75, monotonic=lambda: 0.0)
    api = KeptProgram("api", lambda: second, lambda _: None, start_seconds=75, monotonic=lambda: 0.0)
    node.step_all([ray, api])
    assert (ray.starts, api.starts) == (1, 0)
    first.end_word = "code 1"
    node.step_all([ray, api])
    assert (ray.starts, api.starts) == (1, 1)


def test_a_host_that_cannot_join_keeps_its_data_api_and_ends_it_with_itself(tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "mt5_actor_windows.node",
        "--no-ray",
        "--home",
        str(tmp_path),
        "--data-api-port",
        "0",
    ]
    host = subprocess.Popen(words, cwd=node.ROOT, stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None
    assert "the data API is up" in host.stdout.readline()
    record = tmp_path / "data_api.processes.json"
    pids = [pid for pid, _ in json.loads(record.read_text())]
    os.kill(pids[0], signal.SIGKILL)
    assert "the data API ended with code -9" in host.stdout.readline()
    assert "the data API is up" in host.stdout.readline()
    host.send_signal(signal.SIGTERM)
    assert host.communicate(timeout=20)[0] == ""
    assert host.returncode == 0
    assert not record.exists()


def test_versions_that_can_work_together() -> None:
    ours = versions()
    assert mismatch(ours, ours) == ""
    assert mismatch(ours, ours | {"numpy": ours["numpy"].split(".")[0] + ".0.0", "pyarrow": "1.0"}) == ""
    assert mismatch(ours, ours | {"python": "3.11.0"}) == ""
    found = mismatch(
        {"python": "3.11.7", "ray": "2.60.0", "numpy": "2.4.1"},
        {"python": "3.12.1", "ray": "2.60.1", "numpy": "1.26.4"},
    )
    assert found == "python 3.11.7 here, 3.12.1 there; ray 2.60.0 here, 2.60.1 there; numpy 2.4.1 here, 1.26.4 there"
    assert "numpy 2.4.1 here, none there" in mismatch(ours | {"numpy": "2.4.1"}, {})


def test_a_windows_node_can_import_what_it_runs() -> None:
    code = "import sys; sys.modules['fcntl'] = None; import actors.handles, mt5_actor_windows.actor"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
