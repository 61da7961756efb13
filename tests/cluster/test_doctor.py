"""The doctor of a head or a worker: each check by what it is given, then the whole with answers made of plain data."""

from __future__ import annotations

import errno
import hashlib
import http.server
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import cluster_checks, doctor, health, node_answers
from cluster.cli import app
from cluster.cluster_checks import Finding
from cluster.console import run
from configs.settings import Settings, ensure_secrets, make_settings, save_settings
from market.errors import ClusterError, ConfigError, WrongToken
from mt5_actor_windows.versions import versions

OURS = {"python": "3.11.7", "ray": "2.60.0", "numpy": "2.4.6", "pyarrow": "26.0.0"}
HEAD = {"node": "head 10.8.0.1", "versions": OURS, "ahead": 0.001, "within": 0.002}
MT5 = {"node": "mt5 10.8.0.2", "versions": OURS, "ahead": -0.4, "within": 0.01}
SIMULATED = {"connected": True, "simulated": True, "server": "Simulated-Demo", "reason": ""}
SEEN = [{"node": "head 10.8.0.1", "head": True, "address": "10.8.0.1", "ports": [7001, 7002], "metrics_port": 8080}]


@pytest.mark.parametrize(
    ("finding", "found", "fix"),
    [
        (lambda: cluster_checks.nodes([HEAD, {"node": "train x", "error": "no answer"}]), "train x: no answer", "ports"),
        (
            lambda: cluster_checks.node_versions(OURS, [HEAD, MT5 | {"versions": OURS | {"ray": "2.59.0"}}]),
            "mt5 10.8.0.2: ray 2.60.0 here, 2.59.0 there",
            "make install",
        ),
        (lambda: cluster_checks.node_versions(OURS, [MT5 | {"versions": {}}]), "python 3.11.7 here, none there", "make"),
        (lambda: cluster_checks.node_clocks([HEAD, MT5 | {"ahead": -300.0}]), "mt5 10.8.0.2 -300.00 s (to 0.01 s)", "w32tm"),
        (lambda: cluster_checks.node_clocks([MT5 | {"ahead": 2.02}]), "+2.02 s", "timedatectl"),
        (lambda: cluster_checks.terminal("http", {"http": {"connected": False, "reason": "away"}}), "http: away", "doctor"),
        (lambda: cluster_checks.terminal("mt5", {"ray": {"error": "gone", "hint": "Log on."}}), "ray: gone", "Log on."),
        (
            lambda: cluster_checks.terminal("mt5", {"ray": {"error": "gone", "hint": ""}, "http": SIMULATED}),
            "mt5 market; ray: gone; http: a simulated terminal answers, server Simulated-Demo",
            "doctor",
        ),
        (lambda: cluster_checks.head("10.8.0.1", 6379, lambda *_: False), "10.8.0.1:6379 cannot be reached", "--head-host"),
        (
            lambda: cluster_checks.joining_versions(OURS, {"ray": "2.60.0", "python": "3.11.2"}),
            "the cluster runs Ray 2.60.0 on Python 3.11.2, this machine Ray 2.60.0 on Python 3.11.7",
            "Python 3.11.2",
        ),
        (lambda: cluster_checks.head_ports(SEEN, lambda _, port: port != 7002), "closed: head 10.8.0.1:7002", "ports"),
        (
            lambda: cluster_checks.head_ports([SEEN[0] | {"address": "127.0.0.1"}], lambda *_: False),
            "closed: head 10.8.0.1:7001, head 10.8.0.1:7002",
            "--head-host",
        ),
        (lambda: cluster_checks.head_clock({"ahead": 300.0, "within": 0.5}), "the head's is +300.00 s", "timedatectl"),
    ],
)  # fmt: skip
def test_what_is_bad_is_named_with_its_cure(finding: Callable[[], Finding], found: str, fix: str) -> None:
    ok, said, cure = finding()
    assert not ok
    assert found in said
    assert fix in cure


