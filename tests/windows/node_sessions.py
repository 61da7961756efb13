"""The market's side of a Windows node, over a simulator that stands where the MetaTrader5 package would.

`python -m tests.windows.node_sessions` (on Windows Python): the product's session in its own process, behind the
product's data API. The first line on standard output is the port; ends when standard input does.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from market.broker_clock import BrokerClock
from mt5_actor_windows.feeds import SimulatedFeed
from mt5_actor_windows.session import Mt5Session, real_terminal
from mt5_actor_windows.session_process import SessionProcess
from mt5_actor_windows.simulated_market import SimulatedMarket
from mt5_actor_windows.simulated_terminal import SimulatedTerminal
from mt5_actor_windows.terminal_faults import Faults, hang

KEY = "a-key-for-this-test-only"


def make(given: str) -> Mt5Session:
    """`given`: {"now": ISO time, "wedged": a file; while it exists copy_rates_range never returns nor gives up the GIL}."""
    told: dict[str, Any] = json.loads(given)
    moment, clock = datetime.fromisoformat(told["now"]), BrokerClock("new_york")
    wedged = Path(told["wedged"])
    faults = Faults(wedged={"copy_rates_range"}, hang=lambda: hang() if wedged.exists() else None)
    feed = SimulatedFeed(SimulatedMarket(5), ("EURUSD", "USDJPY"), clock)
    sys.modules["MetaTrader5"] = SimulatedTerminal(feed, clock, lambda: moment, faults=faults)  # type: ignore[assignment]
    return Mt5Session(real_terminal, clock, lambda: moment)


def main(given: str) -> None:
    from mt5_actor_windows.admission import Admission
    from mt5_actor_windows.api_keys import PLAIN_VARIABLE, KeyRing
    from mt5_actor_windows.data_api import create_app
    from mt5_actor_windows.listening import serve_in_thread

    os.environ[PLAIN_VARIABLE] = KEY
    moment = datetime.fromisoformat(json.loads(given)["now"])
    passing = itertools.count(0.0, 1000.0)  # so that no test waits for a backoff
    session = SessionProcess(
        "tests.windows.node_sessions:make",
        given,
        now=lambda: moment,
        deadline_seconds=5.0,
        monotonic=lambda: next(passing),
    )
    session.prices(["EURUSD"])
    admission = Admission(KeyRing(Path("no-home")), per_minute=1200)
    api = serve_in_thread(create_app(session, admission), "127.0.0.1", 0)
    print(api.port, sys.platform, flush=True)
    sys.stdin.read()
    api.stop()
    session.close()


if __name__ == "__main__":
    main(sys.argv[1])
