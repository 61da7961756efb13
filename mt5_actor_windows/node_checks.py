"""What is right and what is wrong about a Windows node, as functions of what was looked up.

Each returns (ok, found, fix). Looks nothing up itself; that is `doctor`'s part.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.settings import Settings
from market.errors import ConfigError, LstmcError
from market.timeframes import Timeframe
from mt5_actor_windows import node_ports

INSTALL_AGAIN = r"Run .\mt5_actor_windows\install\install.ps1 again, as administrator; it repairs."
PYTHON = (3, 11)
SECRETS = ("ray_token", "data_api_keys.json")
MIN_FREE_GB = 5.0
MIN_COMMIT_MB = 2048  # Ray's five processes, a session, the data API and 200 MB of object store
MAX_CLOCK_SECONDS = 1.0  # a bar is believed two seconds after its close
SYSTEM_SIDS = {"S-1-5-18", "S-1-5-32-544"}  # LocalSystem and the administrators can read everything anyway
OURS = "the node"  # who holds a port

Finding = tuple[bool, str, str]  # ok, found, fix
Facts = Mapping[str, Any]  # what install/windows_facts.ps1 prints


def checked(name: str, look: Callable[[], Finding]) -> dict[str, Any]:
    """{"check", "ok", "found", "fix"}. What a check raises is its finding: it must not hide the others."""
    try:
        ok, found, fix = look()
    except LstmcError as error:
        ok, found, fix = False, error.message, error.hint
    except Exception as error:
        ok, found, fix = False, f"{type(error).__name__}: {error}", ""
    return {"check": name, "ok": ok, "found": found, "fix": "" if ok else fix}


# -- Python and packages


def python(version: Sequence[int], bits: int) -> Finding:
    ok = tuple(version[:2]) == PYTHON and bits == 64
    found = f"{'.'.join(map(str, version))}, {bits}-bit"
    return ok, found, "Install the 64-bit Python 3.11 from python.org, remove .venv-windows, run install.ps1."


def pins(lock: str) -> dict[str, str]:
    lines = (line.strip().partition("==") for line in lock.splitlines())
    return {name: version for name, equal, version in lines if equal}


def packages(lock: str, version: Callable[[str], str | None]) -> Finding:
    other = [
        f"no {name}" if have is None else f"{name} {have}, not {wanted}"
        for name, wanted in pins(lock).items()
        if (have := version(name)) != wanted
    ]
    return not other, _few(other) or f"all {len(pins(lock))} as locked", INSTALL_AGAIN


def numpy_major(lock: str, version: Callable[[str], str | None]) -> Finding:
    """Arrays of numpy 1 cannot be read by numpy 2 nor the other way round: "No module named numpy._core"."""
    have, wanted = version("numpy"), pins(lock)["numpy"]
    ok = have is not None and have.split(".")[0] == wanted.split(".")[0]
    return ok, f"{have or 'no numpy'}; the cluster runs {wanted}", INSTALL_AGAIN


def metatrader_package(version: Callable[[str], str | None], load: Callable[[], Any]) -> Finding:
    """`load` imports it; NotConnected says why it cannot be."""
    load()
    return True, f"{version('MetaTrader5')}, can be imported", ""


# -- The terminal


def desktop(facts: Facts) -> Finding:
    session = int(facts["session"])
    fix = "Log on, also by remote desktop, and start it there: the terminal answers only its own desktop session."
    return session != 0, f"session {session}" if session else "session 0, that of services, which has no desktop", fix


def terminal_process(terminals: Mapping[str, Any], facts: Facts) -> Finding:
    running = [one for one in terminals["running"] if one]
    if not running:
        return False, "terminal64.exe does not run", "Start the terminal and log in to the account."
    foreign = [one for one in running if one["session"] != facts["session"]]
    found = ", ".join(f"{one['path'] or 'terminal64.exe'} in session {one['session']}" for one in running)
    if len(foreign) == len(running):
        fix = f"Close it there; start it on this desktop, session {facts['session']}, not as administrator."
        return False, found, fix
    if len(running) > 1 and not os.environ.get("MT5_PATH"):
        return False, f"{len(running)} terminals: {found}", "Say which: run install.ps1 again with -MetaTraderPath."
    return True, found, ""


def terminal(health: Mapping[str, Any]) -> Finding:
    """`health`: a session's. Its reason already ends with what to do."""
    who = f"account {health.get('account')} on {health.get('server')}"
    if not health["connected"]:
        return False, str(health["reason"]), "See the table in docs/windows-node.md; then run the doctor again."
    return True, f"{who}, {len(health['symbols'])} of our symbols", ""


