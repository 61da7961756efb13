"""Slots of the timetable over daylight saving time, and what a bad file is told."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from actors.timetable import Entry, load_timetable, next_slot, of_installation
from market.errors import ConfigError


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_shipped_timetable() -> None:
    table = {entry.name: entry for entry in load_timetable()}
    assert {(e.name, e.preset, e.budget) for e in table.values()} == {
        ("daily", "quick", "30m"),
        ("weekly", "full", "4h"),
        ("m15", "m15", "15m"),
        ("drift", "quick", "30m"),
    }
    assert next_slot(table["weekly"], at("2024-03-04")) == at("2024-03-09 07:00")  # Saturday 02:00 New York, winter
    assert [entry.name for entry in of_installation(load_timetable(), ("H1",))] == ["daily", "weekly"]


def test_the_spring_gap_still_fires_once() -> None:
    gap = Entry("gap", "30 2 * * *", "quick", "30m", "America/New_York")  # 02:30 does not exist on 2024-03-10
    slots = [next_slot(gap, at("2024-03-10 00:00"))]
    slots.append(next_slot(gap, slots[0]))
    assert [s.date().day for s in slots] == [10, 11]


@pytest.mark.parametrize(
    "line",
    [
        "{ cron: '0 1 * *', preset: quick, budget: 1m }",
        "{ cron: '0 1 * * *', preset: quick }",
        "{ cron: '0 1 * * *', preset: quick, budget: soon }",
        "{ cron: '0 1 * * *', preset: quickest, budget: 1m }",
        "{ cron: '0 1 * * *', preset: quick, budget: 1m, timeframe: H3 }",
    ],
)
def test_a_bad_timetable_names_the_run(tmp_path: Path, line: str) -> None:
    path = tmp_path / "schedule.yaml"
    path.write_text(f"zone: UTC\nruns:\n  nightly: {line}\n")
    with pytest.raises(ConfigError, match="nightly"):
        load_timetable(path)


def test_a_zone_that_does_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "schedule.yaml"
    path.write_text("zone: Mars/Base\nruns:\n  nightly: { cron: '0 1 * * *', preset: quick, budget: 1m }\n")
    with pytest.raises(ConfigError, match="Mars"):
        load_timetable(path)
