"""A started program with its children: its lines, its end, and what is left behind when we are killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from mt5_actor_windows.program_tree import ProgramTree, end_left_behind

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.argv[1], "-c", "import time; time.sleep(600)"])
print("working", child.pid, flush=True)
child.wait()
sys.stdin.close()
import time; time.sleep(600)
"""


def until(look: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[ProgramTree]:
    vital = tmp_path / "raylet"  # the child's program by that name
    vital.symlink_to(sys.executable)
    one = ProgramTree(
        [sys.executable, "-c", PARENT, str(vital)],
        dict(os.environ),
        tmp_path / "logs" / "node.log",
        lambda line: line.startswith("working"),
        tmp_path / "node.processes.json",
        vital="raylet",
    )
    yield one
    one.end()


def child_of(tree: ProgramTree) -> psutil.Process:
    until(lambda: tree.up)
    return psutil.Process(int(tree.last_line.split()[1]))


def test_it_is_up_by_its_line_which_is_also_in_the_log(tree: ProgramTree, tmp_path: Path) -> None:
    child = child_of(tree)
    assert tree.ended() is None
    assert (tmp_path / "logs" / "node.log").read_text() == f"working {child.pid}\n"


def test_the_end_takes_its_children_along_and_leaves_no_record(tree: ProgramTree, tmp_path: Path) -> None:
    child = child_of(tree)
    until(lambda: tree.ended() is None and str(child.pid) in (tmp_path / "node.processes.json").read_text())
    tree.end()
    assert not child.is_running()
    assert not (tmp_path / "node.processes.json").exists()


def test_a_vital_child_that_ends_is_the_programs_end(tree: ProgramTree) -> None:
    child = child_of(tree)
    until(lambda: tree.ended() is None and tree.up)
    child.kill()
    until(lambda: tree.ended() is not None)
    assert tree.ended() == "its raylet"


def test_a_program_that_ends_says_with_what(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "print('no token'); raise SystemExit(2)"]
    tree = ProgramTree(words, dict(os.environ), tmp_path / "a.log", lambda line: False, tmp_path / "a.json")
    until(lambda: tree.ended() is not None)
    tree.end()
    assert (tree.up, tree.last_line) == (False, "no token")
    assert tree.ended() == "code 2"


def test_what_a_killed_life_left_behind_is_ended_and_nobody_else(tmp_path: Path) -> None:
    record = tmp_path / "node.processes.json"
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    started = psutil.Process(left.pid).create_time()
    reused = (os.getppid(), started - 1000.0)  # a pid that somebody else has by now
    record.write_text(json.dumps([[left.pid, started], reused, [2**30, 1.0]]))
    assert end_left_behind(record) == 1
    assert left.poll() is not None
    assert not record.exists()


@pytest.mark.parametrize("content", ["", "{}", "[1]", "[[1]]", '[["a", 2]]'])
def test_a_broken_record_ends_nobody(tmp_path: Path, content: str) -> None:
    record = tmp_path / "node.processes.json"
    record.write_text(content)
    assert end_left_behind(record) == 0
