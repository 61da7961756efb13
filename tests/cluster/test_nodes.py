"""Ports are checked before anything starts; the children's environment makes jobs run our code with our token."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import sys
from pathlib import Path

import pytest

from cluster import nodes
from cluster.serve_environment import PROGRAM
from cluster.worker_node import worker_environment
from configs.ray_traces import RAY_LOG_LIMITS, RAY_MEMORY_LIMITS
from configs.settings import Settings, ensure_secrets, make_settings
from market.errors import ConfigError, PortInUse


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    ports = dict(zip(nodes.PORT_FLAGS, nodes.free_ports(4), strict=True))
    made = make_settings(home=tmp_path, **ports)
    ensure_secrets(made)
    return made


def test_free_ports_pass(settings: Settings) -> None:
    nodes.check_ports(settings)


@pytest.mark.parametrize(("name", "flag"), list(nodes.PORT_FLAGS.items()))
def test_a_taken_port_is_named_with_its_owner_and_the_flag(settings: Settings, name: str, flag: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", getattr(settings, name)))
        listener.listen()
        with pytest.raises(PortInUse) as caught:
            nodes.check_ports(settings)
    assert str(getattr(settings, name)) in caught.value.message
    assert f"pid {os.getpid()}" in caught.value.message
    assert flag in caught.value.hint
    assert caught.value.exit_code == 3


def test_the_data_apis_port_is_not_ours_where_the_terminal_is_elsewhere(settings: Settings) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", settings.data_api_port))
        listener.listen()
        nodes.check_ports(settings.model_copy(update={"market": "mt5", "speed": 1.0}))


def test_the_head_is_where_other_machines_reach_it(settings: Settings) -> None:
    moved = settings.model_copy(update={"head_host": "10.8.0.1"})
    assert "--node-ip-address=10.8.0.1" in nodes.head_command(moved, 2, {})
    assert "--dashboard-host=127.0.0.1" in nodes.head_command(moved, 2, {})
    assert nodes.gcs_address(moved) == f"10.8.0.1:{settings.head_port}"


def test_two_settings_with_one_port_are_refused(settings: Settings) -> None:
    with pytest.raises(PortInUse, match="both the HTTP API and the MT5 data API"):
        nodes.check_ports(settings.model_copy(update={"data_api_port": settings.port}))


def test_children_find_our_python_our_code_our_token(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:1")
    monkeypatch.setenv("PYTHONPATH", "/other")
    environment = nodes.ray_environment(settings, "run-1", "mt5")
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert environment["PYTHONPATH"].split(os.pathsep) == [str(nodes.ROOT), "/other"]
    assert environment["LSTMC_HOME"] == str(settings.home_path)
    assert (environment["LSTMC_RUN"], environment["LSTMC_NODE"]) == ("run-1", "mt5")
    assert environment["RAY_AUTH_TOKEN"] == (settings.home_path / "secrets" / "ray_token").read_text()
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_worker_niceness"] == "0"
    assert environment["FORWARDED_ALLOW_IPS"] == "none"  # or a client on loopback could say where it comes from
    assert "RAY_ADDRESS" not in environment  # somebody else's cluster
    assert environment.items() >= (RAY_LOG_LIMITS | RAY_MEMORY_LIMITS).items()


def test_the_token_is_private(settings: Settings) -> None:
    mode = (settings.home_path / "secrets" / "ray_token").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_the_temp_dir_is_short_and_one_per_home() -> None:
    first, second = nodes.temp_dir(Path("/a" * 100)), nodes.temp_dir(Path("/b"))
    assert first != second
    assert len(str(first)) < 45


def test_the_mt5_node_has_the_resource_and_no_cpus() -> None:
    command = nodes.mt5_command("127.0.0.1:6379", Path("/tmp/x/mt5"), {"metrics-export-port": 20001})
    assert "--temp-dir=/tmp/x/mt5" in command  # not the head's: see mt5_command
    assert "--num-cpus=0" in command
    assert '--resources={"mt5": 1}' in command
    assert "--labels=role=mt5,os=linux" in command


def test_the_token_is_on_no_command_line(settings: Settings) -> None:
    token = (settings.home_path / "secrets" / "ray_token").read_text()
    plans = [*nodes.node_plan("head", settings, "h"), *nodes.node_plan("worker", settings, "h")]
    commands = [*nodes.head_command(settings, 2, {}), *nodes.mt5_command("x:1", Path("/tmp/x"), {}), *plans]
    assert not any(token in word for word in commands)


def test_linux_nodes_say_that_they_are(settings: Settings) -> None:
    commands = [
        nodes.head_command(settings, 2, {}),
        *(nodes.node_plan(kind, settings, "h") for kind in ("head", "worker")),
    ]
    assert all("os=linux" in " ".join(command) for command in commands)


def test_a_worker_is_where_the_head_reaches_it(settings: Settings) -> None:
    command = nodes.worker_command("10.8.0.1:6379", "10.8.0.3", Path("/tmp/x"))
    assert {"--address=10.8.0.1:6379", "--node-ip-address=10.8.0.3", "--temp-dir=/tmp/x"} < set(command)
    printed = nodes.node_plan("worker", settings, "10.8.0.1", "10.8.0.3")[1]
    assert printed.startswith(f"ray start --block --address=10.8.0.1:{settings.head_port} --node-ip-address=10.8.0.3 ")


def test_a_worker_that_serves_says_so(settings: Settings) -> None:
    assert "--labels=role=train,os=linux" in nodes.worker_command("10.8.0.1:6379")
    assert "--labels=role=serve,os=linux" in nodes.worker_command("10.8.0.1:6379", serve=True)
    printed = nodes.node_plan("worker", settings, "10.8.0.1", "10.8.0.3", serve=True)
    assert printed[-1] == ".venv/bin/lstmc node worker --start --serve --host 10.8.0.1 --address 10.8.0.3"


def test_a_worker_without_a_token_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="no Ray token"):
        worker_environment(tmp_path)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t0ken")
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:1")
    environment = worker_environment(tmp_path)
    assert environment["RAY_AUTH_TOKEN"] == "t0ken"
    assert environment["RAY_worker_niceness"] == "0"
    assert "RAY_ADDRESS" not in environment
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(nodes.ROOT)
    assert environment.items() >= RAY_LOG_LIMITS.items()
    assert not any(name.startswith("RAY_SERVE_") for name in environment)
    serving = worker_environment(tmp_path, serve=True)
    assert serving["RAY_SERVE_HAPROXY_BINARY_PATH"] == str(PROGRAM)
    assert serving["FORWARDED_ALLOW_IPS"] == "none"


@pytest.mark.parametrize("file", ["Dockerfile", "systemd/lstmc-worker.service"])
def test_what_starts_ray_without_us_bounds_its_logs_alike(file: str) -> None:
    said = (nodes.ROOT / "cluster" / "deploy" / file).read_text()
    assert all(f"{name}={value}" in said for name, value in RAY_LOG_LIMITS.items())


def test_the_windows_plan_has_the_real_token_and_only_the_digest_of_the_key(settings: Settings) -> None:
    token, key = ((settings.home_path / "secrets" / name).read_text() for name in ("ray_token", "data_api_key"))
    plan = nodes.node_plan("windows", settings, "10.8.0.1", "10.8.0.2")
    digest = hashlib.sha256(key.encode()).hexdigest()
    assert plan == [
        "Set-ExecutionPolicy -Scope Process Bypass -Force",
        "Set-PSReadLineOption -HistorySaveStyle SaveNothing",
        rf".\mt5_actor_windows\install\install.ps1 -Head 10.8.0.1:{settings.head_port} -Address 10.8.0.2"
        f" -RayToken '{token}' -DataApiKeyDigest {digest}",
        r".\mt5_actor_windows\install\doctor.ps1",
    ]
    assert key not in "\n".join(plan)
    assert "-Address" not in nodes.node_plan("windows", settings, "10.8.0.1")[2]


def test_the_outward_address_is_an_address() -> None:
    assert socket.inet_aton(nodes.outward_address())


def test_stopping_nothing_ends_nothing(tmp_path: Path) -> None:
    assert nodes.stop(tmp_path) == 0


def test_ports_are_distinct_and_avoid_those_already_given() -> None:
    first = nodes.free_ports(50)
    assert len(set(first)) == 50
    assert not set(nodes.free_ports(50, avoid=first)) & set(first)
