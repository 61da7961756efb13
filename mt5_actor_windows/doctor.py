"""Checks of a Windows node, from Python to the terminal. Each says what was found and, when it is bad, how to mend it.

The judging is done by `node_checks`, the looking by `Probes`, which tests replace. Changes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx

from configs.settings import Settings, make_settings
from market.errors import ConfigError, LstmcError
from mt5_actor_windows import node_checks
from mt5_actor_windows.node_checks import Facts, Finding, checked
from mt5_actor_windows.session import real_terminal

ROOT = Path(__file__).resolve().parent.parent
INSTALL = Path(__file__).resolve().parent / "install"
LOCK = INSTALL / "requirements-windows.lock"
TERMINAL_SECONDS = 45.0  # the package itself waits a minute for a terminal that opens no pipe
TIME_SERVER = "time.windows.com"
SINCE_1900 = 2_208_988_800  # seconds from NTP's epoch to ours


@dataclass(frozen=True)
class Asked:
    """What the user wants checked. `head`, `address`: None where nobody said."""

    settings: Settings
    head: str | None = None
    address: str | None = None
    ray: bool = True  # False: a host that only offers the data API
    seconds: float = TERMINAL_SECONDS
    time_server: str = TIME_SERVER


@dataclass(frozen=True)
class Probes:
    """The lookups. Each may raise; its check is then a bad one that says why."""

    windows: bool
    version: Callable[[str], str | None]  # of an installed package
    terminal: Callable[[], Mapping[str, Any]]  # the session's health
    connect: Callable[[str, int], None]  # OSError when nobody listens
    get: Callable[[str], tuple[int, str]]  # status and content type of a URL
    listener: Callable[[int], str | None]  # None: free; `node_checks.OURS`, or who else listens
    clock_offset: Callable[[str], float]  # seconds that this host is ahead of the server
    free_bytes: Callable[[Path], int]
    facts: Callable[[], Facts]


def checks(asked: Asked, probes: Probes) -> list[dict[str, Any]]:
    """Every check as {"check", "ok", "found", "fix"}. The terminal and Windows are asked once each."""
    on_windows, once = probes.windows, _once(probes.facts)
    health = _once(probes.terminal)
    secrets = asked.settings.home_path / "secrets"
    tls = (secrets / "data_api_cert.pem").exists()
    return [
        _check("python", lambda: node_checks.python(sys.version_info[:3], struct.calcsize("P") * 8)),
        _check("packages", lambda: node_checks.packages(LOCK.read_text(), probes.version), on_windows),
        _check("numpy", lambda: node_checks.numpy_major(LOCK.read_text(), probes.version)),
        _check("MetaTrader5", lambda: node_checks.metatrader_package(probes.version, real_terminal), on_windows),
        _check("desktop", lambda: node_checks.desktop(once()), on_windows),
        _check(
            "terminal process", lambda: node_checks.terminal_process(_fact(once(), "terminals"), once()), on_windows
        ),
        _check("terminal", lambda: node_checks.terminal(health()), on_windows),
        _check("symbols", lambda: node_checks.symbols(health(), asked.settings.symbols), on_windows),
        _check("history", lambda: node_checks.history(health(), asked.settings), on_windows),
        _check("broker clock", lambda: node_checks.broker_clock(health()), on_windows),
        _check("secrets", lambda: node_checks.stored_secrets(secrets, ray=asked.ray)),
        _check("secrets private", lambda: node_checks.private(_fact(once(), "readers")), on_windows),
        _check("head", lambda: node_checks.head(asked.head, probes.connect, ray=asked.ray)),
        _check("ports", lambda: node_checks.ports(probes.listener, ray=asked.ray)),
        _check("data API", lambda: node_checks.data_api(asked.address, tls, probes.get)),
        _check("clock", lambda: node_checks.clock(asked.time_server, probes.clock_offset)),
        _check("disk", lambda: node_checks.disk(asked.settings.home_path, probes.free_bytes)),
        _check("memory", lambda: node_checks.commit(_fact(once(), "commit")), on_windows),
        _check("log-on task", lambda: node_checks.task(_fact(once(), "task")), on_windows),
        _check(
            "firewall", lambda: node_checks.firewall(_fact(once(), "firewall"), asked.head, ray=asked.ray), on_windows
        ),
        _check("sleep", lambda: node_checks.sleep(_fact(once(), "sleep")), on_windows),
    ]


def _check(name: str, look: Callable[[], Finding], here: bool = True) -> dict[str, Any]:
    if not here:
        return {"check": name, "ok": True, "found": "only on Windows", "fix": ""}
    return checked(name, look)


def _once(look: Callable[[], Mapping[str, Any]]) -> Callable[[], Mapping[str, Any]]:
    """Asked at the first call; what was raised then is raised again, since a wedged terminal must not be waited for twice."""
    kept: list[Mapping[str, Any] | Exception] = []

    def ask() -> Mapping[str, Any]:
        if not kept:
            try:
                kept.append(look())
            except Exception as error:
                kept.append(error)
        if isinstance(kept[0], Exception):
            raise kept[0]
        return kept[0]

    return ask


def _fact(facts: Facts, name: str) -> Mapping[str, Any]:
    fact: Mapping[str, Any] = facts[name]
    if "error" in fact:
        raise ConfigError(f"Windows does not tell: {fact['error']}", hint=node_checks.INSTALL_AGAIN)
    return fact


# -- The lookups


def probes(asked: Asked) -> Probes:
    """The real ones."""
    return Probes(
        windows=sys.platform == "win32",
        version=_version,
        terminal=lambda: _terminal_health(asked),
        connect=_connect,
        get=_get,
        listener=_listener,
        clock_offset=ntp_offset,
        free_bytes=lambda folder: shutil.disk_usage(folder).free,
        facts=lambda: windows_facts(asked.settings.home_path),
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _terminal_health(asked: Asked) -> Mapping[str, Any]:
    """Through the product's own session process, which is killed at the deadline: a wedged terminal costs no more."""
    from mt5_actor_windows.session_process import SessionProcess

    session = SessionProcess(
        "mt5_actor_windows.actor:session_from_json",
        asked.settings.model_dump_json(),
        deadline_seconds=asked.seconds,
        start_seconds=0.0,
    )
    with closing(session):
        return session.health()


