"""Checks of this machine and its installation, or of a machine that shall join a head. Each says what was found and, when it
is bad, how to mend it. Changes nothing. The looking is here, most of the judging in `cluster_checks`.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import stat
import sys
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import httpx

from cluster import cluster_checks, health, node_answers, nodes
from configs.settings import SECRET_NAMES, Settings, load_settings, make_settings
from market.errors import NotRunning
from mt5_actor_windows.node import ray_token
from mt5_actor_windows.node_checks import Finding, checked, split_head
from mt5_actor_windows.versions import versions

MIN_FREE_GB = 2.0
MIN_MEMORY_GB = 4.0
CONNECT_SECONDS = 3.0
TIME_ERROR = 5  # what adjtimex(2) returns for a clock that nobody keeps

Check = dict[str, Any]  # {"check", "ok", "found", "fix"}
Ask = Callable[..., dict[str, Any]]


def checks(head: str | None = None, *, ask: Ask = node_answers.ask) -> list[Check]:
    """All of them; one that cannot run is a bad one that says why. `head`: HOST or HOST:PORT that this machine shall join."""
    if head is not None:
        return _joining(head, ask)
    try:
        settings, installed = load_settings(), True
    except NotRunning:
        settings, installed = make_settings(), False
    running = health.is_running(settings, health.current_run(settings) if installed else None)
    found = _machine(settings.home_path)
    if installed:
        found += [
            checked("secrets", lambda: _secrets(settings)),
            checked("token", lambda: _token(settings, running)),
            checked("storage", lambda: _storage({"bars": settings.bars_path, "registry": settings.registry_path})),
        ]
    if not running:
        asleep = checked("terminal", lambda: cluster_checks.terminal(settings.market, None))
        return [*found, asleep, checked("ports", lambda: _ports(settings))]
    return [*found, *_running(settings, ask), checked("cluster", lambda: _cluster(settings))]


def _machine(home: Path) -> list[Check]:
    return [
        checked("python", _python),
        checked("packages", _packages),
        checked("memory", _memory),
        checked("disk", lambda: _disk(home)),
        checked("temp dir", lambda: _temp_dir(home)),
        checked("GPU", _gpu),
        checked("clock", lambda: cluster_checks.kernel_clock(_kernel_clock())),
    ]


def _running(settings: Settings, ask: Ask) -> list[Check]:
    """What the nodes of the cluster here say. When they cannot be asked, that is the finding of one check."""
    said: dict[str, Any] = {}

    def answer() -> Finding:
        token = settings.secret("ray_token").get_secret_value()
        said.update(ask(["own"], token, LSTMC_HOME=str(settings.home_path)))
        return cluster_checks.nodes(said["nodes"])

    answered = checked("nodes", answer)
    if not said:
        return [answered]
    return [
        answered,
        checked("node versions", lambda: cluster_checks.node_versions(versions(), said["nodes"])),
        checked("node clocks", lambda: cluster_checks.node_clocks(said["nodes"])),
        checked("terminal", lambda: cluster_checks.terminal(settings.market, said["sources"])),
    ]


def _joining(head: str, ask: Ask) -> list[Check]:
    """For a Linux machine that trains. It keeps nothing: bars and models are the head's."""
    settings = make_settings()
    host, port = split_head(head if ":" in head else f"{head}:{settings.head_port}")
    home, said = settings.home_path, dict[str, Any]()

    def answer() -> Finding:
        said.update(ask(["head", f"{host}:{port}"], ray_token(home)))
        return True, "the head takes our token", ""

    found = [
        *_machine(home),
        checked("storage", lambda: _storage({"Ray's session": nodes.temp_dir(home)})),
        checked("token", lambda: (True, cluster_checks.fingerprint(ray_token(home)), "")),
        checked("head", lambda: cluster_checks.head(host, port, _connects)),
    ]
    if found[-1]["ok"]:  # Ray would wait for a head that is not there
        found.append(checked("admission", answer))
    if not said:
        return found
    return [
        *found,
        checked("versions", lambda: cluster_checks.joining_versions(versions(), said["versions"])),
        checked("head's ports", lambda: cluster_checks.head_ports(said["nodes"], _connects)),
        checked("head's clock", lambda: cluster_checks.head_clock(_head_offset(said["nodes"]))),
    ]


# -- This machine


