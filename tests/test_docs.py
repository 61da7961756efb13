"""The docs name what exists: commands with their options, files, pictures, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.cli import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "README.uk.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"(?:^|[\s$(`])(?:\.venv/bin/)?lstmc ((?:[a-z]+)[^`#|\n)]*)")
LINK = re.compile(r"!?\[[^\]]*\]\((?!https?:|#)([^)#]+)")


def commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for found in COMMAND.finditer(page.read_text()):
            yield page.name, found.group(1).strip().rstrip(".,;:")


@cache
def help_of(words: tuple[str, ...]) -> str | None:
    """The longest leading part of `words` that is a command, its help; None when there is none."""
    result = CliRunner().invoke(app, [*words, "--help"])
    return result.output if result.exit_code == 0 else None


@pytest.mark.parametrize(("page", "command"), sorted(set(commands())))
def test_a_command_in_the_docs_exists_with_its_options(page: str, command: str) -> None:
    words = shlex.split(command)
    names = tuple(word for word in words if re.fullmatch(r"[a-z]+", word))
    known = next((h for n in (3, 2, 1) if len(names) >= n and (h := help_of(names[:n]))), None)
    assert known, f"{page}: lstmc {command}: no such command"
    for option in (word.split("=")[0] for word in words if word.startswith("--")):
        assert re.search(rf"{option}\b", known), f"{page}: lstmc {command}: no option {option}"


def test_the_check_sees_enough_and_sees_what_is_wrong() -> None:
    assert len(set(commands())) > 15
    assert help_of(("nonsense",)) is None
    assert "--symbols" in (help_of(("train",)) or "")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_pictures_exist(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} points to {target}, which is not there"


def test_the_translation_has_the_same_commands_links_and_figures() -> None:
    english, ukrainian = ((ROOT / name).read_text() for name in ("README.md", "README.uk.md"))
    for what in (r"^\$ [^#\n]*[^#\n ]", r"\]\((?!README)([^)]+)\)", r"^#+ ", r"(?:(?<!\w)[+-])?\d*\.?\d+(?: %)?"):
        found, same = (re.findall(what, page, re.MULTILINE) for page in (english, ukrainian))
        assert found
        assert sorted(found) == sorted(same), what


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_files_that_are_named_exist(page: Path) -> None:
    rooms = "lstmc_client|market|configs|mt5_actor_windows|tuning|actors|serve_app|cluster|benchmarks|tests"
    for name in re.findall(rf"`((?:{rooms})/[\w./-]+\.\w+)`", page.read_text()):
        assert (ROOT / name).exists(), f"{page.name} names {name}, which is not there"
