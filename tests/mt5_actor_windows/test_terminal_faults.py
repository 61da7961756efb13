"""What a terminal does wrong never becomes a wrong bar, nor "no bars": the session waits, refuses or says why."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from market.errors import NotConnected, TerminalError, UnknownSymbol
from mt5_actor_windows.session import Account, Mt5Session
from mt5_actor_windows.terminal_faults import Faults

Make = Callable[..., Any]
SINCE = datetime(2022, 3, 15, tzinfo=UTC)


class Fixture:
    """A session over a terminal whose faults can be set, on hand-set clocks."""

    def __init__(self, simulated: Make, **options: Any) -> None:
        self.faults, self.seconds, self.pauses = Faults(), 0.0, list[float]()
        self.stand = simulated(faults=self.faults)
        self.session = Mt5Session(
            lambda: self.stand.terminal,
            self.stand.broker,
            self.stand.clock,
            **{"monotonic": lambda: self.seconds, "pause": self.pauses.append, "jitter": lambda: 0.5} | options,
        )

    def bars(self, since: datetime = SINCE) -> list[tuple[Any, ...]]:
        table = self.session.closed_bars("EURUSD", "H1", since).drop_columns(["received_at"])
        return [tuple(row.values()) for row in table.to_pylist()]


@pytest.fixture
def broken(simulated: Make) -> Callable[..., Fixture]:
    return lambda **options: Fixture(simulated, **options)


def test_history_that_is_still_loading_is_asked_for_until_it_stands(broken: Callable[..., Fixture]) -> None:
    whole = broken().bars()
    loading = broken(loading_seconds=0.5)
    loading.faults.partial = 3
    assert loading.bars() == whole
    assert loading.pauses == [0.5] * 4, "three short answers alike are not believed, two whole ones are"
    loading.pauses.clear()
    assert loading.bars() == whole
    assert loading.pauses == [], "what stood once is not asked for twice"


def test_history_that_never_stands_is_an_error(broken: Callable[..., Fixture]) -> None:
    loading = broken()
    shown = [24, 20, 16, 12, 8] * 5  # it grows, is cut, grows again

    def unsteady(code: str, timeframe: str, rates: Any) -> Any:
        return rates[shown.pop() :]

    loading.faults.seen = unsteady  # type: ignore[method-assign]
    with pytest.raises(NotConnected, match="still loading the history of EURUSD H1"):
        loading.bars()


@pytest.mark.parametrize("function", ["copy_rates_range", "symbol_select", "symbols_get", "account_info"])
def test_no_answer_and_no_reason_is_asked_again_then_an_error(broken: Callable[..., Fixture], function: str) -> None:
    whole, silent = broken().bars(), broken()
    silent.faults.silent[function] = 2
    assert silent.bars() == whole
    mute = broken()
    mute.faults.silent[function] = 99
    with pytest.raises(TerminalError, match=f"{function} gave no answer and no reason"):
        mute.bars()


def test_a_price_without_an_answer_is_unknown(broken: Callable[..., Fixture]) -> None:
    silent = broken()
    silent.faults.silent["symbol_info_tick"] = 3
    price, other = silent.session.prices(["EURUSD", "USDJPY"])
    assert price["bid"] is None
    assert "no answer and no reason" in price["reason"]
    assert other["bid"] is not None


def test_a_restarted_terminal_is_taken_up_again_and_nothing_is_lost(broken: Callable[..., Fixture]) -> None:
    restarted = broken()
    before = restarted.bars()
    restarted.faults.unreachable = 3
    for wait in (0.0, 1.0, 2.0):
        restarted.seconds += wait
        with pytest.raises(NotConnected, match=r"-1000[34]"):
            restarted.bars()
        with pytest.raises(NotConnected, match="tried again by itself"):
            restarted.bars()  # inside the backoff the terminal is left alone
    restarted.stand.clock.pass_by(hours=3)
    restarted.seconds += 5.0
    after = restarted.bars()
    assert after[: len(before)] == before
    assert len(after) == len(before) + 3


def test_renamed_symbols_are_found_under_their_new_name(broken: Callable[..., Fixture]) -> None:
    renamed = broken()
    before = renamed.bars()
    renamed.faults.suffix = ".a"
    assert renamed.bars() == before
    assert renamed.session.prices(["EURUSD"])[0]["bid"] is not None
    assert renamed.session.health()["names"] == {"EURUSD": "EURUSD.a", "USDJPY": "USDJPY.a"}
    renamed.faults.suffix = "_unlike_any"
    with pytest.raises(UnknownSymbol, match="does not offer EURUSD"):
        renamed.bars()


def test_another_account_is_quarantined_until_ours_is_back(broken: Callable[..., Fixture]) -> None:
    switched = broken()
    before = switched.bars()
    switched.faults.account = (2, "Other-Live")
    for read in (switched.bars, lambda: switched.session.prices(["EURUSD"])):
        with pytest.raises(NotConnected, match="Another account answered: login 2, not 1"):
            read()
        switched.seconds += 100.0
    health = switched.session.health()
    assert (health["connected"], health["account"], health["server"]) == (False, 2, "Other-Live")
    assert health["quarantine"] == "Another account answered: login 2, not 1."
    switched.faults.account = None
    switched.seconds += 100.0
    assert switched.bars() == before
    assert switched.session.health()["quarantine"] == ""


def test_a_switch_while_reading_gives_nothing(broken: Callable[..., Fixture]) -> None:
    switched = broken(account=Account(login=1))
    seen = switched.faults.seen

    def switch(*asked: Any) -> Any:
        switched.faults.account = (1, "Twin-Live")
        return seen(*asked)

    switched.bars()
    switched.faults.seen = switch  # type: ignore[method-assign]
    with pytest.raises(NotConnected, match="server Twin-Live, not Simulated-Demo"):
        switched.bars()


def test_quotes_of_a_closed_market_are_no_prices(broken: Callable[..., Fixture]) -> None:
    weekend = broken()
    weekend.stand.clock.now = datetime(2022, 3, 19, 12, tzinfo=UTC)
    (friday,) = weekend.session.prices(["EURUSD"])
    weekend.faults.weekend_ticks = True
    (price,) = weekend.session.prices(["EURUSD"])
    assert friday["bid"] is not None
    assert (price["bid"], price["reason"]) == (None, "Quoted while the market is closed.")


def test_a_revised_bar_is_read_as_it_is_now(broken: Callable[..., Fixture]) -> None:
    revised = broken()
    before = revised.session.closed_bars("EURUSD", "H1", SINCE)
    opened = before["open_time"][3].as_py()
    revised.faults.revised["EURUSD", "H1", int(opened.timestamp())] = 0.5
    after = revised.session.closed_bars("EURUSD", "H1", SINCE)
    changed = [n for n in range(before.num_rows) if before["close"][n] != after["close"][n]]
    assert changed == [3]
    assert after["close"][3].as_py() == before["close"][3].as_py() + 0.5 == after["high"][3].as_py()


def test_a_frozen_feed_closes_no_bar(broken: Callable[..., Fixture]) -> None:
    """At 15:05 the hour 14:00 looks closed, but its last tick came at 14:20: its other ticks are still to come."""
    frozen = broken()
    frozen.faults.frozen_at = datetime(2022, 3, 16, 14, 20, tzinfo=UTC)
    frozen.stand.clock.now = datetime(2022, 3, 16, 15, 5, tzinfo=UTC)
    last_open = frozen.stand.clock.now.replace(hour=14, minute=0)
    assert frozen.bars()[-1][3] == last_open, "the close of the last whole hour"
    health = frozen.session.health()
    assert (health["connected"], health["reason"]) == (False, "No tick for 2700 s although the market is open.")
    frozen.faults.frozen_at = None
    thawed = frozen.bars()[-1]
    assert thawed[2] == last_open
    assert frozen.session.health()["connected"] is True


def test_the_weeks_last_bar_needs_no_tick_after_it(broken: Callable[..., Fixture]) -> None:
    ended = broken()
    ended.stand.clock.now = datetime(2022, 3, 18, 21, 5, tzinfo=UTC)
    ended.faults.frozen_at = datetime(2022, 3, 18, 20, 59, 50, tzinfo=UTC)
    assert ended.bars()[-1][3] == datetime(2022, 3, 18, 21, tzinfo=UTC)


def test_a_wedged_call_is_left_behind(broken: Callable[..., Fixture]) -> None:
    release = threading.Event()
    wedged = broken(deadline_seconds=0.2)
    wedged.bars()
    wedged.faults.hang, wedged.faults.wedged = lambda: release.wait(10), {"copy_rates_range"}
    with pytest.raises(NotConnected, match=r"did not answer within 0\.2 s"):
        wedged.bars()
    with pytest.raises(NotConnected, match="not answered an earlier call"):
        wedged.session.prices(["EURUSD"])
    assert wedged.session.health()["connected"] is False
    wedged.faults.wedged.clear()
    release.set()


def test_attempts_are_spread(broken: Callable[..., Fixture]) -> None:
    """Several hosts that lost one broker do not come back in step."""
    jitters = iter([0.0, 0.999])
    shaken = broken(jitter=lambda: next(jitters))
    shaken.faults.unreachable = 2
    with pytest.raises(NotConnected):
        shaken.bars()
    shaken.seconds += 0.79
    with pytest.raises(NotConnected, match="tried again"):
        shaken.bars()
    shaken.seconds += 0.02
    with pytest.raises(NotConnected, match="-10003"):
        shaken.bars()
    shaken.seconds += timedelta(seconds=2 * 1.19).total_seconds()
    with pytest.raises(NotConnected, match="tried again"):
        shaken.bars()
    shaken.seconds += 0.1
    assert shaken.bars()
