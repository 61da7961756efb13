"""What the soak makes of samples, without a cluster."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from benchmarks.http_load import kind_of
from benchmarks.soak_page import BEGIN, END, page
from benchmarks.soak_samples import ERROR, Disk, Process, Sample, disk, error_lines, memory_mb, role_of
from benchmarks.soak_verdict import (
    Growth,
    Role,
    disk_growth,
    failed_answers,
    gone,
    growth,
    left_behind,
    long_lived,
    roles,
    unbounded,
)
from market.errors import InputError


@pytest.mark.parametrize(
    ("title", "role"),
    [
        ("ray::ServeReplica:lstmc:Api.handle_request_with_rejection", "Api"),
        ("ray::ServeReplica:lstmc:Predictor", "Predictor"),
        ("ray::ForecasterActor", "ForecasterActor"),
        ("ray::MarketDataActor.tail", "MarketDataActor"),
        ("ray::IDLE", "idle worker"),
        ("ray::_ray_internal_job_actor_soak-26:JobSupervisor.__init__", "JobSupervisor"),
        ("ray::_run_fold() trees", "_run_fold"),
        ("ray-dashboard-JobHead-0 (/x/python3.11 -B -c ...)", "dashboard"),
        ("/x/ray/core/src/ray/gcs/gcs_server --log_dir=/t", "control store"),
        ("/x/ray/core/src/ray/raylet/raylet --agent=/x/ray/dashboard/agent.py", "raylet"),
        ("/x/python -u /x/ray/_private/log_monitor.py --session-dir=/t", "log monitor"),
        ("/x/bin/haproxy -db -f /t/haproxy.cfg", "HAProxy"),
        ("nice -n 10 python -m tuning.retrain --preset quick", "job"),
        ("/usr/bin/prometheus --config=x", "prometheus"),
    ],
)
def test_a_title_has_a_role(title: str, role: str) -> None:
    assert role_of(title) == role


def test_memory_is_without_the_pages_of_files() -> None:
    rollup = "0-1 ---p [rollup]\nRss: 9000 kB\nPss: 4096 kB\nPss_Anon: 2048 kB\nPss_File: 1024 kB\nPss_Shmem: 1024 kB\n"
    assert memory_mb(rollup) == 3.0


def sample(at: float, **memory: float) -> Sample:
    """Processes named as their roles, with as many handles as are given after an underscore."""
    found = {}
    for name, mb in memory.items():
        role, _, handles = name.partition("_")
        found[role] = Process(role, mb, int(handles or 10))
    return Sample(at, found)


def test_a_slope_is_not_moved_by_peaks_and_sees_a_leak() -> None:
    rng = np.random.default_rng(7)
    at = np.arange(0.0, 600.0, 5.0)
    flat = 100 + rng.normal(0, 0.5, len(at))
    peaks = flat.copy()
    peaks[::6] += 80  # a training's, seen in every sixth sample
    assert abs(growth(list(at), list(peaks)).percent) < 1
    leak = growth(list(at), list(peaks + at / 60))  # 1 MB a minute
    assert leak.growth == pytest.approx(9.9, abs=0.7)
    assert leak.percent == pytest.approx(9.4, abs=0.9)
    assert growth([0.0, 5.0], [1.0, 9.0]).growth == 0.0


def test_who_is_judged_and_for_what() -> None:
    samples = [sample(5.0 * n, Api=200 + n / 5, control=100.0, job=300.0, tiny=1 + n / 100) for n in range(100)]
    late = [Sample(one.at, dict(one.processes) | {"new": Process("new", 9.0, 9)}) for one in samples[50:]]
    samples = samples[:50] + late
    assert set(long_lived(samples).values()) == {"Api", "control", "tiny"}  # neither a job nor who came later
    found = {one.role: one for one in roles(samples)}
    assert list(found) == ["Api", "control", "tiny", "all of these"]
    assert found["Api"].wrong == ["Api: memory grew by 19.8 MB (9.4 %)"]
    assert found["control"].wrong == []
    assert found["tiny"].wrong == []  # it doubled, by one MB
    assert found["all of these"].memory.level == pytest.approx(311.4, abs=0.1)


def test_file_handles_that_grow_are_told() -> None:
    samples = [Sample(5.0 * n, {"1": Process("Api", 50.0, 40 + n // 10)}) for n in range(60)]
    assert [why for one in roles(samples) for why in one.wrong if one.role == "Api"] == ["Api: 6 more file handles"]
    steady = [Sample(5.0 * n, {"1": Process("Api", 50.0, 40 + n % 3)}) for n in range(60)]
    assert not any(one.wrong for one in roles(steady))


def test_logs_that_ray_closes_at_a_bound_are_no_leak() -> None:
    monitor = Growth(80.0, 0.0)
    assert Role("log monitor", 2, monitor, Growth(150.0, 60.0)).wrong == []
    assert Role("log monitor", 2, monitor, Growth(450.0, 60.0)).wrong == ["log monitor: 60 more file handles"]


def test_who_died_and_what_jobs_left_behind() -> None:
    before = Sample(0.0, {"1": Process("Api", 1, 1), "2": Process("raylet", 1, 1), "3": Process("idle worker", 1, 1)})
    after = Sample(9.0, {"4": Process("Api", 1, 1), "2": Process("raylet", 1, 1), "5": Process("JobSupervisor", 1, 1)})
    assert gone(before, after) == ["Api"]  # replaced by another process
    assert left_behind(before, after, idle=2) == ["1 more of 'JobSupervisor' after the last job"]
    idle = Sample(9.0, dict(before.processes) | {str(n): Process("idle worker", 1, 1) for n in (7, 8)})
    assert left_behind(before, idle, idle=2) == []


def test_disk_per_market_day_and_what_nothing_bounds() -> None:
    first = Disk(0.0, {"home/data/bars": (10_000_000, 10), "home/strange": (0, 0)})
    last = Disk(864.0, {"home/data/bars": (12_000_000, 30), "home/strange": (4_000_000, 8), "ray/new": (10_000, 1)})
    found = disk_growth([first, last], 4.0)
    assert found["home/data/bars"] == {"mb": 12.0, "mb_more": 2.0, "mb_a_day": 0.5, "files": 30, "files_a_day": 5}
    assert found["ray/new"] == {"mb": 0.01, "mb_more": 0.01, "mb_a_day": 1.0, "files": 1, "files_a_day": 100}
    assert list(found) == ["home/strange", "home/data/bars", "ray/new"]
    assert unbounded(found) == ["home/strange grew by 4.0 MB, and nothing bounds it"]
    with pytest.raises(InputError, match="twice"):
        disk_growth([last], 4.0)


def test_folders_are_named_without_dates_and_hashes(tmp_path: Path) -> None:
    for name in (
        "data/simulated-7/bars/timeframe=H1/a.parquet",
        "data/simulated-7/ledger_spool.jsonl",
        "session_2026-11-25_17-06-12_216432_26940/logs/events/event.log",
        "session_2026-11-25_17-06-12_216432_26940/runtime_resources/working_dir_files/x/y.py",
        f"{'2a' * 28}/haproxy.cfg",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x" * 5000)
    (tmp_path / "session_latest").symlink_to(tmp_path / "session_2026-11-25_17-06-12_216432_26940")
    found = disk({"home": tmp_path}).folders
    assert {folder: files for folder, (_, files) in found.items()} == {
        "home/data/bars": 1,
        "home/data": 1,
        "home/session/logs": 1,
        "home/session/runtime_resources/working_dir_files": 1,
        "home/*": 1,
    }
    assert found["home/*"][0] >= 5000


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("2026-11-25 17:06:12,216\tERROR actor.py:9 -- lost", True),
        ("Traceback (most recent call last):", True),
        ("[2026-11-25 17:06:12,216 E 26943 26943] (gcs_server) x.cc:1: lost", True),
        ("[2026-11-25 17:06:12,216 I 26943 26943] (gcs_server) x.cc:1: fine", False),
        ("INFO 2026-11-25 replica -- GET /api/v1/forex/all 200 no_ERRORS", False),
    ],
)
def test_lines_of_errors(line: str, wrong: bool) -> None:
    assert bool(ERROR.search(line.encode())) is wrong


def test_errors_are_found_in_logs_old_and_new(tmp_path: Path) -> None:
    logs = tmp_path / "a"
    logs.mkdir()
    (logs / "head.log").write_text("fine\nERROR one\n")
    (logs / "head.log.1").write_text("ERROR before\n")
    (logs / "errors.json").write_text("ERROR is no log\n")
    (logs / "same.log").symlink_to(logs / "head.log")
    assert sorted(error_lines({"home": tmp_path})) == ["head.log.1: ERROR before", "head.log: ERROR one"]


def test_failed_answers() -> None:
    kinds = ["ok", "not modified", "update", "stream ended", "500 text/plain", "500 text/plain"]
    lines: list[dict[str, Any]] = [{"kind": kind, "path": "/x"} for kind in kinds]
    assert failed_answers(lines) == {"stream ended of /x": 1, "500 text/plain of /x": 2}


def test_the_page_has_its_markers_and_says_what_was_not_held() -> None:
    figures = {"level": 100.0, "growth": 1.25, "percent": 1.3}
    report: dict[str, Any] = {
        "command": "lstmc bench soak --minutes 16", "machine": "2 cores", "load": [1.0, 4.5], "market_hours": 120.0,
        "minutes": 20.0, "judged_minutes": 16.0, "jobs": {"succeeded": 9}, "answers": {"ok": 5, "not modified": 4, "update": 3},
        "with_jobs": {"before": {"processes": 30, "memory_mb": 1000.0}, "after": {"processes": 30, "memory_mb": 1010.0}},
        "ok": False, "wrong": ["Api: memory grew"], "roles": {"Api": {"processes": 2, "memory_mb": figures, "handles": figures}},
        "disk": {"home/data/bars": {"mb": 6.0, "mb_more": 2.0, "mb_a_day": 0.5, "files": 9, "files_a_day": 2}},
    }  # fmt: skip
    said = page(report, datetime(2026, 11, 25, tzinfo=UTC))
    assert (said.startswith(BEGIN), said.endswith(END)) == (True, True)
    assert "| Api | 2 | 100 MB | +1.2 MB | +1.3 % | 100 | +1.2 |" in said
    assert "**Not held:** Api: memory grew" in said
    assert re.search(r"\| `home/data/bars` \| 6.0 MB \| 2.00 MB \| 0.5 MB \| 2 \| .+ \|", said)


def test_what_has_not_changed_is_a_good_answer() -> None:
    assert kind_of(httpx.Response(304)) == "not modified"