def symbols(health: Mapping[str, Any], wanted: Sequence[str]) -> Finding:
    _needs(health)
    names = health["names"]
    missing = [code for code in wanted if code not in names]
    found = ", ".join([names.get(code, f"no {code}") for code in wanted])
    offered = ", ".join(sorted(names)) or "none of ours"
    return not missing, found, f"This account offers {offered}. Start the cluster with --symbols of these."


def history(health: Mapping[str, Any], settings: Settings) -> Finding:
    """Whether "Max bars in chart" reaches as far back as the backfill asks."""
    _needs(health)
    frame = min((Timeframe.parse(name) for name in settings.timeframes), key=lambda one: one.seconds)
    wanted = settings.history_days * 86_400 // frame.seconds * 5 // 7
    have = int(health["maxbars"])
    found = f"{have} bars; {settings.history_days} days of {frame.value} are about {wanted}"
    return have >= wanted, found, 'Raise "Max bars in chart" in Tools, Options, Charts, and restart the terminal.'


def broker_clock(health: Mapping[str, Any]) -> Finding:
    _needs(health)
    hours = health["server_utc_offset"] / 3600
    found = f"UTC{hours:+g} now; {health['clock']}"
    return -12 <= hours <= 14, found, "Set broker_zone to the rule of the broker's server clock."


def _needs(health: Mapping[str, Any]) -> None:
    if not health.get("names"):
        raise ConfigError("The terminal did not answer.", hint="Mend the check `terminal` first.")


# -- Secrets


def stored_secrets(folder: Path, *, ray: bool = True) -> Finding:
    bad = []
    for name in SECRETS if ray else SECRETS[1:]:
        try:
            text = (folder / name).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            bad.append(f"no {name}")
        except (OSError, ValueError) as error:
            bad.append(f"{name} cannot be read ({type(error).__name__})")
        else:
            if not text or (name.endswith(".json") and not _holds_something(text)):
                bad.append(f"{name} is empty")
    fix = "On the head: lstmc node windows --print. Run the install line that it prints."
    return not bad, ", ".join(bad) or f"present in {folder}", fix


def _holds_something(text: str) -> bool:
    try:
        return bool(json.loads(text))
    except ValueError:
        return False


def private(readers: Mapping[str, Any]) -> Finding:
    others = [sid for sid in readers["others"] if sid and sid not in SYSTEM_SIDS]
    return not others, f"readable by {', '.join(others)} too" if others else "for this user only", INSTALL_AGAIN


# -- The network


