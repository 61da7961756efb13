"""Due runs over missed slots, restarts and daylight saving time."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from actors.retrain_scheduler import DueRun, Entry, due_runs, load_timetable, next_slot, run_once
from market.errors import ClusterError, ConfigError

DAILY = Entry("daily", "0 1 * * *", "quick", "30m", "America/New_York")
SATURDAY = Entry("weekly", "0 2 * * sat", "full", "4h", "America/New_York")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_shipped_timetable() -> None:
    table = {entry.name: entry for entry in load_timetable()}
    assert {(e.name, e.preset, e.budget) for e in table.values()} == {
        ("daily", "quick", "30m"),
        ("weekly", "full", "4h"),
        ("m15", "m15", "15m"),
    }
    assert next_slot(table["weekly"], at("2024-03-04")) == at("2024-03-09 07:00")  # Saturday 02:00 New York, winter


@pytest.mark.parametrize(
    ("now", "last", "slot"),
    [
        ("2024-03-05 05:59", "2024-03-04 06:00", None),
        ("2024-03-05 06:00", "2024-03-04 06:00", "2024-03-05 06:00"),
        ("2024-03-08 12:00", "2024-03-04 06:00", "2024-03-08 06:00"),  # three missed: one run, the latest
        ("2024-03-10 05:30", "2024-03-09 06:00", None),  # the night clocks go forward: 01:00 EDT is 05:00 no longer
        ("2024-03-10 06:00", "2024-03-09 06:00", "2024-03-10 06:00"),  # still EST at 01:00
        ("2024-03-11 05:00", "2024-03-10 06:00", "2024-03-11 05:00"),  # EDT
        ("2024-11-04 05:30", "2024-11-03 05:00", None),  # 01:00 came twice that night: 05:00 and 06:00 UTC
        ("2024-11-04 06:00", "2024-11-03 05:00", "2024-11-04 06:00"),
    ],
)
def test_due_slots(now: str, last: str, slot: str | None) -> None:
    due = due_runs(at(now), {"daily": at(last)}, (DAILY,))
    assert [run.slot for run in due] == ([at(slot)] if slot else [])


def test_the_spring_gap_still_fires_once() -> None:
    gap = Entry("gap", "30 2 * * *", "quick", "30m", "America/New_York")  # 02:30 does not exist on 2024-03-10
    slots = [next_slot(gap, at("2024-03-10 00:00"))]
    slots.append(next_slot(gap, slots[0]))
    assert [s.date().day for s in slots] == [10, 11]


def test_a_new_entry_waits_for_its_next_slot() -> None:
    assert due_runs(at("2024-03-09 12:00"), {}, (DAILY, SATURDAY)) == []


def test_the_same_slot_has_the_same_submission_id() -> None:
    run = DueRun(DAILY, at("2024-03-05 06:00"))
    assert run.submission_id == "daily-20240305T0600"
    assert (
        due_runs(at("2024-03-05 09:00"), {"daily": at("2024-03-04 06:00")}, (DAILY,))[0].submission_id
        == run.submission_id
    )


def test_a_run_that_could_not_be_submitted_stays_due() -> None:
    last = {"daily": at("2024-03-04 06:00")}

    def refuse(_: DueRun) -> None:
        raise ClusterError("the head is away")

    assert run_once(at("2024-03-05 06:01"), last, (DAILY,), refuse) == last
    submitted: list[str] = []
    after = run_once(at("2024-03-05 06:02"), last, (DAILY,), lambda run: submitted.append(run.submission_id))
    assert (submitted, after) == (["daily-20240305T0600"], {"daily": at("2024-03-05 06:00")})


@pytest.mark.parametrize(
    "line", ["{ cron: '0 1 * *', preset: quick, budget: 1m }", "{ cron: '0 1 * * *', presset: quick }"]
)
def test_a_bad_timetable_names_the_run(tmp_path: Path, line: str) -> None:
    path = tmp_path / "schedule.yaml"
    path.write_text(f"zone: UTC\nruns:\n  nightly: {line}\n")
    with pytest.raises(ConfigError, match="nightly"):
        load_timetable(path)
