"""What the Windows node installs is what the Linux nodes run, wherever both install the same package."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
INSTALL = ROOT / "mt5_actor_windows" / "install"
TORCH_AND_LEARNERS = {"torch", "lightgbm", "xgboost-cpu", "scipy", "deltalake", "uvloop"}


def lines_of(path: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("-")]


def plain(name: str) -> str:
    """One spelling of a package's name, without extras."""
    return re.sub(r"[-_.]+", "-", name.split("[")[0]).lower()


def pins(path: Path) -> dict[str, str]:
    return {plain(name): version for name, version in (line.split("==") for line in lines_of(path))}


WINDOWS, LINUX = pins(INSTALL / "requirements-windows.lock"), pins(ROOT / "requirements.lock")


def test_both_sides_run_the_same_versions() -> None:
    shared = WINDOWS.keys() & LINUX.keys()
    assert {name: WINDOWS[name] for name in shared} == {name: LINUX[name] for name in shared}
    assert {"ray", "numpy", "pyarrow", "protobuf", "grpcio"} <= shared


def test_what_only_windows_installs_is_known() -> None:
    assert WINDOWS.keys() - LINUX.keys() == {"metatrader5", "colorama"}


def test_the_lock_holds_what_was_asked_for_and_no_learners() -> None:
    asked = {plain(line.split("==")[0]) for line in lines_of(INSTALL / "requirements-windows.in")}
    assert asked <= WINDOWS.keys()
    assert not WINDOWS.keys() & TORCH_AND_LEARNERS


def test_every_line_is_an_exact_pin() -> None:
    assert all(
        re.fullmatch(r"[A-Za-z0-9._-]+==[\w.]+", line) for line in lines_of(INSTALL / "requirements-windows.lock")
    )
