"""Bars that nothing held confirms: the newest ones decide whether they are revised, new, or another clock's."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.clock_guard import ClockGuard
from market.bars import bars_from_columns
from market.calendar import expected_opens
from market.errors import ClockDisagrees, UnknownSymbol
from market.timeframes import Timeframe

KEY = ("EURUSD", "H1")
WEDNESDAY = datetime(2024, 3, 13, 12, tzinfo=UTC)
OPENS = expected_opens(Timeframe.H1, WEDNESDAY - timedelta(days=12), WEDNESDAY)
HELD = len(OPENS) - 3  # the last three are not stored yet


class Terminal:
    """All bars, told some hours off; `account` makes other prices."""

    def __init__(self, hours: int = 0, account: int = 1) -> None:
        close = 1.1 + np.random.default_rng(account).normal(0, 1e-3, len(OPENS))
        told = OPENS + np.timedelta64(hours * 3600, "s")
        high, low = close + 0.01, close - 0.01
        self.bars = bars_from_columns("EURUSD", Timeframe.H1, told, close, high, low, close, received_at=WEDNESDAY)
        self.asked = 0

    def closed_bars(self, symbol: str, timeframe: str, since: datetime, until: datetime | None) -> pa.Table:
        self.asked += 1
        return self.bars.filter(
            pa.compute.greater(self.bars["close_time"], pa.scalar(since, pa.timestamp("us", "UTC")))
        )


def held() -> pa.Table:
    return Terminal().bars.slice(0, HELD)


def check(terminal: Any, answer: pa.Table) -> None:
    ClockGuard().check_bars(KEY, answer, held(), terminal, live=True)


@pytest.mark.parametrize("hours", [-1, 1, -2])
def test_one_bar_alone_of_a_slipped_clock_is_refused(hours: int) -> None:
    """It is held at no hour, so that only a longer answer shows the slip."""
    terminal = Terminal(hours)
    alone = terminal.bars.slice(len(OPENS) - 1)
    with pytest.raises(ClockDisagrees, match=re.escape(f"{hours:+d} h from where the stored bars have it")):
        check(terminal, alone)


def test_new_bars_alone_are_believed_after_one_more_question() -> None:
    terminal = Terminal()
    check(terminal, terminal.bars.slice(HELD))
    assert terminal.asked == 1
    check(terminal, terminal.bars.slice(HELD - 1))
    assert terminal.asked == 1, "the last one held came again as it is"


def test_revised_bars_alone_are_believed_and_another_account_is_not() -> None:
    revised = Terminal(account=2).bars.slice(HELD - 2, 2)
    check(Terminal(), revised)
    with pytest.raises(ClockDisagrees, match="Not one of the newest bars"):
        check(Terminal(account=2), revised)
    guard, terminal = ClockGuard(), Terminal()
    guard.check_old_bars(KEY, Terminal(account=2).bars.slice(20, 30), held(), held(), terminal, live=True)
    assert (terminal.asked, guard.problem) == (1, "")


@pytest.mark.parametrize(("hours", "account"), [(1, 1), (-1, 1), (0, 2)])
def test_the_first_bars_of_a_series_are_vouched_for_by_another(hours: int, account: int) -> None:
    """Nothing is held of it that could tell, but the same source's other series can."""
    first, new = Terminal(hours, account).bars.slice(HELD, 1), ("USDJPY", "H1")
    nothing = held().slice(0, 0)

    def look(terminal: Terminal) -> None:
        ClockGuard().check_bars(new, first, nothing, terminal, live=True, witness=(KEY, held()))

    look(Terminal())
    with pytest.raises(ClockDisagrees, match="EURUSD/H1"):
        look(Terminal(hours, account))
    ClockGuard().check_bars(new, first, nothing, Terminal(hours, account), live=True)


def test_a_witness_that_is_no_longer_offered_holds_up_nothing() -> None:
    class Without:
        def closed_bars(self, *_: Any) -> pa.Table:
            raise UnknownSymbol("This account does not offer EURUSD.", hint="Others.")

    answer = Terminal().bars.slice(HELD, 1)
    nothing = held().slice(0, 0)
    ClockGuard().check_bars(("USDJPY", "H1"), answer, nothing, Without(), live=True, witness=(KEY, held()))  # type: ignore[arg-type]
