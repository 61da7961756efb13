"""What the tests run in a session's process: a session over a simulated terminal that can be told to misbehave."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from market.broker_clock import BrokerClock
from mt5_actor_windows.feeds import SimulatedFeed
from mt5_actor_windows.session import Mt5Session
from mt5_actor_windows.simulated_market import SimulatedMarket
from mt5_actor_windows.simulated_terminal import SimulatedTerminal
from mt5_actor_windows.terminal_faults import Faults


def make(given: str) -> Mt5Session:
    """`given`: {"now": ISO time, "wedged": a file; while it exists copy_rates_range holds the GIL for good}."""
    told: dict[str, Any] = json.loads(given)
    moment, clock = datetime.fromisoformat(told["now"]), BrokerClock("new_york")
    feed = SimulatedFeed(SimulatedMarket(5), ("EURUSD", "USDJPY"), clock)
    faults = Faults(wedged={"copy_rates_range"} if Path(told["wedged"]).exists() else set())
    terminal = SimulatedTerminal(feed, clock, lambda: moment, faults=faults)
    print("a library that prints on standard output")
    return Mt5Session(lambda: terminal, clock, lambda: moment)
