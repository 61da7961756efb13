"""docs/windows-node.md names every error text that a user of a Windows node can meet, each with a cause and a cure."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from market import errors
from mt5_actor_windows.connection import _HINTS

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "windows-node.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("|")]
MODULES = [
    *sorted((ROOT / "mt5_actor_windows").glob("*.py")), ROOT / "actors" / "clock_guard.py", ROOT / "actors" / "handles.py",
]  # fmt: skip
SCRIPTS = sorted((ROOT / "mt5_actor_windows" / "install").glob("*.ps1"))
# Whatever makes an error, and which of its arguments is the message.
MAKERS = {name: 0 for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)} | {
    "_alarm": 0, "_lose": 0, "_problem": 1, "Problem": 1, "_too_many": 1,
}  # fmt: skip
SAYERS = ("_trouble", "trouble")  # functions that return a message, or a message and a hint


def fixed_parts(node: ast.AST) -> list[str]:
    """What stays the same of a text, whatever the values in it; parts without a word are left out."""
    if isinstance(node, ast.BinOp):
        return fixed_parts(node.left) + fixed_parts(node.right)
    values = node.values if isinstance(node, ast.JoinedStr) else [node]
    texts = [value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]
    plain = (re.sub(r"^[\W\d_]+|[\W_]+$", "", text) for text in texts)
    return [text for text in plain if len(text) > 1]


def messages(source: str) -> Iterator[list[str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            at = MAKERS.get(getattr(node.func, "id", None) or getattr(node.func, "attr", ""))
            yield from [fixed_parts(node.args[at])] if at is not None and len(node.args) > at else []
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "attr", "") == "quarantine":
            yield fixed_parts(node.value)
        elif isinstance(node, ast.FunctionDef) and node.name in SAYERS:
            said = (one.value for one in ast.walk(node) if isinstance(one, ast.Return) and one.value)
            yield from (fixed_parts(one.elts[0] if isinstance(one, ast.Tuple) else one) for one in said)
        elif isinstance(node, ast.Dict):
            yield from (
                fixed_parts(value)
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and key.value == "reason"
            )


def is_named(parts: list[str]) -> bool:
    return any(all(part in row for part in parts) for row in ROWS)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_every_message_is_in_the_table(module: Path) -> None:
    missing = [parts for parts in messages(module.read_text()) if parts and not is_named(parts)]
    assert missing == []


def test_the_check_sees_messages_and_sees_what_is_missing() -> None:
    found = [parts for module in MODULES for parts in messages(module.read_text()) if parts]
    assert len(found) > 45
    assert ["The terminal did not answer within", "s; its process was killed"] in found
    assert not is_named(["Nobody ever says this"])


@pytest.mark.parametrize("code", sorted(_HINTS))
def test_every_code_with_a_hint_is_in_the_table(code: int) -> None:
    assert any(f"`{code}`" in row for row in ROWS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_what_a_script_throws_is_in_the_table(script: Path) -> None:
    for text in re.findall(r'throw "((?:[^"`]|`.)*)"', script.read_text()):
        first = text.split(". ")[0]  # what is wrong; the cure comes after it
        parts = [part.strip(" .,;:'") for part in re.split(r"\$\([^)]*\)|\$\w+", first)]
        assert is_named([part for part in parts if len(part) > 1]), text


@pytest.mark.parametrize(
    "text",
    [
        "Multi-node Ray clusters are not supported on Windows and OSX",
        "Version mismatch",
        "InvalidAuthToken",
        "Timed out waiting for file",
        "CreateFileMapping",
        "numpy._core",
        "running scripts is disabled on this system",
    ],
)
def test_what_others_say_is_in_the_table(text: str) -> None:
    assert is_named([text])


def test_every_row_has_as_many_cells_as_its_table_and_a_cure() -> None:
    tables = re.findall(r"^\| text \| cause \| cure \|\n\|[-| ]+\n((?:\|.*\n)+)", PAGE, re.M)
    assert len(tables) == 5
    for row in "".join(tables).splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 3, row
        assert cells[2] or "`MetaTrader answered CODE (TEXT)`" in row, row
