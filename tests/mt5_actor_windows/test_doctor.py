"""The Windows node's doctor: each check by what it is given, then the whole with a host made of plain functions."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.settings import make_settings
from market.errors import ConfigError, NotConnected
from mt5_actor_windows import doctor, node_checks
from mt5_actor_windows.doctor import Asked, Probes

LOCK = "numpy==2.4.6\nray==2.60.0\n"
HEALTH = {
    "connected": True,
    "reason": "",
    "account": 7,
    "server": "Broker-Demo",
    "clock": "new_york: 48 of 48 weekly opens agree",
    "server_utc_offset": 7200,
    "maxbars": 100_000,
    "symbols": ["EURUSD", "USDJPY"],
    "names": {"EURUSD": "EURUSD.a", "USDJPY": "USDJPY.a"},
}
FACTS: dict[str, Any] = {
    "session": 1,
    "terminals": {"running": [{"session": 1, "path": "C:\\MT5\\terminal64.exe"}]},
    "task": {"registered": True, "state": "Running", "user": "HOST\\trader", "last_result": 267009},
    "firewall": {
        "present": True,
        "enabled": True,
        "ports": ["10010-10014", "10100-10199", "8001"],
        "from": ["10.8.0.1"],
        "blocking": [],
    },
    "sleep": {"sleep": 0, "hibernate": 0},
    "commit": {"free_mb": 6000, "total_mb": 9000},
    "readers": {"others": ["S-1-5-18"]},
}


def refused(*_: Any) -> Any:
    raise ConnectionRefusedError("refused")


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "ray_token").write_text("a-token")
    (secrets / "data_api_keys.json").write_text('{"keys": [{"id": "1"}]}')
    settings = make_settings(home=tmp_path, market="mt5", speed=1.0, symbols="EURUSD,USDJPY")
    return Asked(settings, "10.8.0.1:6379", "10.8.0.2")


@pytest.fixture
def good(monkeypatch: pytest.MonkeyPatch) -> Probes:
    """A host on which all is well."""
    monkeypatch.setattr(doctor, "real_terminal", lambda: None)
    locked = node_checks.pins(doctor.LOCK.read_text())
    return Probes(
        windows=True,
        version=lambda name: locked.get(name, locked.get(name.lower())),
        terminal=lambda: HEALTH,
        connect=lambda host, port: None,
        get=lambda url: (401, "application/problem+json"),
        listener=lambda port: None,
        clock_offset=lambda server: 0.02,
        free_bytes=lambda folder: 50 * 2**30,
        facts=lambda: FACTS,
    )


def bad(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one["check"]: one for one in found if not one["ok"]}


def test_a_good_node(asked: Asked, good: Probes) -> None:
    found = doctor.checks(asked, good)
    assert bad(found) == {}
    assert all(set(one) == {"check", "ok", "found", "fix"} and one["fix"] == "" for one in found)
    assert next(one for one in found if one["check"] == "terminal")["found"].startswith("account 7 on Broker-Demo")


def test_a_wedged_terminal_is_asked_once_and_named(asked: Asked, good: Probes) -> None:
    calls = []

    def wedged() -> Mapping[str, Any]:
        calls.append(1)
        raise NotConnected("The terminal did not answer within 45 s.", hint="Restart it if this lasts.")

    found = bad(doctor.checks(asked, replace(good, terminal=wedged)))
    assert set(found) == {"terminal", "symbols", "history", "broker clock"}
    assert found["terminal"]["fix"] == "Restart it if this lasts."
    assert len(calls) == 1


def test_a_terminal_that_says_why(asked: Asked, good: Probes) -> None:
    health = {"connected": False, "reason": "MetaTrader answered -6 (Terminal: Authorization failed)."}
    found = bad(doctor.checks(asked, replace(good, terminal=lambda: health)))
    assert found["terminal"]["found"] == health["reason"]
    assert found["symbols"]["fix"] == "Mend the check `terminal` first."


def test_elsewhere_only_windows_checks_are_skipped(asked: Asked, good: Probes) -> None:
    found = doctor.checks(asked, replace(good, windows=False, facts=refused, terminal=refused))
    assert bad(found) == {}
    skipped = {one["check"] for one in found if one["found"] == "only on Windows"}
    assert {"terminal", "log-on task", "firewall", "sleep", "memory"} <= skipped
    assert not skipped & {"python", "numpy", "secrets", "head", "ports", "data API", "clock", "disk"}


def test_without_powershell_each_check_that_needs_it_says_so(asked: Asked, good: Probes) -> None:
    def silent() -> Mapping[str, Any]:
        raise ConfigError("PowerShell did not answer (code 1): it said nothing.", hint="See.")

    found = bad(doctor.checks(asked, replace(good, facts=silent)))
    assert {one["found"] for one in found.values()} == {"PowerShell did not answer (code 1): it said nothing."}
    assert "firewall" in found


def test_a_fact_that_windows_does_not_tell(asked: Asked, good: Probes) -> None:
    facts = FACTS | {"task": {"error": "Access is denied."}}
    found = bad(doctor.checks(asked, replace(good, facts=lambda: facts)))
    assert list(found) == ["log-on task"]
    assert found["log-on task"]["found"] == "Windows does not tell: Access is denied."


def test_a_host_without_ray_needs_no_token_and_no_head(asked: Asked, good: Probes) -> None:
    (asked.settings.home_path / "secrets" / "ray_token").unlink()
    facts = FACTS | {"firewall": FACTS["firewall"] | {"ports": ["8001"]}}
    held = {10010: "somebody"}
    probes = replace(good, connect=refused, facts=lambda: facts, listener=held.get)
    assert bad(doctor.checks(replace(asked, ray=False), probes)) == {}
    assert set(bad(doctor.checks(asked, probes))) == {"secrets", "head", "ports", "firewall"}


def test_a_broken_check_is_a_finding(asked: Asked, good: Probes) -> None:
    found = bad(doctor.checks(asked, replace(good, free_bytes=refused)))
    assert found["disk"]["found"] == "ConnectionRefusedError: refused"


def changed(name: str, **values: Any) -> dict[str, Any]:
    fact: dict[str, Any] = FACTS[name] | values
    return fact


@pytest.mark.parametrize(
    ("finding", "found", "fix"),
    [
        (lambda: node_checks.python((3, 12, 1), 64), "3.12.1, 64-bit", "Python 3.11"),
        (lambda: node_checks.python((3, 11, 9), 32), "3.11.9, 32-bit", "64-bit"),
        (lambda: node_checks.packages(LOCK, {"numpy": "2.4.6"}.get), "no ray", "install.ps1"),
        (lambda: node_checks.packages(LOCK, {"numpy": "2.1.3", "ray": "2.60.0"}.get), "numpy 2.1.3, not 2.4.6", "inst"),
        (lambda: node_checks.numpy_major(LOCK, {"numpy": "1.26.4"}.get), "1.26.4; the cluster runs 2.4.6", "install"),
        (lambda: node_checks.desktop({"session": 0}), "session 0, that of services", "Log on"),
        (lambda: node_checks.terminal_process({"running": []}, FACTS), "terminal64.exe does not run", "Start"),
        (
            lambda: node_checks.terminal_process({"running": [{"session": 2, "path": ""}]}, FACTS),
            "terminal64.exe in session 2",
            "session 1, not as administrator",
        ),
        (
            lambda: node_checks.terminal_process({"running": [{"session": 1, "path": p} for p in "ab"]}, FACTS),
            "2 terminals: a in session 1, b in session 1",
            "-MetaTraderPath",
        ),
        (lambda: node_checks.symbols(HEALTH, ("EURUSD", "GBPUSD")), "EURUSD.a, no GBPUSD", "offers EURUSD, USDJPY"),
        (lambda: node_checks.broker_clock(HEALTH | {"server_utc_offset": 90_000}), "UTC+25 now", "broker_zone"),
        (lambda: node_checks.private({"others": ["S-1-1-0"]}), "readable by S-1-1-0 too", "install.ps1"),
        (lambda: node_checks.head(None, refused), "nobody said which", "--head HOST:PORT"),
        (lambda: node_checks.head("10.8.0.1:6379", refused), "cannot be reached: ConnectionRefusedError", "tunnel"),
        (lambda: node_checks.ports({10012: "x.exe (pid 4)"}.get), "taken: 10012 by x.exe (pid 4)", "End those"),
        (lambda: node_checks.data_api("10.8.0.2", False, refused), "http://10.8.0.2:8001 does not answer", "node.log"),
        (lambda: node_checks.data_api("a", True, lambda url: (200, "text/html")), "https://a:8001 is another", "End"),
        (lambda: node_checks.clock("time", lambda server: -3.0), "-3.00 s off time", "w32tm /resync"),
        (lambda: node_checks.clock("time", refused), "time did not tell the time", "UDP port 123"),
        (lambda: node_checks.disk(Path("/"), lambda folder: 2**30), "1.0 GB free", "Make room"),
        (lambda: node_checks.commit({"free_mb": 900, "total_mb": 4096}), "900 MB of 4096 MB", "page file"),
        (lambda: node_checks.task({"registered": False}), "not registered", "install.ps1"),
        (lambda: node_checks.task(changed("task", state="Disabled")), "Disabled, for HOST", "install.ps1"),
        (lambda: node_checks.task(changed("task", state="Ready")), "Ready, for HOST", "Start-ScheduledTask"),
        (lambda: node_checks.firewall({"present": False}, None), "our rule is missing", "install.ps1"),
        (lambda: node_checks.firewall(changed("firewall", enabled=False), None), "switched off", "install.ps1"),
        (lambda: node_checks.firewall(changed("firewall", ports=["8001"]), None), "closed: 10010-10014, 10100", "inst"),
        (lambda: node_checks.firewall(changed("firewall", **{"from": ["Any"]}), None), "open for everybody", "install"),
        (lambda: node_checks.firewall(changed("firewall", blocking=["Python"]), None), "blocked all the same", "inst"),
        (lambda: node_checks.firewall(FACTS["firewall"], "10.9.0.1:6379"), "not for the head 10.9.0.1", "install"),
        (lambda: node_checks.sleep({"sleep": 1800, "hibernate": None}), "hibernate never set, sleep after 1800 s", "in"),
    ],
)  # fmt: skip
def test_what_is_bad_is_named_with_its_cure(finding: Callable[[], Any], found: str, fix: str) -> None:
    ok, said, cure = finding()
    assert not ok
    assert found in said
    assert fix in cure


def test_history_counts_bars_of_the_shortest_timeframe(tmp_path: Path) -> None:
    settings = make_settings(home=tmp_path, market="mt5", speed=1.0, timeframes="H1,M5", history_days=365)
    assert node_checks.history(HEALTH | {"maxbars": 75_085}, settings)[0]
    ok, found, fix = node_checks.history(HEALTH | {"maxbars": 75_084}, settings)
    assert (ok, found) == (False, "75084 bars; 365 days of M5 are about 75085")
    assert "Max bars in chart" in fix


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("ray_token", None, "no ray_token"),
        ("ray_token", " \n", "ray_token is empty"),
        ("data_api_keys.json", "{}", "data_api_keys.json is empty"),
        ("data_api_keys.json", "{", "data_api_keys.json is empty"),
    ],
)
def test_secrets(asked: Asked, name: str, text: str | None, found: str) -> None:
    path = asked.settings.home_path / "secrets" / name
    path.unlink() if text is None else path.write_text(text)
    assert node_checks.stored_secrets(path.parent)[:2] == (False, found)


def test_ports_held_by_the_node_are_well() -> None:
    assert node_checks.ports({10010: node_checks.OURS, 8001: node_checks.OURS}.get) == (True, "2 held by the node", "End those programs; the node's ports are fixed, since the firewall names them.")  # fmt: skip


def test_a_name_for_a_head_is_not_compared_with_the_rule() -> None:
    assert node_checks.firewall(FACTS["firewall"], "head.example.org:6379")[0]


def test_the_time_of_a_server() -> None:
    """An answer of RFC 4330: received at 1000.25 and sent at 1000.75 by the server's clock."""
    at = struct.pack("!IIII", 1000 + doctor.SINCE_1900, 2**30, 1000 + doctor.SINCE_1900, 3 * 2**30)
    answer = b"\x1c\x02" + 30 * b"\0" + at
    assert doctor.offset_from(answer, sent=1003.0, received=1004.0) == pytest.approx(3.0)
    with pytest.raises(ValueError, match="no time"):
        doctor.offset_from(b"\x1c\x00" + 46 * b"\0", 0.0, 0.0)