@pytest.mark.parametrize(
    ("finding", "found"),
    [
        (lambda: cluster_checks.nodes([HEAD, MT5]), "head 10.8.0.1, mt5 10.8.0.2 answer"),
        (lambda: cluster_checks.node_versions(OURS, [HEAD, MT5]), "Ray 2.60.0, Python 3.11.7 and what fits on all"),
        (lambda: cluster_checks.node_clocks([HEAD]), "head 10.8.0.1 +0.00 s (to 0.00 s)"),
        (lambda: cluster_checks.node_clocks([MT5 | {"ahead": 9.0, "within": 7.5}]), "+9.00 s (to 7.50 s)"),
        (lambda: cluster_checks.node_clocks([{"node": "x", "error": "y"}]), "not known: no node answered"),
        (lambda: cluster_checks.head_clock(None), "not known"),
        (lambda: cluster_checks.head_clock({"ahead": 2.4, "within": 0.5}), "the head's is +2.40 s (to 0.50 s)"),
        (lambda: cluster_checks.kernel_clock(None), "not known"),
        (lambda: cluster_checks.kernel_clock(0.25), "kept by a time service, at most 0.25 s off"),
        (lambda: cluster_checks.gpu(None), "not known"),
        (lambda: cluster_checks.gpu([]), "none that PyTorch sees"),
        (lambda: cluster_checks.gpu(["NVIDIA H100"]), "NVIDIA H100"),
        (lambda: cluster_checks.terminal("simulated", {"ray": SIMULATED}), "a simulated terminal answers, server Sim"),
        (lambda: cluster_checks.terminal("recorded", None), "recorded market; not asked"),
        (lambda: cluster_checks.joining_versions(OURS, OURS), "Ray 2.60.0 on Python 3.11.7"),
        (lambda: cluster_checks.head_ports(SEEN, lambda *_: True), "all 2 of 1 nodes answer"),
    ],
)  # fmt: skip
def test_what_is_well_or_cannot_be_known_is_not_bad(finding: Callable[[], Finding], found: str) -> None:
    ok, said, _ = finding()
    assert ok
    assert found in said


# -- Clocks


def test_a_clock_is_measured_by_the_quickest_question() -> None:
    ours = iter([100.0, 104.0, 200.0, 200.2, 300.0, 301.0])
    theirs = iter([105.0, 205.1, 306.0])
    found = node_answers.clock_offset(lambda: next(theirs), now=lambda: next(ours))
    assert found == pytest.approx({"ahead": 5.0, "within": 0.1})


def test_a_clock_that_tells_whole_seconds_is_known_to_half_of_one() -> None:
    ours = iter([100.0, 100.2])
    found = node_answers.clock_offset(lambda: 99.0, step=1.0, times=1, now=lambda: next(ours))
    assert found == pytest.approx({"ahead": -0.6, "within": 0.6})


@pytest.fixture
def dated() -> Iterator[tuple[http.server.HTTPServer, dict[str, str]]]:
    """A server whose Date is what the test says."""
    said: dict[str, str] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(200)
            for name, value in said.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server, said
        server.shutdown()
        thread.join()


def test_the_heads_clock_is_read_from_the_date_of_an_answer(dated: Any) -> None:
    server, said = dated
    seen = [{"head": False}, {"head": True, "address": "127.0.0.1", "metrics_port": server.server_port}]
    for nothing in ([], [{"head": True, "address": "127.0.0.1", "metrics_port": -1}], seen):  # the last has no date yet
        assert doctor._head_offset(nothing) is None
    said["Date"] = "Wed, 25 Nov 2026 12:00:00 GMT"
    now = 1795608000.0  # the same moment
    found = doctor._head_offset(seen, lambda: now + 300.0)
    assert found == pytest.approx({"ahead": -299.5, "within": 0.5})
    assert not cluster_checks.head_clock(found)[0]


