"""What the benchmark of three machines makes of answers and stored bars, without one of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from benchmarks.bar_audit import Audit
from benchmarks.node_faults import FAULTS
from benchmarks.nodes import BEGIN, END, fault_of, judge, section
from benchmarks.placed_section import placed
from benchmarks.private_installation import chosen
from market.errors import InputError
from market.market_clock import MarketClock

TUESDAY = datetime(2026, 11, 24, 12, tzinfo=UTC)
CLOCK = MarketClock(
    1000.0, TUESDAY.timestamp(), 600
)  # ten market minutes a second: late 15 s + 60 market seconds after due
CLOSES = {("EURUSD", TUESDAY): 1.1}
CLEAN = Audit(bars=100, lost=0, doubled=0, other=0)


def line(at: float, **other: Any) -> dict[str, Any]:
    told = {"symbol": "EURUSD", "as_of": "2026-11-24T12:00:00Z", "last_close": 1.1, "stale": False} | other
    return {"at": at, "seconds": 0.1, "kind": "ok", "forecast": told}


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (line(1003), ""),
        (line(1022), ""),  # 6 s until it is due, 15.1 s of grace, a second for the clocks
        (line(1023), "not called stale"),
        (line(1023, stale=True), ""),
        (line(1003, as_of="2026-11-24T13:00:00Z"), "was told at"),  # 29 minutes before it
        (line(1003, last_close=1.2), "closed at 1.1, not 1.2"),
        (line(1003, symbol="GBPUSD"), "closed at None"),
        ({"at": 1003, "seconds": 0.1, "kind": "ok"}, ""),
    ],
)
def test_a_wrong_answer_is_known_by_the_clock_and_the_market(told: dict[str, Any], why: str) -> None:
    found = fault_of(told, CLOCK, CLOSES)
    assert why in found
    assert bool(found) == bool(why)


@pytest.mark.parametrize(
    ("change", "ok"),
    [
        ({}, True),
        ({"healed": None}, False),
        ({"wrong": ["late"]}, False),
        ({"audit": Audit(100, 1, 0, 0)}, False),
        ({"audit": Audit(100, 0, 1, 0)}, False),
        ({"audit": Audit(100, 0, 0, 1)}, False),
        ({"audit": Audit(0, 0, 0, 0)}, False),
        ({"told": [line(1), {"at": 2.0, "seconds": 0.5, "kind": "ConnectError"}]}, False),  # none may fail
        ({"told": []}, False),
    ],
)
def test_what_is_as_expected(change: dict[str, Any], ok: bool) -> None:
    [fault] = chosen(FAULTS, "worker_cut")
    given: dict[str, Any] = {"told": [line(1), line(2)], "healed": 9.96, "wrong": [], "audit": CLEAN} | change
    seen = judge(fault, began=0.0, proof="seen", load=1.0, **given)
    assert seen.ok is ok
    assert seen.heal_s == (None if "healed" in change else 10.0)


def test_gets_may_fail_for_as_long_as_is_said() -> None:
    [fault] = chosen(FAULTS, "redis_killed")
    refused = {"at": 5.0, "seconds": 0.5, "kind": "ConnectError"}
    given: dict[str, Any] = {"healed": 1.0, "wrong": [], "audit": CLEAN, "proof": "", "load": 1.0}
    assert judge(fault, [line(1), refused], 0.0, **given).ok
    assert not judge(fault, [line(1), refused | {"at": fault.out_s}], 0.0, **given).ok


def test_the_section_goes_between_its_markers_and_keeps_other_rows() -> None:
    [first], [second] = chosen(FAULTS, "worker_cut"), chosen(FAULTS, "mt5_cut")
    given: dict[str, Any] = {"wrong": [], "audit": CLEAN, "proof": "known as dead", "load": 1.0}
    told = section([judge(first, [line(1)], 0.0, 9.9, **given)], "lstmc bench nodes --seconds 20", 5, TUESDAY)
    assert "| 1 | 0 | 0 s | 9.9 s | 0 | 0 | 0 | known as dead | 1 | as expected |" in told
    page = placed("# Reliability\n", told) + "\nAfter.\n"
    assert page.startswith("# Reliability\n\n" + BEGIN)
    for healed in (None, 8.8):
        seen = judge(second, [line(1)], 0.0, healed, **given)
        page = placed(page, section([seen], "lstmc bench nodes --seconds 20", 5, TUESDAY, page))
    assert [page.count(text) for text in (BEGIN, END, "9.9 s", "8.8 s", first.title, second.title)] == [1] * 6
    assert page.endswith("\nAfter.\n")


def test_an_unknown_fault_is_named() -> None:
    with pytest.raises(InputError, match="no fault 'flood'"):
        chosen(FAULTS, "flood")
