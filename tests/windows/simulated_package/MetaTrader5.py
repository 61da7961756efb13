"""A simulated terminal under the MetaTrader5 package's name: with this folder on PYTHONPATH, market=mt5 reads it through
the product's own `real_terminal`, at the true time of day. While the file LSTMC_TEST_WEDGE exists, asking for a price hangs."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from market.broker_clock import BrokerClock
from mt5_actor_windows.feeds import SimulatedFeed
from mt5_actor_windows.simulated_market import SimulatedMarket
from mt5_actor_windows.simulated_terminal import SimulatedTerminal
from mt5_actor_windows.terminal_faults import Faults, hang

_wedge, _clock = Path(os.environ.get("LSTMC_TEST_WEDGE", "nowhere")), BrokerClock("new_york")
sys.modules[__name__] = SimulatedTerminal(  # type: ignore[assignment]
    SimulatedFeed(SimulatedMarket(5), ("EURUSD", "USDJPY"), _clock),
    _clock,
    lambda: datetime.now(UTC),
    faults=Faults(wedged={"symbol_info_tick"}, hang=lambda: hang() if _wedge.exists() else None),
)
