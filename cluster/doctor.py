"""Checks of the machine and the installation. Each says what was found and, when it is bad, how to mend it."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

from cluster import health, nodes
from configs.settings import SECRET_NAMES, Settings, load_settings, make_settings
from market.errors import NotRunning
from mt5_actor_windows.node_checks import checked

MIN_FREE_GB = 2.0
MIN_MEMORY_GB = 4.0


def checks() -> list[dict[str, Any]]:
    """Every check as {"check", "ok", "found", "fix"}; a check that cannot run is a bad one that says why."""
    try:
        settings, installed = load_settings(), True
    except NotRunning:
        settings, installed = make_settings(), False
    run = health.current_run(settings) if installed else None
    running = health.is_running(settings, run)
    found = [
        checked("python", _python),
        checked("packages", _packages),
        checked("memory", _memory),
        checked("disk", lambda: _disk(settings)),
        checked("temp dir", lambda: _temp_dir(settings)),
    ]
    if installed:
        found.append(checked("secrets", lambda: _secrets(settings)))
    if not running:
        return [*found, checked("ports", lambda: _ports(settings))]
    report = health.collect(settings, run)
    return [
        *found,
        {"check": "cluster", "ok": not report["root_cause"], "found": report["root_cause"] or "all is well", "fix": ""},
    ]


def _python() -> tuple[bool, str, str]:
    return (
        sys.version_info[:2] == (3, 11),
        sys.version.split()[0],
        "Make the environment with Python 3.11: `make PYTHON=python3.11 install`.",
    )


def _packages() -> tuple[bool, str, str]:
    from importlib.metadata import PackageNotFoundError, version

    names = ("ray", "torch", "lightgbm", "xgboost-cpu", "deltalake", "fastapi")
    found, missing = [], []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    return not missing, ", ".join(found + [f"no {name}" for name in missing]), "Run `make install`."


def _memory() -> tuple[bool, str, str]:
    import psutil

    free = psutil.virtual_memory().available / 2**30
    return (
        free >= MIN_MEMORY_GB,
        f"{free:.1f} GB available",
        f"About {MIN_MEMORY_GB:.0f} GB are needed; close something.",
    )


def _disk(settings: Settings) -> tuple[bool, str, str]:
    folder = next(p for p in (settings.home_path, *settings.home_path.parents) if p.exists())
    free = shutil.disk_usage(folder).free / 2**30
    ok = free >= MIN_FREE_GB and os.access(folder, os.W_OK)
    return ok, f"{free:.1f} GB free in {folder}", "Make room, or choose another folder with --home."


def _temp_dir(settings: Settings) -> tuple[bool, str, str]:
    # A unix socket path ends at 107 characters; Ray appends about 60 of its own.
    path = str(nodes.temp_dir(settings.home_path))
    return len(path) < 45, path, "Set TMPDIR to a shorter path, for example /tmp."


def _secrets(settings: Settings) -> tuple[bool, str, str]:
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


def _ports(settings: Settings) -> tuple[bool, str, str]:
    nodes.check_ports(settings)
    return True, "free", ""