def split_head(text: str) -> tuple[str, int]:
    """`"10.8.0.1:6379"` -> its parts. ConfigError when it is not HOST:PORT."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"--head {text} is not HOST:PORT.", hint="For example 10.8.0.1:6379.")
    return host, int(port)


def head(given: str | None, connect: Callable[[str, int], None], *, ray: bool = True) -> Finding:
    if not ray:
        return True, "not joined: this host only offers the data API", ""
    if given is None:
        return False, "nobody said which", "Give --head HOST:PORT, or run install.ps1, which writes it down."
    host, port = split_head(given)
    try:
        connect(host, port)
    except OSError as error:
        fix = "Is the cluster up there, the tunnel connected, and the head's firewall open for this host?"
        return False, f"{given} cannot be reached: {type(error).__name__}", fix
    return True, f"{given} answers", ""


def ports(listener: Callable[[int], str | None], *, ray: bool = True) -> Finding:
    """Ours are free, or held by the node that runs."""
    low, high = node_ports.WORKERS
    rays = [*range(node_ports.NODE_MANAGER, node_ports.METRICS + 1), *range(low, high + 1)] if ray else []
    holders = {port: who for port in (*rays, node_ports.DATA_API) if (who := listener(port)) is not None}
    foreign = [f"{port} by {who}" for port, who in holders.items() if who != OURS]
    found = f"taken: {_few(foreign)}" if foreign else f"{len(holders)} held by the node" if holders else "free"
    return not foreign, found, "End those programs; the node's ports are fixed, since the firewall names them."


def data_api(address: str | None, tls: bool, get: Callable[[str], tuple[int, str]]) -> Finding:
    """It refuses us, who have no key: that is an answer, and only ours refuses with a problem document."""
    where = f"{'https' if tls else 'http'}://{address or '127.0.0.1'}:{node_ports.DATA_API}"
    try:
        status, kind = get(f"{where}/mt5/health")
    except OSError as error:
        fix = r"Does the node run? See the log-on task and <home>\logs\node.log."
        return False, f"{where} does not answer: {error}", fix
    if status == 401 and kind.startswith("application/problem+json"):
        return True, f"{where} answers and asks for a key", ""
    return False, f"{where} is another program: it answered {status}", "End that program; the port is fixed."


def clock(server: str, offset: Callable[[str], float]) -> Finding:
    fix = "In PowerShell as administrator: Start-Service w32time; w32tm /resync /force"
    try:
        seconds = offset(server)
    except (OSError, ValueError) as error:
        found = f"{server} did not tell the time: {type(error).__name__}"
        return False, found, "Let UDP port 123 out, or name another server with --time-server."
    return abs(seconds) <= MAX_CLOCK_SECONDS, f"{seconds:+.2f} s off {server}", fix


# -- The host


def disk(home: Path, free_bytes: Callable[[Path], int]) -> Finding:
    folder = next(path for path in (home, *home.parents) if path.exists())
    free = free_bytes(folder) / 2**30
    return free >= MIN_FREE_GB, f"{free:.1f} GB free at {folder}", r"Make room; Ray's logs are in C:\rt."


def commit(memory: Mapping[str, Any]) -> Finding:
    """Shared memory is taken from the commit charge; without enough of it: CreateFileMapping failed, error 1455."""
    free = int(memory["free_mb"])
    found = f"{free} MB of {memory['total_mb']} MB may still be committed"
    return free >= MIN_COMMIT_MB, found, "Enlarge the page file (System, Advanced, Performance, Virtual memory)."


def task(found: Mapping[str, Any]) -> Finding:
    if not found["registered"]:
        return False, "not registered", INSTALL_AGAIN
    said = f"{found['state']}, for {found['user']}, last result {found['last_result']}"  # the result tells nothing while it runs
    if found["state"] == "Disabled":  # an installation that was cut off leaves it so
        return False, said, INSTALL_AGAIN
    if found["state"] != "Running":
        return False, said, r"Start-ScheduledTask 'LSTMC node'; if it ends again, <home>\logs\node.log says why."
    return True, said, ""


def port_ranges(*, ray: bool = True) -> set[str]:
    """As the firewall rule names them."""
    low, high = node_ports.WORKERS
    rays = {f"{node_ports.NODE_MANAGER}-{node_ports.METRICS}", f"{low}-{high}"} if ray else set()
    return {*rays, str(node_ports.DATA_API)}


def firewall(rule: Mapping[str, Any], given_head: str | None, *, ray: bool = True) -> Finding:
    if not rule["present"]:
        return False, "our rule is missing", INSTALL_AGAIN
    come_from = [str(one) for one in rule["from"] if one]
    bad = [] if rule["enabled"] else ["our rule is switched off"]
    missing = port_ranges(ray=ray) - {str(one) for one in rule["ports"]}
    bad += [f"closed: {', '.join(sorted(missing))}"] if missing else []
    bad += ["open for everybody"] if "Any" in come_from else []
    blocking = [str(one) for one in rule["blocking"] if one]
    bad += [f"blocked all the same by {_few(blocking)}"] if blocking else []
    host = split_head(given_head)[0] if given_head else None
    if host and host.replace(".", "").isdigit() and host not in come_from and "Any" not in come_from:
        bad.append(f"open for {', '.join(come_from)}, not for the head {host}")
    return not bad, "; ".join(bad) or f"open for {', '.join(come_from)}", INSTALL_AGAIN


def sleep(seconds: Mapping[str, Any]) -> Finding:
    """Windows keeps 0 for never; None when nobody ever set it."""
    awake = {name: value == 0 for name, value in seconds.items()}
    found = ", ".join(f"{name} {_after(seconds[name])}" for name in sorted(seconds))
    return all(awake.values()), found, INSTALL_AGAIN


def _after(seconds: int | None) -> str:
    return "never set" if seconds is None else "off" if seconds == 0 else f"after {seconds} s"


def _few(names: Collection[str], most: int = 6) -> str:
    some = list(names)[:most]
    return ", ".join(some) + (f" and {len(names) - most} more" if len(names) > most else "")