def test_the_kernel_is_asked() -> None:
    found = doctor._kernel_clock()
    assert found is None or 0 <= found <= 16, "the kernel's own limit"


# -- Storage


@pytest.mark.parametrize(
    ("call", "step"), [("fsync", "writing it"), ("link", "a hard link"), ("replace", "renaming it")]
)
def test_a_file_system_that_refuses_something_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, step: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    assert cluster_checks.refusal(tmp_path) == ""
    assert cluster_checks.refusal(tmp_path / "gone").startswith("creating a file exclusively fails: No such file")
    monkeypatch.setattr(os, call, refuse)
    assert cluster_checks.refusal(tmp_path) == f"{step} fails: Operation not permitted"
    assert list(tmp_path.iterdir()) == []


def test_storage(tmp_path: Path) -> None:
    folders = {"bars": tmp_path, "registry": tmp_path / "not" / "yet"}
    ok, found, _ = cluster_checks.storage(folders, lambda _: 5_000_000_000)
    assert ok
    assert found == f"bars in {tmp_path}: 5.0 GB free; registry, not there yet, in {tmp_path}: 5.0 GB free"
    assert list(tmp_path.iterdir()) == []
    ok, found, fix = cluster_checks.storage(folders, lambda _: 19_000_000)
    assert not ok
    assert "only 19 MB free" in found
    assert "hard links" in fix


# -- The answers of a process of its own


@pytest.mark.parametrize(
    ("stdout", "stderr", "kind", "text"),
    [
        ('{"error": "E", "hint": "H"}', "", ClusterError, "E H"),
        ('{"error": "E", "hint": "H", "refused": true}', "", WrongToken, "E H"),
        ("", "Traceback\nRuntimeError: Version mismatch\n\n", ClusterError, "RuntimeError: Version mismatch"),
        ("nonsense", "", ClusterError, "it said nothing"),
    ],
)
def test_no_answer_says_why(stdout: str, stderr: str, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text) as raised:
        node_answers.answer_of(stdout, stderr)
    assert type(raised.value) is kind


def test_the_answer_is_the_last_line() -> None:
    assert node_answers.answer_of('a warning\n{"nodes": []}\n', "") == {"nodes": []}


def test_what_ray_raises_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: str) -> None:
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.59.0\n    Python: 3.11.7\n")

    monkeypatch.setattr(node_answers, "of_head", refuse)
    node_answers.main(["head", "10.8.0.1:6379"])
    with pytest.raises(ClusterError, match=r"started with: Ray: 2\.59\.0 Python: 3\.11\.7"):
        node_answers.answer_of(capsys.readouterr().out, "")


def test_the_process_is_shown_the_token_and_nothing_of_another_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere")

    def started(command: list[str], **given: Any) -> subprocess.CompletedProcess[str]:
        assert command[-3:] == ["cluster.node_answers", "head", "10.8.0.1:6379"]
        rays = {name: value for name, value in given["env"].items() if name.startswith("RAY_A")}
        assert rays == {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "secret"}
        return subprocess.CompletedProcess(command, 0, "{}", "")

    monkeypatch.setattr(subprocess, "run", started)
    assert node_answers.ask(["head", "10.8.0.1:6379"], "secret") == {}


def test_a_ray_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], **given: Any) -> None:
        raise subprocess.TimeoutExpired(command, given["timeout"])

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(ClusterError, match="did not answer within 200 s"):
        node_answers.ask(["own"], "secret")


