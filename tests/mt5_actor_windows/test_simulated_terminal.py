"""The simulated terminal says what MetaTrader5 would: dtypes, None with last_error, positions, ranges, server time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest

from market.broker_clock import BrokerClock
from market.timeframes import Timeframe
from mt5_actor_windows.feeds import MAX_TICKS, RATES, TICKS, SimulatedFeed
from mt5_actor_windows.mt5_structs import SymbolInfo, Tick
from mt5_actor_windows.simulated_market import SimulatedMarket

Make = Callable[..., Any]
H1, D1, M1 = 16385, 16408, 1


def server(text: str) -> datetime:
    """A request date: the server's wall clock written as if it were UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def texts(rates: np.ndarray) -> list[str]:
    return [str(moment)[:16] for moment in rates["time"].astype("datetime64[s]")]


def test_before_initialize_everything_is_none(simulated: Make) -> None:
    terminal = simulated().terminal
    assert terminal.last_error() == (0, "")
    assert terminal.version() == (0, 0, "")
    for answer in (
        terminal.terminal_info(),
        terminal.account_info(),
        terminal.symbol_info("EURUSD"),
        terminal.symbol_info_tick("EURUSD"),
        terminal.copy_rates_from_pos("EURUSD", H1, 0, 1),
        terminal.copy_ticks_range("EURUSD", 0, 1, -1),
    ):
        assert answer is None
        assert terminal.last_error() == (-10004, "No IPC connection")
    assert terminal.symbol_select("EURUSD") is False
    assert terminal.shutdown() is True
    assert terminal.last_error() == (1, "Success")


def test_dtypes_are_the_packed_records(simulated: Make) -> None:
    terminal = simulated().terminal
    terminal.initialize()
    rates = terminal.copy_rates_from_pos("EURUSD", H1, 0, 3)
    ticks = terminal.copy_ticks_range("EURUSD", server("2022-03-16T17:00"), server("2022-03-16T17:10"), -1)
    assert rates.dtype == RATES
    assert ticks.dtype == TICKS
    assert (rates.dtype.itemsize, ticks.dtype.itemsize) == (60, 60)
    assert [RATES.fields[name][1] for name in RATES.names] == [0, 8, 16, 24, 32, 40, 48, 52]
    assert [TICKS.fields[name][1] for name in TICKS.names] == [0, 8, 16, 24, 32, 40, 48, 52]


def test_structs_are_tuples_with_names(simulated: Make) -> None:
    terminal = simulated().terminal
    terminal.initialize()
    terminal.symbol_select("EURUSD", True)
    tick, info = terminal.symbol_info_tick("EURUSD"), terminal.symbol_info("EURUSD")
    assert isinstance(tick, tuple)
    assert list(tick._asdict()) == ["time", "bid", "ask", "last", "volume", "time_msc", "flags", "volume_real"]
    assert len(info) == len(SymbolInfo.__match_args__) == 96
    assert not hasattr(tick, "_fields")
    assert not hasattr(tick, "_replace")
    assert tick[1] == tick.bid < tick.ask
    assert round((tick.ask - tick.bid) / info.point) == info.spread
    assert len(terminal.account_info()) == 28
    assert len(terminal.terminal_info()) == 22
    assert isinstance(tick, Tick)


def test_server_time_is_new_yorks_plus_seven_hours(simulated: Make) -> None:
    stand = simulated()  # 14:37:50 UTC is 10:37 in New York, in DST
    stand.terminal.initialize()
    stand.terminal.symbol_select("EURUSD", True)
    assert texts(stand.terminal.copy_rates_from_pos("EURUSD", H1, 0, 2)) == ["2022-03-16T16:00", "2022-03-16T17:00"]
    assert texts(stand.terminal.copy_rates_from_pos("EURUSD", D1, 0, 1)) == ["2022-03-16T00:00"]
    assert stand.terminal.symbol_info_tick("EURUSD").time == server("2022-03-16T17:37:45").timestamp()
    european = simulated("eu").terminal
    european.initialize()
    assert texts(european.copy_rates_from_pos("EURUSD", H1, 0, 1)) == ["2022-03-16T16:00"]


