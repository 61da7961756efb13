"""What stands before the HTTP replicas: its ports and files are the installation's own, and it listens on loopback."""

from __future__ import annotations

import importlib.util
import os
import re
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from cluster.nodes import free_ports, ray_environment, temp_dir
from cluster.serve_environment import PROGRAM, SUPERVISION, bundled_haproxy, replica_environment, serve_environment
from configs.settings import ensure_secrets, make_settings
from serve_app.placement import awaited_machine, of_replicas

CONFIG = """global
    stats socket {folder}/admin.sock mode 666 level admin expose-fd listeners
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    errorfile 502 {folder}/500.http
    errorfile 503 {folder}/500.http
frontend prometheus
    bind :23001
frontend http_frontend
    bind {host}:23002
    default_backend none
backend none
    http-request return status 404
listen stats
  bind *:23003
  stats enable
"""


def test_two_installations_share_neither_files_nor_ports(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        settings = make_settings(home=tmp_path / name)
        ensure_secrets(settings)
        found.append(ray_environment(settings, "run", "head"))
    own = [
        name for name in found[0] if "HAPROXY" in name and name.endswith(("_LOC", "_PATH", "_BASE", "_FILE", "_PORT"))
    ]
    assert len(own) >= 7
    for name in set(own) - {"RAY_SERVE_HAPROXY_BINARY_PATH"}:
        assert found[0][name] != found[1][name], name


def test_the_sockets_path_is_short_enough(tmp_path: Path) -> None:
    """HAProxy binds it under a longer name first; Ray puts it into a folder named after the node."""
    folder = temp_dir(tmp_path)
    path = serve_environment(make_settings(home=tmp_path), folder, (1, 2, 3, 4))["RAY_SERVE_HAPROXY_SOCKET_PATH"]
    assert len(path) + len("/" + "0" * 56) <= 97


def test_rays_own_proxy_is_only_watched(tmp_path: Path) -> None:
    settings = make_settings(home=tmp_path, serve_proxy="ray")
    assert serve_environment(settings, tmp_path, (1, 2, 3, 4)) == SUPERVISION


@pytest.mark.parametrize("proxy", ["haproxy", "ray"])
def test_a_replica_elsewhere_knows_what_one_on_the_head_does(tmp_path: Path, proxy: str) -> None:
    settings = make_settings(home=tmp_path, serve_proxy=proxy)
    ensure_secrets(settings)
    own = replica_environment(settings)
    there = {"RAY_SERVE_ENABLE_HA_PROXY": "0", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "0"}  # as Ray has it where nobody says
    assert own.items() <= (there | ray_environment(settings, "run", "head")).items()
    assert own["FORWARDED_ALLOW_IPS"] == "none"  # or a client could say where it comes from
    assert own["RAY_SERVE_ENABLE_HA_PROXY"] == str(int(proxy == "haproxy"))


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({}, {"role": "head"}),  # HAProxy is there, and loopback ends at the machine
        ({"client_host": "0.0.0.0"}, {"role": "!in(mt5,train)"}),
        ({"client_host": "0.0.0.0", "http_nodes": "serve"}, {"role": "serve"}),
        ({"serve_proxy": "ray"}, {"role": "!in(mt5,train)"}),
    ],
)
def test_replicas_are_where_the_proxy_reaches_them(
    tmp_path: Path, given: dict[str, str], where: dict[str, str]
) -> None:
    assert of_replicas(make_settings(home=tmp_path, **given)) == where


def test_replicas_that_may_be_on_workers_only_wait_for_one(tmp_path: Path) -> None:
    elsewhere = make_settings(home=tmp_path, client_host="0.0.0.0", http_nodes="serve")
    assert "node worker --start --serve" in awaited_machine(elsewhere, {"head", "mt5", "train"})
    assert awaited_machine(elsewhere, {"head", "serve"}) == ""
    assert awaited_machine(make_settings(home=tmp_path), {"head"}) == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "*"])  # "*" is what Ray makes of 0.0.0.0
def test_the_program_puts_the_configuration_right_and_haproxy_takes_it(tmp_path: Path, host: str) -> None:
    config = tmp_path / "haproxy.cfg"
    (tmp_path / "500.http").write_text("HTTP/1.1 500 Internal Server Error\r\n\r\n")
    config.write_text(CONFIG.format(folder=tmp_path, host=host))
    shell = os.environ | {"LSTMC_HAPROXY": bundled_haproxy()}
    done = subprocess.run([PROGRAM, "-c", "-f", str(config)], env=shell, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = config.read_text()
    assert re.findall(r"bind (\S+)", said) == ["127.0.0.1:23001", f"{host}:23002", "127.0.0.1:23003"]
    assert "500.http" not in said
    assert "mode 600 level admin" in said
    assert "option forwardfor" in said
    assert "set-header x-request-disconnect-disabled ?1 if { path_beg /api/v1/predictions/ }" in said


def test_what_haproxy_says_of_its_own_is_a_problem_that_says_when_to_come_again(tmp_path: Path) -> None:
    """No server there (its own 503), one that hangs up (its own 502), none at all (Ray's plain 404), Serve's plain text."""
    config, (port, statistics, metrics, gone) = tmp_path / "haproxy.cfg", free_ports(4)
    with (
        plain_server(b"") as silent,
        plain_server(b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\n\r\n") as plain,
    ):
        backends = {"none": None, "gone": gone, "silent": silent, "plain": plain}
        lines = [f"backend {name}\n    server one 127.0.0.1:{there}\n" for name, there in backends.items() if there]
        routes = "".join(f"    use_backend {name} if {{ path /{name} }}\n" for name in backends)
        written = CONFIG.format(folder=tmp_path, host="127.0.0.1").replace(
            "    default_backend", f"{routes}    default_backend"
        )
        written = written.replace("return status 404", "return status 404 content-type text/plain string none")
        for old, new in (("23001", metrics), ("23002", port), ("23003", statistics)):
            written = written.replace(old, str(new))
        config.write_text(written + "".join(lines))
        (tmp_path / "500.http").write_text("HTTP/1.1 500 Internal Server Error\r\n\r\n")
        shell = os.environ | {"LSTMC_HAPROXY": bundled_haproxy()}
        process = subprocess.Popen([PROGRAM, "-db", "-f", str(config)], env=shell)
        try:
            with httpx.Client(transport=httpx.HTTPTransport(retries=8), trust_env=False) as client:
                for name in backends:
                    answer = client.get(f"http://127.0.0.1:{port}/{name}")
                    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2"), name
                    assert answer.headers["content-type"] == "application/problem+json"
                    assert answer.json()["status"] == 503
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def plain_server(says: bytes) -> Iterator[int]:
    """Hears a request, says that, and hangs up; its port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.request.sendall(says)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize(
    "line",
    [
        "    bind :{{ config.metrics_port }}",
        "frontend http_frontend",
        "  bind *:{{ config.stats_port }}",
        "    errorfile 503 {{ config.error_file_path }}",
        "stats socket {{ config.socket_path }} mode 666 level admin ",
    ],
)
def test_ray_still_writes_the_lines_that_are_put_right(line: str) -> None:
    ray = importlib.util.find_spec("ray")
    assert ray is not None
    assert ray.origin is not None
    assert line in (Path(ray.origin).parent / "serve" / "_private" / "haproxy_templates.py").read_text()
