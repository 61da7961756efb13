"""The spool: what it took is there after any crash, and what it did not write is not believed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from actors.forecast_spool import ForecastSpool, SpoolFull
from tests.actors.test_prediction_ledger import HOUR, START, forecast

WALL = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "ledger_spool.jsonl"


def filled(path: Path, n: int) -> ForecastSpool:
    spool = ForecastSpool(path, "a key")
    for i in range(1, n + 1):
        spool.add([forecast(START + i * HOUR)], WALL + i * HOUR, START + i * HOUR)
    return spool


def hours(spool: ForecastSpool) -> list[int]:
    return [int(waiting.body["as_of"][11:13]) for waiting in spool.first(99)]


def test_a_new_life_finds_what_waits_with_its_times_and_goes_on(path: Path) -> None:
    filled(path, 2)
    again = ForecastSpool(path, "a key")
    again.add([forecast(START + 3 * HOUR)], WALL, START)
    third = ForecastSpool(path, "a key")
    assert hours(third) == [1, 2, 3]
    assert third.refused == 0
    first = third.first(1)[0]
    assert (first.spooled_at, first.market_time) == ("2026-01-01T01:00:00Z", "2024-03-04T01:00:00Z")
    assert first.body == forecast(START + HOUR).record()


def test_the_file_is_emptied_with_the_last_that_was_written(path: Path) -> None:
    spool = filled(path, 3)
    spool.drop(2)
    assert hours(ForecastSpool(path, "a key")) == [1, 2, 3]  # the ledger knows two of them already
    spool.add([forecast(START + 4 * HOUR)], WALL, START)
    spool.drop(2)
    assert path.read_bytes() == b""
    spool.add([forecast(START + 5 * HOUR)], WALL, START)
    assert hours(ForecastSpool(path, "a key")) == [5]


def test_all_or_none_fit(path: Path) -> None:
    spool = ForecastSpool(path, "a key", limit=3)
    spool.add([forecast(START + HOUR), forecast(START + 2 * HOUR)], WALL, START)
    before = path.read_bytes()
    with pytest.raises(SpoolFull, match="2 of at most 3"):
        spool.add([forecast(START + 3 * HOUR), forecast(START + 4 * HOUR)], WALL, START)
    assert (len(spool), path.read_bytes()) == (2, before)


def test_a_write_that_the_disk_refused_leaves_no_half_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = filled(path, 1)
    before = path.read_bytes()

    def refuse(_: int) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="No space"):
            spool.add([forecast(START + 2 * HOUR)], WALL, START)
    assert (len(spool), path.read_bytes()) == (1, before)
    spool.add([forecast(START + 3 * HOUR)], WALL, START)
    assert hours(ForecastSpool(path, "a key")) == [1, 3]


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_a_line_that_a_crash_cut_is_gone_and_the_rest_is_not(path: Path, cut: int) -> None:
    filled(path, 3)
    path.write_bytes(path.read_bytes()[:-cut])
    again = ForecastSpool(path, "a key")
    assert (hours(again), again.refused) == ([1, 2], 0)
    again.add([forecast(START + 4 * HOUR)], WALL, START)
    assert hours(ForecastSpool(path, "a key")) == [1, 2, 4]


def earlier(lines: list[str]) -> list[str]:
    return [line.replace("2026-01-01T02", "2025-12-31T02") for line in lines]


def another_forecast(lines: list[str]) -> list[str]:
    said = json.loads(lines[1])
    said["forecast"]["last_close"] = 1.2
    return [lines[0], json.dumps(said), lines[2]]


@pytest.mark.parametrize(
    "forge",
    [
        earlier,
        another_forecast,
        lambda lines: [lines[0], lines[2], lines[1]],
        lambda lines: [lines[0], lines[2]],
        lambda lines: [lines[0], "{", *lines[1:]],
        lambda lines: [lines[0], "[]", *lines[1:]],
        lambda lines: [lines[0], lines[0], *lines[1:]],
    ],
)
def test_nothing_is_believed_from_the_first_forged_line_on(path: Path, forge: Callable[[list[str]], list[str]]) -> None:
    filled(path, 3)
    forged = forge(path.read_text().splitlines())
    path.write_text("".join(line + "\n" for line in forged))
    again = ForecastSpool(path, "a key")
    assert (hours(again), again.refused) == ([1], len(forged) - 1)
    assert path.with_suffix(".refused").read_text().splitlines() == forged[1:]  # kept, for whoever looks into it
    assert ForecastSpool(path, "a key").refused == 0


def test_lines_of_another_key_are_not_believed(path: Path) -> None:
    filled(path, 2)
    assert hours(ForecastSpool(path, "other")) == []