def test_position_0_is_forming_and_shows_nothing_of_the_future(simulated: Make) -> None:
    stand = simulated()
    stand.terminal.initialize()
    forming = stand.terminal.copy_rates_from_pos("EURUSD", H1, 0, 1)[0]
    stand.clock.pass_by(hours=1)
    closed, following = stand.terminal.copy_rates_from_pos("EURUSD", H1, 0, 2)
    assert (forming["time"], forming["open"]) == (closed["time"], closed["open"])
    assert forming["tick_volume"] < closed["tick_volume"]
    assert closed["low"] <= forming["low"] <= forming["high"] <= closed["high"]
    assert following["open"] == closed["close"]
    stand.clock.pass_by(days=-30)
    assert texts(stand.terminal.copy_rates_from_pos("EURUSD", H1, 0, 1)) == ["2022-02-14T17:00"]


def test_minutes_and_hours_tell_one_story(simulated: Make) -> None:
    terminal = simulated().terminal
    terminal.initialize()
    day = (server("2022-03-15T00:00"), server("2022-03-15T23:59:59"))
    minutes = terminal.copy_rates_range("EURUSD", M1, *day)
    hours = terminal.copy_rates_range("EURUSD", H1, *day)
    (whole,) = terminal.copy_rates_range("EURUSD", D1, *day)
    assert (len(minutes), len(hours)) == (1440, 24)
    assert (hours["open"] == minutes["open"][::60]).all()
    assert (hours["high"] == minutes["high"].reshape(24, 60).max(axis=1)).all()
    assert (whole["low"], whole["close"]) == (hours["low"].min(), hours["close"][-1])
    assert whole["tick_volume"] == minutes["tick_volume"].sum()


def test_ranges_are_inclusive_and_from_counts_back(simulated: Make) -> None:
    terminal = simulated().terminal
    terminal.initialize()
    asked = (server("2022-03-15T10:00"), server("2022-03-15T12:00"))
    three = ["2022-03-15T10:00", "2022-03-15T11:00", "2022-03-15T12:00"]
    assert texts(terminal.copy_rates_range("EURUSD", H1, *asked)) == three
    assert texts(terminal.copy_rates_from("EURUSD", H1, server("2022-03-15T12:30"), 3)) == three
    monday = terminal.copy_rates_from("EURUSD", H1, server("2022-03-14T00:30"), 2)
    assert texts(monday) == ["2022-03-11T23:00", "2022-03-14T00:00"], "the weekend has no bars"
    assert len(terminal.copy_rates_range("EURUSD", H1, server("2022-03-12T10:00"), server("2022-03-13T12:00"))) == 0
    assert terminal.last_error() == (1, "Success")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("NOPE", H1, 0, 1), -4),
        (("eurusd", H1, 0, 1), -4),
        (("EURUSD", 7, 0, 1), -2),
        (("EURUSD", H1, -1, 1), -2),
        (("EURUSD", H1, 0, 0), -2),
        ((None, H1, 0, 1), -2),
        (("E" * 30, H1, 0, 1), -2),
    ],
)
def test_what_cannot_be_answered_is_none_with_a_code(simulated: Make, arguments: tuple[Any, ...], code: int) -> None:
    terminal = simulated().terminal
    terminal.initialize()
    assert terminal.copy_rates_from_pos(*arguments) is None
    assert terminal.last_error()[0] == code


@pytest.mark.parametrize("moment", ["2022-03-15", None, date(2022, 3, 15), np.int64(1), np.datetime64("2022-03-15")])
def test_dates_that_the_real_module_refuses(simulated: Make, moment: object) -> None:
    terminal = simulated().terminal
    terminal.initialize()
    assert terminal.copy_rates_from("EURUSD", H1, moment, 1) is None
    assert terminal.last_error() == (-2, "Invalid arguments")


def test_history_ends_at_maxbars(simulated: Make) -> None:
    stand = simulated(maxbars=100)
    stand.terminal.initialize()
    newest = stand.terminal.copy_rates_from_pos("EURUSD", H1, 0, 100)
    everything = stand.terminal.copy_rates_range("EURUSD", H1, server("2022-01-03T00:00"), server("2022-03-17T00:00"))
    assert texts(everything) == texts(newest)
    assert (
        len(stand.terminal.copy_rates_range("EURUSD", H1, server("2022-02-01T00:00"), server("2022-02-02T00:00"))) == 0
    )


