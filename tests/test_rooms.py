"""The rooms import only leftwards, and importing them does no work."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What each room may import of the others.
ALLOWED = {
    "market": set(),
    "lstmc_client": set(),
    "configs": {"market"},
    "mt5_actor_windows": {"market", "configs"},
    "tuning": {"market", "configs"},
    "actors": {"market", "configs", "mt5_actor_windows", "tuning"},
    "serve_app": {"market", "configs", "mt5_actor_windows", "tuning", "actors"},
    "cluster": {"market", "configs", "mt5_actor_windows", "tuning", "actors", "serve_app", "benchmarks"},
    "benchmarks": {"market", "configs", "mt5_actor_windows", "tuning", "actors", "serve_app", "cluster"},
}
FILES = [path for room in ALLOWED for path in sorted((ROOT / room).rglob("*.py"))]


def imported_modules(source: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            found.add(node.module or "")
    return found


def forbidden_imports(room: str, source: str) -> set[str]:
    rooms = {name.split(".")[0] for name in imported_modules(source)} & ALLOWED.keys()
    return rooms - ALLOWED[room] - {room}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_leftwards(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    assert forbidden_imports(room, path.read_text()) == set()


def test_the_check_sees_a_wrong_import() -> None:
    assert forbidden_imports("market", "def f():\n    from tuning.features import x\n") == {"tuning"}


@pytest.mark.parametrize("path", [p for p in FILES if p.parts[len(ROOT.parts)] == "market"], ids=lambda p: p.name)
def test_the_market_room_is_pure(path: Path) -> None:
    tops = {name.split(".")[0] for name in imported_modules(path.read_text())}
    assert tops & {"ray", "torch", "fastapi", "pandas", "lightgbm", "xgboost"} == set()


def test_only_the_session_imports_metatrader5() -> None:
    importers = {str(p.relative_to(ROOT)) for p in FILES if "MetaTrader5" in imported_modules(p.read_text())}
    assert importers <= {"mt5_actor_windows/session.py"}


def test_three_files_of_learning_know_ray() -> None:
    users = {
        str(p.relative_to(ROOT))
        for p in FILES
        if p.relative_to(ROOT).parts[0] == "tuning"
        and any(n.split(".")[0] == "ray" for n in imported_modules(p.read_text()))
    }
    assert users == {"tuning/distributed.py", "tuning/net_training.py", "tuning/search_on_ray.py"}


def test_no_artefact_is_a_pickle() -> None:
    users = {
        str(p.relative_to(ROOT)) for p in FILES if imported_modules(p.read_text()) & {"pickle", "joblib", "cloudpickle"}
    }
    assert users == set()


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    heavy = "torch lightgbm xgboost ray plotly pandas deltalake".split()
    code = f"import sys, cluster.cli; print([m for m in {heavy!r} if m in sys.modules])"
    seen = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"


def test_the_client_starts_without_the_platform() -> None:
    others = [*(room for room in ALLOWED if room != "lstmc_client"), *"ray torch fastapi pydantic starlette".split()]
    code = f"import sys, lstmc_client.client; print([m for m in {others!r} if m in sys.modules])"
    seen = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"
