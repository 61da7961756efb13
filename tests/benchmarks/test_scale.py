"""What the benchmark of more nodes computes from what it saw, and the shares of CPU that it hands out."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cpu_share import CpuGroup, cpu_group
from benchmarks.scale import efficiency, is_spread, main, parse_nodes, parse_parts, table, with_efficiency
from benchmarks.scale_machines import loss, units
from market.errors import ClusterError, InputError


def row(nodes: int, rate: float, per_minute: float, job_s: float, **where: int) -> dict[str, Any]:
    served = {"rate": rate, "p50_ms": 10.0, "p99_ms": 30.5, "replicas": dict.fromkeys(where, 1)}
    return {"nodes": nodes, "serve": served, "train": {"units_per_minute": per_minute, "job_s": job_s, "where": where}}


ONE = row(1, 400.0, 6.0, 200.0, worker1=17)
TWO = row(2, 600.0, 9.0, 125.0, worker1=9, worker2=8)


def test_efficiency_is_the_rate_over_that_of_as_many_single_nodes() -> None:
    assert efficiency({1: 400.0, 2: 600.0, 4: 1600.0}) == {1: 1.0, 2: 0.75, 4: 1.0}
    assert efficiency({2: 600.0}) == {2: None}  # never 0: it is not known
    assert with_efficiency([ONE, TWO]) == {
        "serve": {1: 1.0, 2: 0.75},
        "train": {1: 1.0, 2: 0.75},
        "job": {1: 1.0, 2: 0.8},
    }


def test_the_table_has_a_line_for_each_number_of_nodes() -> None:
    lines = table([ONE, TWO], with_efficiency([ONE, TWO])).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[3] == (
        "| 2 | 600 | 0.75 | 10 / 30.5 | worker1 1, worker2 1 | 9 | 0.75 | 125 s | 0.80 | worker1 9, worker2 8 |"
    )
    assert "| 600 | - |" in table([TWO], with_efficiency([TWO]))


def test_what_was_not_measured_is_left_open() -> None:
    served = [{name: row[name] for name in ("nodes", "serve")} for row in (ONE, TWO)]
    efficient = with_efficiency(served)
    assert efficient == {"serve": {1: 1.0, 2: 0.75}}
    assert table(served, efficient).splitlines()[3] == (
        "| 2 | 600 | 0.75 | 10 / 30.5 | worker1 1, worker2 1 | - | - | - | - | - |"
    )
    assert all(map(is_spread, served))
    assert parse_parts("loss,serve") == {"serve", "loss"}
    with pytest.raises(InputError, match="'speed'"):
        parse_parts("serve,speed")


def test_work_on_fewer_workers_than_there_are_is_no_success() -> None:
    assert is_spread(TWO)
    assert not is_spread(TWO | {"serve": ONE["serve"]})
    assert not is_spread(TWO | {"train": ONE["train"]})


def test_units_are_counted_where_they_ran() -> None:
    rows = [
        {"node_id": node, "start_time_ms": start, "end_time_ms": start + 10_000}
        for node, start in (("a", 0), ("b", 5_000), ("a", 20_000))
    ]
    found = units({"a": "10.0.0.3", "b": "10.0.0.4"}, {"worker1": "10.0.0.3", "worker2": "10.0.0.4"}, rows)
    assert found["where"] == {"worker1": 2, "worker2": 1}
    assert found["busy_s"] == {"worker1": 20, "worker2": 10}
    assert (found["units"], found["units_s"], found["units_per_minute"], found["longest_s"]) == (3, 30.0, 6.0, 10.0)


def test_a_loss_ends_with_the_last_failed_answer() -> None:
    told = [
        {"at": 99.0, "seconds": 0.1, "kind": "ok"},
        {"at": 101.0, "seconds": 2.5, "kind": "ReadError"},
        {"at": 101.0, "seconds": 0.5, "kind": "clean 503", "problem": "No replica"},
        {"at": 102.0, "seconds": 0.7, "kind": "ok"},
    ]
    seen = loss(told, 100.0, "worker1: 9 processes killed", 30.04, {"worker2": 2})
    assert (seen.requests, seen.failed) == (4, {"ReadError": 1, "clean 503: No replica": 1})
    assert (seen.out_s, seen.slowest_s, seen.back_s) == (3.5, 0.7, 30.0)
    assert loss(told[:1], 100.0, "", 1.0, {}).out_s == 0.0


@pytest.mark.parametrize("text", ["", "0", "1,x", "9", "1,,2"])
def test_numbers_of_nodes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="numbers of workers"):
        parse_nodes(text)
    assert parse_nodes("4,1, 2,2") == [1, 2, 4]


def test_symbols_that_clients_ask_for_are_wanted() -> None:
    with pytest.raises(InputError, match="GBPUSD, USDJPY"):
        main(["--symbols", "EURUSD,AUDUSD"])


def test_help_says_what_it_wants(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    assert "--share" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("controllers", "files"),
    [
        ("cpu memory", {"cpu.max": "6000 20000"}),
        (None, {"cpu.cfs_period_us": "20000", "cpu.cfs_quota_us": "6000"}),
    ],
)
def test_a_share_is_a_quota_of_either_version(tmp_path: Path, controllers: str | None, files: dict[str, str]) -> None:
    if controllers:
        (tmp_path / "cgroup.controllers").write_text(controllers)
    (tmp_path / "w").mkdir()
    CpuGroup(tmp_path / "w").hold_to(0.3)
    assert {file.name: file.read_text() for file in (tmp_path / "w").iterdir()} == files
    with pytest.raises(ClusterError, match="takes no quota"):
        CpuGroup(tmp_path / "another").hold_to(0.3)


def test_version_2_hands_its_controller_down(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu memory\n")
    (tmp_path / "cgroup.subtree_control").write_text("memory\n")
    with cpu_group("w", tmp_path) as group:
        assert group.words[-1] == str(tmp_path / "w" / "cgroup.procs")
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu"
    assert not (tmp_path / "w").exists()


def test_what_still_runs_in_a_group_is_said(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    with pytest.raises(ClusterError, match="could not be removed"), cpu_group("w", tmp_path, seconds=0) as group:
        group.hold_to(0.3)  # there is no kernel here that takes its files along


def test_where_no_group_can_be_made_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="No control group for the CPU") as refused, cpu_group("w", tmp_path):
        pass
    assert "root" in refused.value.hint


def test_a_command_runs_in_its_group() -> None:
    """With this machine's own kernel, where it lets us."""
    try:
        with cpu_group("lstmc-test") as group:
            group.hold_to(0.5)
            seen = subprocess.run(
                [*group.words, "cat", "/proc/self/cgroup"], capture_output=True, text=True, check=True
            )
    except ClusterError as error:
        pytest.skip(str(error))
    assert "/lstmc-test" in seen.stdout
