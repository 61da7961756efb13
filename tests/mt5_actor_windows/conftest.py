"""A terminal on a hand-set clock, over a small simulated market or over recorded bars made here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from market.bar_files import RecordedBars
from market.bars import QUARANTINE_SCHEMA, bars_from_columns
from market.broker_clock import BrokerClock
from market.timeframes import Timeframe
from mt5_actor_windows.feeds import RecordedFeed, SimulatedFeed
from mt5_actor_windows.simulated_market import SimulatedMarket
from mt5_actor_windows.simulated_terminal import SimulatedTerminal

START = datetime(2022, 3, 16, 14, 37, 50, tzinfo=UTC)  # US DST has begun, the EU's not yet


@dataclass
class HandClock:
    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, **span: float) -> None:
        self.now += timedelta(**span)


@dataclass
class Stand:
    """A terminal and what it stands on."""

    terminal: SimulatedTerminal
    clock: HandClock
    broker: BrokerClock = field(default_factory=lambda: BrokerClock("new_york"))


@pytest.fixture(scope="session")
def market() -> SimulatedMarket:
    return SimulatedMarket(5)


@pytest.fixture
def simulated(market: SimulatedMarket) -> Callable[..., Stand]:
    def make(rule: str = "new_york", codes: tuple[str, ...] = ("EURUSD", "USDJPY"), **options: object) -> Stand:
        clock, broker = HandClock(), BrokerClock(rule)
        terminal = SimulatedTerminal(SimulatedFeed(market, codes, broker), broker, clock, **options)  # type: ignore[arg-type]
        return Stand(terminal, clock, broker)

    return make


@pytest.fixture
def recorded() -> Stand:
    """Ten days of EURUSD H1; the bar that opens at hour i has open 1 + i/1000, high +0.5, low -0.5, close +0.1."""
    opened = np.datetime64("2022-03-14", "s") + np.arange(96) * np.timedelta64(1, "h")
    price = 1 + np.arange(96) / 1000
    bars = bars_from_columns(
        "EURUSD", Timeframe.H1, opened, price, price + 0.5, price - 0.5, price + 0.1, received_at=START
    )
    one = RecordedBars("EURUSD", Timeframe.H1, bars, QUARANTINE_SCHEMA.empty_table(), {})
    stand_clock, broker = HandClock(), BrokerClock("new_york")
    return Stand(SimulatedTerminal(RecordedFeed([one], broker), broker, stand_clock), stand_clock, broker)
