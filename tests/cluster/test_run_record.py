"""Which processes are ours: by pid and start time, by descent, and by the run's mark; never by pid alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from cluster.nodes import end_processes
from cluster.run_record import NODE_VARIABLE, RUN_VARIABLE, Run, Started, members, memory_mb, read_run, write_run

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
# A parent that dies at once and leaves a child behind.
ORPHANING = [
    sys.executable,
    "-c",
    "import subprocess, sys\np = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\nprint(p.pid, flush=True)",
]


def a_run(run_id: str = "run-1", **processes: Started) -> Run:
    return Run(run_id=run_id, state="up", temp_dir="/nowhere", ports={"port": 1}, processes=processes)


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for child in started:
        child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()


def start(children: list[subprocess.Popen[bytes]], command: list[str], **marks: str) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | marks)
    children.append(child)
    assert child.stdout is not None
    child.first_line = child.stdout.readline()  # type: ignore[attr-defined]
    return child


def test_the_record_survives_the_disk(tmp_path: Path) -> None:
    run = replace(a_run(head=Started(1, 2.0)), cold_s=12.5)
    write_run(tmp_path, run)
    assert read_run(tmp_path) == run


@pytest.mark.parametrize("content", [None, "", "{", '{"run_id": "x"}', "[]"])
def test_a_torn_record_counts_as_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    assert read_run(tmp_path) is None


def test_a_reused_pid_is_not_ours(children: list[subprocess.Popen[bytes]]) -> None:
    child = start(children, SLEEP)
    ours = Started.of(child.pid)
    assert ours.process() is not None
    assert replace(ours, create_time=ours.create_time - 60).process() is None
    assert members(a_run(head=replace(ours, create_time=ours.create_time - 60))) == []


def test_an_ended_process_is_gone(children: list[subprocess.Popen[bytes]]) -> None:
    child = start(children, SLEEP)
    ours = Started.of(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert ours.process() is None  # a zombie until somebody waits for it


def test_an_orphan_is_found_by_the_runs_mark(children: list[subprocess.Popen[bytes]]) -> None:
    parent = start(children, ORPHANING, **{RUN_VARIABLE: "run-1", NODE_VARIABLE: "mt5"})
    orphan = psutil.Process(int(parent.first_line))  # type: ignore[attr-defined]
    parent.wait()
    try:
        assert members(a_run()) == [orphan]
        assert members(a_run(), "mt5") == [orphan]
        assert members(a_run(), "head") == []
        assert members(a_run("run-2")) == []
        assert (memory_mb(a_run()) or 0) > 1
    finally:
        orphan.kill()


def test_ending_a_run_leaves_its_neighbours_alone(children: list[subprocess.Popen[bytes]]) -> None:
    ours = start(children, SLEEP, **{RUN_VARIABLE: "run-1"})
    neighbour = start(children, SLEEP, **{RUN_VARIABLE: "run-2"})
    assert end_processes(members(a_run(head=Started.of(ours.pid)))) == 1
    assert not psutil.pid_exists(ours.pid)
    assert neighbour.poll() is None


def test_who_ignores_term_is_killed(children: list[subprocess.Popen[bytes]]) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    child = start(children, [sys.executable, "-c", deaf])
    end_processes([psutil.Process(child.pid)], patience=0.2)
    assert not psutil.pid_exists(child.pid)
