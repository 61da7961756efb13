"""What can go wrong with a terminal, on demand: a SimulatedTerminal looks here before and after every answer.

Deterministic: faults are set, counted down and cleared by whoever holds the object. Nothing is wrong by default.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from market.market_clock import is_open
from mt5_actor_windows.feeds import RATES, Quote


def hang() -> None:
    """Never returns, and keeps the GIL as MetaTrader5's own calls do: no other thread of the process runs on."""
    if sys.platform == "win32":
        ctypes.PyDLL("kernel32").Sleep(-1)
    else:
        ctypes.PyDLL(None).sleep(2**31 - 1)


@dataclass
class Faults:
    """Faults in force. Function names are MetaTrader5's."""

    installed: bool = True  # False: `initialize` finds no terminal
    wedged: set[str] = field(default_factory=set)  # calls of these functions do not return
    hang: Callable[[], None] = hang
    silent: dict[str, int] = field(default_factory=dict)  # so many more calls answer None and (1, "Success")
    unreachable: int = 0  # the terminal restarts: so many more calls find no connection
    partial: int = 0  # so many first answers per symbol and timeframe hold only the newest half
    suffix: str | None = None  # the broker has renamed its symbols
    account: tuple[int, str] | None = None  # somebody logged in to another account
    frozen_at: datetime | None = None  # no tick has come since
    weekend_ticks: bool = False  # the broker quotes while the market is closed
    revised: dict[tuple[str, str, int], float] = field(default_factory=dict)  # (code, "H1", UTC open) -> close +=
    _given: dict[tuple[str, str], int] = field(default_factory=dict)

    def is_silent(self, function: str) -> bool:
        left = self.silent.get(function, 0)
        self.silent[function] = max(left - 1, 0)
        return left > 0

    def loses_connection(self) -> bool:
        lost = self.unreachable > 0
        self.unreachable = max(self.unreachable - 1, 0)
        return lost

    def seen(self, code: str, timeframe: str, rates: np.ndarray) -> np.ndarray:
        """UTC rates as this terminal shows them: revised, and at first not yet wholly downloaded."""
        shown = self._revise(code, timeframe, rates)
        before = self._given.get((code, timeframe), 0)
        self._given[code, timeframe] = before + 1
        return shown[len(shown) // 2 :] if before < self.partial else shown

    def _revise(self, code: str, timeframe: str, rates: np.ndarray) -> np.ndarray:
        for (its_code, its_timeframe, opened), change in self.revised.items():
            if (its_code, its_timeframe) == (code, timeframe):
                rates = rates.copy()
                at = rates["time"] == opened
                rates["close"][at] += change
                rates["high"][at] = np.maximum(rates["high"][at], rates["close"][at])
                rates["low"][at] = np.minimum(rates["low"][at], rates["close"][at])
        return rates.astype(RATES, copy=False)

    def quoted(self, last: Quote | None, now: float) -> Quote | None:
        """The last quote, or one of those that a broker's test of its servers makes on a Saturday."""
        closed = last is not None and not is_open(datetime.fromtimestamp(now, UTC))
        return Quote(now, last.bid * 1.01, last.spread * 20) if self.weekend_ticks and closed and last else last
