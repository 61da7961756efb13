"""Logs of ended processes go after two weeks; a living process's stays, and so does what is younger."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from configs.ray_traces import KEPT_SECONDS, OWNER, sweep

NOW = 2e9


def file(path: Path, age: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("said\n")
    os.utime(path, (NOW - age, NOW - age))
    return path


@pytest.mark.parametrize(
    ("name", "pid"),
    [
        ("python-core-worker-3f2a99_4711.log", 4711),
        ("python-core-worker-3f2a99_4711.1.log", 4711),
        ("worker-3f2a99-ffffffff-4711.err", 4711),
        ("worker-3f2a99-01000000-4711.out.2", 4711),
        ("event_CORE_WORKER_4711.log", 4711),
        ("gcs_server.out", None),
        ("raylet.1.out", None),
        ("dashboard_agent.log", None),
        ("job-driver-daily-20261125T0600.log", None),
    ],
)
def test_whose_log_it_is(name: str, pid: int | None) -> None:
    found = OWNER.search(name)
    assert (int(found[1]) if found else None) == pid


def test_what_goes_and_what_stays(tmp_path: Path) -> None:
    session, old, young = tmp_path / "session_2", KEPT_SECONDS + 60, KEPT_SECONDS - 60
    go = [
        file(session / "logs" / "python-core-worker-aa_10.log", old),
        file(session / "logs" / "events" / "event_CORE_WORKER_10.log", old),
        file(session / "logs" / "job-driver-daily-1.log", old),
    ]
    stay = [
        file(session / "logs" / "python-core-worker-bb_11.log", old),  # it lives, and is silent
        file(session / "logs" / "python-core-worker-cc_10.log", young),
        file(session / "logs" / "job-driver-daily-2.log", young),
        file(session / "logs" / "gcs_server.out", old),
        file(session / "runtime_resources" / "code_10.log", old),
    ]
    file(tmp_path / "session_1" / "logs" / "raylet.out", old)
    file(tmp_path / "session_0" / "logs" / "gcs_server.out", old)
    recent = file(tmp_path / "session_0" / "logs" / "debug_state.txt", young)  # its raylet lives, or has just died
    (tmp_path / "session_latest").symlink_to(session)
    assert sweep(session, NOW, lambda pid: pid == 11) == 3
    assert (tmp_path / "session_1").exists(), "it may be somebody else's"
    assert sweep(session, NOW, lambda pid: pid == 11, others=True) == 1
    assert not any(path.exists() for path in (*go, tmp_path / "session_1"))
    assert all(path.exists() for path in (*stay, recent, tmp_path / "session_latest"))


def test_an_absent_session_is_no_error(tmp_path: Path) -> None:
    assert sweep(tmp_path / "none" / "session_1", NOW, others=True) == 0