# -- The whole


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("LSTMC_HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setattr(doctor, "_gpu", lambda: cluster_checks.gpu(None))  # importing PyTorch takes seconds
    monkeypatch.setattr(doctor, "_connects", lambda *_: True)
    monkeypatch.setattr(doctor, "_head_offset", lambda _: None)
    made = make_settings(home=tmp_path)
    ensure_secrets(made)
    return made


def by_name(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    assert all(set(one) == {"check", "ok", "found", "fix"} and (one["ok"] or one["found"]) for one in found)
    return {one["check"]: one for one in found}


def joining(said: dict[str, Any] | Exception) -> dict[str, dict[str, Any]]:
    def ask(words: list[str], token: str) -> dict[str, Any]:
        assert words == ["head", "10.8.0.1:6379"]
        if isinstance(said, Exception):
            raise said
        return said

    return by_name(doctor.checks("10.8.0.1", ask=ask))


def test_a_machine_that_may_join(settings: Settings) -> None:
    found = joining({"versions": versions(), "nodes": SEEN})
    assert {"token", "head", "admission", "versions", "head's ports", "head's clock", "storage"} < set(found)
    assert not {name: one for name, one in found.items() if not one["ok"] and name not in ("memory", "disk")}
    token = settings.secret("ray_token").get_secret_value()
    assert hashlib.sha256(token.encode()).hexdigest()[:8] in found["token"]["found"]
    assert token not in json.dumps(found)


def test_a_machine_that_the_head_refuses(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    found = joining(WrongToken("The head refuses our token.", hint="Copy it."))
    assert (found["admission"]["found"], found["admission"]["fix"]) == ("The head refuses our token.", "Copy it.")
    assert "versions" not in found
    (settings.home_path / "secrets" / "ray_token").unlink()
    found = joining(AssertionError("asked without a token"))
    assert "There is no Ray token" in found["token"]["found"]
    monkeypatch.setattr(doctor, "_connects", lambda *_: False)
    assert "admission" not in joining(AssertionError("asked a head that is not there"))


def test_a_head_must_have_a_port() -> None:
    with pytest.raises(ConfigError, match="not HOST:PORT"):
        doctor.checks("10.8.0.1:x")


@pytest.fixture
def up(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """As if the cluster ran, and its own view of itself were good."""
    save_settings(settings)
    monkeypatch.setattr(health, "is_running", lambda *_: True)
    monkeypatch.setattr(health, "check_token", lambda _: None)
    monkeypatch.setattr(health, "collect", lambda *_: {"root_cause": ""})
    return settings


def test_a_cluster_that_runs(up: Settings) -> None:
    def ask(words: list[str], token: str, **environment: str) -> dict[str, Any]:
        assert (words, environment) == (["own"], {"LSTMC_HOME": str(up.home_path)})
        return {
            "nodes": [HEAD | {"versions": versions()}, MT5 | {"versions": versions()}],
            "sources": {"ray": SIMULATED},
        }

    found = by_name(doctor.checks(ask=ask))
    asked = ["nodes", "node versions", "node clocks", "terminal", "cluster"]
    assert [name for name in found if name in asked] == asked
    assert all(found[name]["ok"] for name in (*asked, "secrets", "token", "storage")), found


def test_a_cluster_that_does_not_answer_hides_nothing_else(up: Settings) -> None:
    def ask(*_: Any, **__: Any) -> dict[str, Any]:
        raise ClusterError("Ray could not be asked: RuntimeError: Version mismatch", hint="See `lstmc status`.")

    found = by_name(doctor.checks(ask=ask))
    assert "Version mismatch" in found["nodes"]["found"]
    assert "node clocks" not in found
    assert found["cluster"]["ok"]


def test_a_bad_check_is_an_exit_code(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    save_settings(settings)
    for free, code in ((19_000_000, 1), (5_000_000_000, 0)):
        monkeypatch.setattr(
            doctor, "_storage", lambda folders, free=free: cluster_checks.storage(folders, lambda _: free)
        )
        for name in ("_memory", "_disk", "_ports"):
            monkeypatch.setattr(doctor, name, lambda *_: (True, "", ""))
        assert run(app, ["doctor", "--json"]) == code
        assert by_name(json.loads(capsys.readouterr().out))["storage"]["ok"] is (code == 0)