def test_symbols_must_be_in_market_watch_and_groups_filter(simulated: Make) -> None:
    terminal = simulated(codes=("EURUSD", "USDJPY", "EURJPY"), suffix=".a").terminal
    terminal.initialize()
    assert terminal.symbols_total() == 3
    assert [info.name for info in terminal.symbols_get()] == ["EURUSD.a", "USDJPY.a", "EURJPY.a"]
    assert [info.name for info in terminal.symbols_get(group="*EUR*,!*JPY*")] == ["EURUSD.a"]
    assert terminal.symbol_info("EURUSD") is None, "the broker's spelling is exact"
    assert terminal.symbol_info_tick("EURUSD.a") is None
    terminal.symbol_select("EURUSD.a", True)
    assert terminal.symbol_info_tick("EURUSD.a").bid > 0


def test_another_login_is_refused(simulated: Make) -> None:
    terminal = simulated(login=42).terminal
    assert terminal.initialize(login=7) is False
    assert terminal.last_error()[0] == -6
    assert terminal.initialize(login=42) is True


def test_a_recording_shows_of_the_forming_bar_only_its_open(recorded: Any) -> None:
    recorded.terminal.initialize()
    recorded.terminal.symbol_select("EURUSD", True)
    before, forming = recorded.terminal.copy_rates_from_pos("EURUSD", H1, 0, 2)
    assert forming["open"] == forming["high"] == forming["low"] == forming["close"] == 1.062
    assert before["high"] == pytest.approx(1.561)
    assert recorded.terminal.symbol_info_tick("EURUSD").bid == 1.062
    ticks = recorded.terminal.copy_ticks_range("EURUSD", server("2022-03-16T16:00"), server("2022-03-16T23:00"), -1)
    assert len(ticks) == 5, "four of the closed bar, one of the forming"
    assert ticks["bid"].max() == pytest.approx(1.561)


def test_a_recording_offers_longer_bars_but_not_shorter_ones(recorded: Any) -> None:
    recorded.terminal.initialize()
    (day,) = recorded.terminal.copy_rates_from("EURUSD", D1, server("2022-03-15T12:00"), 1)
    assert (day["open"], day["close"]) == (pytest.approx(1.021), pytest.approx(1.144))
    assert recorded.terminal.copy_rates_from_pos("EURUSD", M1, 0, 1) is None
    assert recorded.terminal.last_error()[0] == -1


def test_after_the_recording_ends_there_is_no_forming_bar(recorded: Any) -> None:
    recorded.clock.pass_by(days=30)
    recorded.terminal.initialize()
    recorded.terminal.symbol_select("EURUSD", True)
    last = recorded.terminal.copy_rates_from_pos("EURUSD", H1, 0, 1)[0]
    assert last["close"] == pytest.approx(1.195)
    assert recorded.terminal.symbol_info_tick("EURUSD").time == server("2022-03-18T03:00").timestamp()


def test_years_of_ticks_are_not_made_to_show_the_first_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    market, made = SimulatedMarket(5), set[int]()
    minutes = market.minutes
    monkeypatch.setattr(market, "minutes", lambda code, week: made.add(week) or minutes(code, week))
    feed = SimulatedFeed(market, ("EURUSD",), BrokerClock("new_york"))
    now = datetime(2024, 3, 1, tzinfo=UTC).timestamp()
    quotes = feed.quotes("EURUSD", 0.0, now, now)
    assert len(made) <= 6
    assert len(quotes) >= MAX_TICKS  # as many as a terminal shows


@pytest.mark.parametrize("timeframe", [Timeframe.M15, Timeframe.H1, Timeframe.D1])
def test_a_part_of_the_running_week_is_that_part_of_it(timeframe: Timeframe) -> None:
    """Also in the weeks in which New York, and the server with it, changes its clocks."""
    feed = SimulatedFeed(SimulatedMarket(5), ("EURUSD",), BrokerClock("new_york"))
    rng = np.random.default_rng(7)
    for wednesday in (datetime(2026, 3, 11, 12, 7, tzinfo=UTC), datetime(2026, 11, 4, 3, tzinfo=UTC)):
        now = int(wednesday.timestamp())
        whole = feed.rates("EURUSD", timeframe, now - 10 * 86_400, now, now)
        assert whole is not None
        for since in now - rng.integers(0, 4 * 86_400, 40):
            part = feed.rates("EURUSD", timeframe, int(since), now, now)
            assert part is not None
            assert part.tolist() == whole[whole["time"] >= since].tolist(), f"since {since}"
