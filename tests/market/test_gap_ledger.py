"""Holes by their evidence: unfetched until answered twice, no_tick when the ticks say so, closed when nobody traded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from market.bar_store import BarStore
from market.bars import bars_from_columns
from market.calendar import expected_opens
from market.coverage import Coverage
from market.gap_ledger import classifier, ledger, on_holiday, panel_of, to_ask
from market.timeframes import Timeframe

KEY = ("EURUSD", "H1")
SINCE, UNTIL = datetime(2024, 12, 20, tzinfo=UTC), datetime(2024, 12, 28, tzinfo=UTC)
NOW = datetime(2025, 1, 2, tzinfo=UTC)
grid = expected_opens(Timeframe.H1, SINCE, UNTIL)
christmas = (grid >= np.datetime64("2024-12-24T20")) & (grid < np.datetime64("2024-12-25T23"))


def answered(times: int, *symbols: str) -> Coverage:
    coverage = Coverage()
    for symbol in symbols:
        for n in range(times):
            coverage.answered((symbol, "H1"), SINCE, UNTIL, NOW + n * timedelta(hours=1), grew=False)
    return coverage


@pytest.mark.parametrize(("times", "kind"), [(0, "unfetched"), (1, "unfetched"), (2, "missing"), (4, "missing")])
def test_one_answer_is_not_enough(times: int, kind: str) -> None:
    assert set(classifier(KEY, answered(times, "EURUSD"))(grid)) == {kind}


def test_silence_counts_only_with_answers() -> None:
    second = int(grid[3].astype(np.int64))
    for times, kind in ((1, "unfetched"), (2, "no_tick")):
        coverage = answered(times, "EURUSD")
        coverage.silent(KEY, [second], 3600)
        assert classifier(KEY, coverage)(grid)[3] == kind


def test_christmas_is_closed_when_nobody_traded_and_all_were_asked() -> None:
    panel = {"EURUSD": grid[~christmas], "USDJPY": grid[~christmas]}
    absent = grid[christmas]
    assert set(classifier(KEY, answered(2, "EURUSD", "USDJPY"), panel)(absent)) == {"closed"}
    assert set(classifier(KEY, answered(2, "EURUSD"), panel)(absent)) == {"missing"}, "the other was never asked"
    assert set(classifier(KEY, answered(2, "EURUSD"), {"EURUSD": panel["EURUSD"]})(absent)) == {"missing"}
    trading = panel | {"USDJPY": grid}
    assert set(classifier(KEY, answered(2, "EURUSD", "USDJPY"), trading)(absent)) == {"missing"}


def test_a_silent_panel_on_another_day_is_an_outage() -> None:
    out = (grid >= np.datetime64("2024-12-23T05")) & (grid < np.datetime64("2024-12-23T20"))
    panel = {"EURUSD": grid[~out], "USDJPY": grid[~out]}
    assert set(classifier(KEY, answered(2, "EURUSD", "USDJPY"), panel)(grid[out])) == {"missing"}


def test_one_silent_hour_on_christmas_eve_is_chance() -> None:
    eve = np.array(["2024-12-25T05"], "datetime64[s]")
    panel = {symbol: grid[grid != eve[0]] for symbol in ("EURUSD", "USDJPY")}
    assert classifier(KEY, answered(2, "EURUSD", "USDJPY"), panel)(eve).tolist() == ["missing"]


@pytest.mark.parametrize(
    ("first", "hours", "kind"),
    [
        ("2023-01-01T22", 2, "closed"),  # New Year on a Sunday: its last hours open the week
        ("2022-12-23T20", 2, "missing"),  # no holiday yet
        ("2021-12-24T19", 3, "closed"),  # Christmas Eve on a Friday: its first hours end the week
        ("2021-12-24T18", 2, "missing"),  # and trade went on after
        ("2023-01-02T00", 2, "missing"),
    ],
)
def test_what_a_weekend_leaves_of_a_holiday_is_closed_though_short(first: str, hours: int, kind: str) -> None:
    since = np.datetime64(first, "s")
    absent = since + np.arange(hours) * np.timedelta64(3600, "s")
    moment = since.astype(datetime).replace(tzinfo=UTC)
    opens = expected_opens(Timeframe.H1, moment - timedelta(days=9), moment + timedelta(days=9))
    panel = {symbol: opens[~np.isin(opens, absent)] for symbol in ("EURUSD", "USDJPY")}
    coverage = Coverage()
    for symbol in panel:
        for n in range(2):
            at = moment + timedelta(days=20, hours=n)
            coverage.answered((symbol, "H1"), moment - timedelta(days=9), moment + timedelta(days=9), at, grew=False)
    assert set(classifier(KEY, coverage, panel)(absent)) == {kind}


def test_the_spans_of_holidays() -> None:
    moments = np.array(
        ["2024-12-24T17:59", "2024-12-24T18:00", "2024-12-26T07:59", "2024-12-26T08:00", "2025-01-01T12:00"],
        "datetime64[s]",
    )
    assert on_holiday(moments).tolist() == [False, True, True, False, True]


def test_what_is_to_be_asked_joins_near_holes() -> None:
    held = np.delete(grid, [10, 12, 100])
    spans = to_ask(held, Coverage(), KEY, SINCE, UNTIL, fewer_than=2, join_bars=20)
    opens = [grid[i].astype(datetime).replace(tzinfo=UTC) for i in (10, 12, 100)]
    hour = timedelta(hours=1)
    assert spans == [(opens[0], opens[1] + hour), (opens[2], opens[2] + hour)]
    assert to_ask(held, answered(2, "EURUSD"), KEY, SINCE, UNTIL, fewer_than=2) == []


def test_the_ledger_of_a_store(tmp_path: Path) -> None:
    store = BarStore(tmp_path / "bars")
    hole = (grid >= np.datetime64("2024-12-23T05")) & (grid < np.datetime64("2024-12-23T08"))
    for symbol in ("EURUSD", "USDJPY"):
        opens = grid[~christmas & ~hole]
        price = np.ones(len(opens))
        store.append(bars_from_columns(symbol, Timeframe.H1, opens, price, price, price, price, received_at=NOW))
    panel = panel_of(store, ["EURUSD", "USDJPY", "GBPUSD"], "H1")
    found = ledger(store, answered(2, "EURUSD", "USDJPY"), KEY, panel)
    assert [(gap.kind, gap.bars) for gap in found] == [("missing", 3), ("closed", 27)]
    assert ledger(store, Coverage(), ("GBPUSD", "H1"), panel) == []