def test_facts_come_as_json_and_nothing_else() -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        assert command[0] == "powershell.exe"
        assert command[-3].endswith("windows_facts.ps1")
        return subprocess.CompletedProcess(command, 0, b"\xef\xbb\xbf" + json.dumps(FACTS).encode(), b"")

    assert doctor.windows_facts(Path("C:/home"), run) == FACTS
    broken = subprocess.CompletedProcess([], 1, b"", b"Zugriff verweigert")
    with pytest.raises(ConfigError, match=r"PowerShell did not answer \(code 1\): Zugriff verweigert"):
        doctor.windows_facts(Path("C:/home"), lambda *_, **__: broken)


def test_the_command(asked: Asked, good: Probes, capsys: pytest.CaptureFixture[str]) -> None:
    home = str(asked.settings.home_path)
    given = ["--home", home, "--head", "10.8.0.1:6379", "--symbols", "EURUSD"]
    assert doctor.main([*given, "--json"], lambda _: good) == 0
    assert [one["check"] for one in json.loads(capsys.readouterr().out)][:3] == ["python", "packages", "numpy"]
    assert doctor.main(given, lambda _: replace(good, connect=refused)) == 1
    lines = capsys.readouterr().out.splitlines()
    where = next(n for n, line in enumerate(lines) if line.startswith("BAD  head"))
    assert lines[where + 1].strip().startswith("-> Is the cluster up there")
    assert doctor.main(["--home", home, "--head", "nonsense"], lambda _: good) == 2
    assert "is not HOST:PORT" in capsys.readouterr().err


def test_the_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        doctor.main(["--help"])
    assert "Example: python -m mt5_actor_windows.doctor --head" in capsys.readouterr().out