def _connect(host: str, port: int) -> None:
    with socket.create_connection((host, port), timeout=5.0):
        pass


def _get(url: str) -> tuple[int, str]:
    """OSError when nothing there speaks HTTP. A certificate is not checked: no secret is sent."""
    try:
        response = httpx.get(url, timeout=10.0, verify=False, trust_env=False)
    except httpx.HTTPError as error:
        raise ConnectionError(type(error).__name__) from None
    return response.status_code, response.headers.get("content-type", "")


def _listener(port: int) -> str | None:
    """Who holds a port, `node_checks.OURS` when it is the node. Only a taken port is looked up, since that may need rights."""
    with socket.socket() as probe:
        exclusive = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)
        if exclusive is not None:
            probe.setsockopt(socket.SOL_SOCKET, exclusive, 1)
        else:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT is not a listener
        try:
            probe.bind(("0.0.0.0", port))
            return None
        except OSError:
            return _holder(port)


def _holder(port: int) -> str:
    import psutil

    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.pid:
                process = psutil.Process(connection.pid)
                family = [process, *process.parents()]
                if any("mt5_actor_windows.node" in _words(one) for one in family):
                    return node_checks.OURS
                return f"{process.name()} (pid {connection.pid})"
    return "a program that Windows does not name"


def _words(process: Any) -> list[str]:
    import psutil

    try:
        return list(process.cmdline())
    except (psutil.Error, OSError):  # a parent that is gone, or somebody else's
        return []


def ntp_offset(server: str, seconds: float = 5.0) -> float:
    """Seconds that this host's clock is ahead of `server`'s, from one SNTP question (RFC 4330). OSError, ValueError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(seconds)
        sent = time.time()
        link.sendto(b"\x1b" + 47 * b"\0", (server, 123))
        answer = link.recv(48)
        received = time.time()
    return offset_from(answer, sent, received)


def offset_from(answer: bytes, sent: float, received: float) -> float:
    """An SNTP answer [48 bytes] and when it was asked for and came, epoch seconds -> seconds that we are ahead."""
    if len(answer) < 48 or answer[1] == 0:  # stratum 0 is a refusal
        raise ValueError("no time in the answer")
    at_server = [
        whole - SINCE_1900 + part / 2**32 for whole, part in struct.iter_unpack("!II", answer[32:48])
    ]  # when it received ours, when it answered
    return ((sent - at_server[0]) + (received - at_server[1])) / 2


def windows_facts(home: Path, run: Callable[..., Any] = subprocess.run) -> Facts:
    """What install/windows_facts.ps1 prints. ConfigError when PowerShell does not answer."""
    command = ["powershell.exe", "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass", "-File"]
    said = run(
        [*command, str(INSTALL / "windows_facts.ps1"), "-NodeHome", str(home)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
    )
    try:
        facts = json.loads(said.stdout.decode("utf-8-sig"))
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        why = said.stderr.decode(errors="replace").strip()[-300:]
        raise ConfigError(
            f"PowerShell did not answer (code {said.returncode}): {why or 'it said nothing'}.", hint=NO_PS
        )
    return facts


NO_PS = r"Run .\mt5_actor_windows\install\windows_facts.ps1 -NodeHome <home> by hand and see."


# -- The command


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m mt5_actor_windows.doctor",
        description="Check this Windows node; every failed check names its fix. Ends with 0 when all is well, else 1.",
        epilog="Example: python -m mt5_actor_windows.doctor --head 10.8.0.1:6379 --address 10.8.0.2",
    )
    made.add_argument("--head", metavar="HOST:PORT", help="the cluster's head")
    made.add_argument("--address", metavar="ADDR", help="this host's address as the head sees it")
    made.add_argument("--no-ray", action="store_true", help="a host that only offers the data API")
    made.add_argument("--home", metavar="DIR", help="secrets and logs; default: LSTMC_HOME, else .lstmc here")
    made.add_argument("--symbols", metavar="A,B", help="which symbols the account must offer; default: as configured")
    made.add_argument("--seconds", type=float, default=TERMINAL_SECONDS, help="the terminal's deadline (%(default)g)")
    made.add_argument("--time-server", default=TIME_SERVER, help="whose clock is the right one (%(default)s)")
    made.add_argument("--json", action="store_true", help="print data as JSON on stdout")
    return made


def main(arguments: Sequence[str] | None = None, make_probes: Callable[[Asked], Probes] = probes) -> int:
    given = parser().parse_args(arguments)
    home = given.home or os.environ.get("LSTMC_HOME") or ROOT / ".lstmc"
    try:
        settings = make_settings(home=home, market="mt5", speed=1.0, symbols=given.symbols)
        if given.head:
            node_checks.split_head(given.head)
    except LstmcError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    asked = Asked(settings, given.head, given.address, not given.no_ray, given.seconds, given.time_server)
    found = checks(asked, make_probes(asked))
    print(json.dumps(found, indent=1) if given.json else in_words(found))
    return 0 if all(one["ok"] for one in found) else 1


def in_words(found: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for one in found:
        lines.append(f"{'ok ' if one['ok'] else 'BAD'}  {one['check']:<16}  {one['found']}")
        lines += [f"     {'':<16}  -> {one['fix']}"] if one["fix"] else []
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
