"""The simulated terminal answers as the real MetaTrader5 wheel does on Windows Python, row by row of one table."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from market.broker_clock import BrokerClock
from mt5_actor_windows.feeds import SimulatedFeed
from mt5_actor_windows.simulated_market import SimulatedMarket
from mt5_actor_windows.simulated_terminal import SimulatedTerminal
from mt5_actor_windows.terminal_faults import Faults
from tests.windows.contract_runner import answers, surface
from tests.windows.contract_table import table
from tests.windows.wine_lab import WineLab

RUNNER = Path(__file__).with_name("contract_runner.py")
ROWS = table()
CALLS = [[function, arguments] for function, arguments, _ in ROWS]
# What moves money is not simulated: there is nothing to learn from it here.
NOT_SIMULATED = {"order_calc_margin", "order_calc_profit", "order_check", "order_send", "Buy", "Sell", "Close"}


@pytest.fixture
def simulated() -> SimulatedTerminal:
    """A host on which no terminal is installed."""
    clock = BrokerClock("new_york")
    feed = SimulatedFeed(SimulatedMarket(5), ("EURUSD",), clock)
    moment = datetime(2022, 3, 16, 14, 37, tzinfo=UTC)
    return SimulatedTerminal(feed, clock, lambda: moment, faults=Faults(installed=False))


@pytest.fixture(scope="session")
def real(windows: WineLab) -> dict[str, Any]:
    """The table, answered by the real wheel."""
    said = windows.run(f"Z:{RUNNER}", stdin=json.dumps(CALLS).encode(), TZ="UTC")
    found: dict[str, Any] = json.loads(said)
    return found


def kind(answer: dict[str, Any]) -> str:
    code = answer["last_error"][0]
    if "returns" in answer:
        return f"{answer['returns']} {code}"
    raised = answer["raises"].split(":")[0]
    return raised if answer["cause"] is None else f"{raised} {answer['cause'].split(':')[0]} {code}"


def differing(found: list[dict[str, Any]]) -> list[str]:
    told = zip(ROWS, found, strict=True)
    return [f"{f}({a}): {kind(one)}, not {expected}" for (f, a, expected), one in told if kind(one) != expected]


def test_the_table_says_what_the_real_wheel_answers(real: dict[str, Any]) -> None:
    assert differing(real["answers"]) == []
    assert len(ROWS) > 900


def test_the_simulator_answers_as_the_table_says(simulated: SimulatedTerminal) -> None:
    assert differing(answers(simulated, CALLS)) == []


def test_every_answer_is_the_same_to_the_letter(real: dict[str, Any], simulated: SimulatedTerminal) -> None:
    """Values, types, texts of errors and of their causes."""
    told = zip(CALLS, answers(simulated, CALLS), real["answers"], strict=True)
    assert [(call, ours, theirs) for call, ours, theirs in told if ours != theirs] == []


def test_names_constants_and_structs_are_the_same(real: dict[str, Any], simulated: SimulatedTerminal) -> None:
    ours, theirs = json.loads(json.dumps(surface(simulated))), real["surface"]
    assert ours["constants"] == theirs["constants"]
    assert len(ours["constants"]) == 223
    assert ours["structs"] == theirs["structs"]
    assert len(ours["structs"]) == 11
    assert set(theirs["functions"]) - set(ours["functions"]) == NOT_SIMULATED
    assert set(ours["functions"]) <= set(theirs["functions"])
    assert (ours["fresh_last_error"], ours["fresh_version"]) == (theirs["fresh_last_error"], theirs["fresh_version"])


def test_the_table_covers_every_simulated_function(simulated: SimulatedTerminal) -> None:
    assert set(surface(simulated)["functions"]) == {function for function, _, _ in ROWS}