def _python() -> Finding:
    return (
        sys.version_info[:2] == (3, 11),
        sys.version.split()[0],
        "Make the environment with Python 3.11: `make PYTHON=python3.11 install`.",
    )


def _packages() -> Finding:
    names = ("ray", "torch", "lightgbm", "xgboost-cpu", "deltalake", "fastapi")
    found, missing = [], []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    return not missing, ", ".join(found + [f"no {name}" for name in missing]), "Run `make install`."


def _memory() -> Finding:
    import psutil

    free = psutil.virtual_memory().available / 2**30
    return (
        free >= MIN_MEMORY_GB,
        f"{free:.1f} GB available",
        f"About {MIN_MEMORY_GB:.0f} GB are needed; close something.",
    )


def _disk(home: Path) -> Finding:
    folder = next(p for p in (home, *home.parents) if p.exists())
    free = shutil.disk_usage(folder).free / 2**30
    ok = free >= MIN_FREE_GB and os.access(folder, os.W_OK)
    return ok, f"{free:.1f} GB free in {folder}", "Make room, or choose another folder with --home."


def _temp_dir(home: Path) -> Finding:
    # A unix socket path ends at 107 characters; Ray appends about 60 of its own.
    path = str(nodes.temp_dir(home))
    return len(path) < 45, path, "Set TMPDIR to a shorter path, for example /tmp."


def _gpu() -> Finding:
    try:
        if version("torch").endswith("+cpu"):  # built without CUDA; importing it takes seconds
            return cluster_checks.gpu([])
        from torch import cuda
    except (PackageNotFoundError, ImportError, OSError):
        return cluster_checks.gpu(None)
    return cluster_checks.gpu([cuda.get_device_name(n) for n in range(cuda.device_count())])


def _kernel_clock() -> float | None:
    """Seconds that the clock may be off by the kernel's own account; None: it does not say, or nobody has told it the time."""
    timex = (ctypes.c_long * 64)()  # struct timex; modes 0 only asks
    try:
        state = ctypes.CDLL(None).adjtimex(timex)
    except (AttributeError, OSError):
        return None
    return timex[3] / 1e6 if 0 <= state < TIME_ERROR else None  # maxerror, microseconds


# -- The installation


def _secrets(settings: Settings) -> Finding:
    folder = settings.home_path / "secrets"
    missing = [name for name in SECRET_NAMES if not (folder / name).exists()]
    exposed = [name for name in SECRET_NAMES if _readable_by_others(folder / name)]
    if missing:
        return False, f"missing: {', '.join(missing)}", "Run `lstmc up`; it makes them."
    return (
        not exposed,
        "present, private" if not exposed else f"readable by others: {', '.join(exposed)}",
        f"chmod 600 {folder}/*",
    )


def _readable_by_others(path: Path) -> bool:
    return path.exists() and bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def _token(settings: Settings, running: bool) -> Finding:
    """Also that of the cluster that runs? A file that was changed meanwhile lets nobody in."""
    found = cluster_checks.fingerprint(settings.secret("ray_token").get_secret_value())
    if running:
        health.check_token(settings)  # WrongToken says what to do
    return True, found, ""


def _storage(folders: Mapping[str, Path]) -> Finding:
    return cluster_checks.storage(folders, lambda folder: shutil.disk_usage(folder).free)


def _ports(settings: Settings) -> Finding:
    nodes.check_ports(settings)
    return True, "free", ""


def _cluster(settings: Settings) -> Finding:
    cause = health.collect(settings, health.current_run(settings))["root_cause"]
    return not cause, cause or "all is well", ""


# -- The head, from elsewhere


def _connects(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def _head_offset(found: list[dict[str, Any]], now: Callable[[], float] = time.time) -> dict[str, float] | None:
    """By the Date that the head's metrics, which everybody may read, are sent with."""
    head = next((one for one in found if one["head"]), {"address": "", "metrics_port": 0})
    url = f"http://{head['address']}:{head['metrics_port']}/"

    def date() -> float:
        said = httpx.head(url, timeout=CONNECT_SECONDS, trust_env=False).headers["date"]
        return parsedate_to_datetime(said).timestamp()

    try:
        return node_answers.clock_offset(date, step=1.0, now=now)
    except (httpx.HTTPError, httpx.InvalidURL, KeyError, ValueError):
        return None
