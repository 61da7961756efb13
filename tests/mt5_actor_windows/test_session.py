"""The session turns a terminal's answers into closed bars in UTC, and its failures into our errors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from market.bars import BAR_SCHEMA
from market.broker_clock import BrokerClock
from market.errors import BadTime, NotConnected, TerminalError, UnknownSymbol
from market.market_clock import is_open
from mt5_actor_windows import session as session_module
from mt5_actor_windows.session import Account, Mt5Session, real_terminal

Make = Callable[..., Any]


def session_over(stand: Any, **options: Any) -> Mt5Session:
    return Mt5Session(lambda: stand.terminal, stand.broker, stand.clock, **options)


@pytest.mark.parametrize("rule", ["new_york", "eu", "utc"])
def test_closed_bars_are_utc_whatever_the_server_says(simulated: Make, rule: str) -> None:
    stand = simulated(rule)
    bars = session_over(stand).closed_bars("EURUSD", "H1", datetime(2022, 3, 9, tzinfo=UTC))
    assert bars.schema == BAR_SCHEMA
    opens = bars["open_time"].to_pylist()
    assert opens[0] == datetime(2022, 3, 9, tzinfo=UTC)
    assert opens[-1] == datetime(2022, 3, 16, 13, tzinfo=UTC), "14:37 is inside the forming bar"
    assert all(is_open(moment) for moment in opens)
    assert len(opens) == 70 + 65, "to Friday 22:00, then from Sunday 21:00: the US clock changed"
    seen = session_over(simulated("utc")).closed_bars("EURUSD", "H1", datetime(2022, 3, 9, tzinfo=UTC))
    assert bars["close"].to_pylist() == seen["close"].to_pylist()


def test_since_is_exclusive_and_until_inclusive_in_closes(simulated: Make) -> None:
    session = session_over(simulated())
    since, until = datetime(2022, 3, 16, 10, tzinfo=UTC), datetime(2022, 3, 16, 12, tzinfo=UTC)
    closes = session.closed_bars("EURUSD", "H1", since, until)["close_time"].to_pylist()
    assert closes == [since + timedelta(hours=1), until]
    assert session.closed_bars("EURUSD", "H1", until, until).num_rows == 0


def test_a_bar_closes_when_its_time_is_over(simulated: Make) -> None:
    stand = simulated()
    session = session_over(stand)
    since = datetime(2022, 3, 16, 14, tzinfo=UTC)
    assert session.closed_bars("EURUSD", "H1", since).num_rows == 0
    stand.clock.now = datetime(2022, 3, 16, 15, tzinfo=UTC)
    assert session.closed_bars("EURUSD", "H1", since).num_rows == 1
    stand.clock.now = datetime(2022, 3, 18, 21, 0, tzinfo=UTC)  # the week is over: no bar follows, the last is closed
    assert session.closed_bars("EURUSD", "H1", since)["close_time"].to_pylist()[-1] == stand.clock.now
    assert session_over(stand, settle_seconds=2.0).closed_bars("EURUSD", "H1", since).num_rows == 54


def test_long_ranges_are_asked_for_in_pieces(simulated: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    since = datetime(2022, 2, 1, tzinfo=UTC)
    whole = session_over(simulated()).closed_bars("EURUSD", "H1", since)
    monkeypatch.setattr(session_module, "CHUNK_BARS", 50)
    in_pieces = session_over(simulated()).closed_bars("EURUSD", "H1", since)
    assert in_pieces.drop_columns(["received_at"]).equals(whole.drop_columns(["received_at"]))
    assert whole.num_rows > 500


def test_broker_suffixes_stay_behind(simulated: Make) -> None:
    session = session_over(simulated(suffix=".pro"))
    bars = session.closed_bars("EURUSD", "H1", datetime(2022, 3, 16, tzinfo=UTC))
    assert set(bars["symbol"].to_pylist()) == {"EURUSD"}
    assert session.prices(["USDJPY"])[0]["symbol"] == "USDJPY"
    with pytest.raises(UnknownSymbol, match=r"does not offer GBPUSD.*EURUSD, USDJPY"):
        session.closed_bars("GBPUSD", "H1", None)


def test_prices_and_ticks(simulated: Make) -> None:
    stand = simulated()
    session = session_over(stand)
    (price,) = session.prices(["EURUSD"])
    assert price["time"] == datetime(2022, 3, 16, 14, 37, 45, tzinfo=UTC)
    assert (price["age_seconds"], price["reason"]) == (5.0, "")
    assert price["spread_points"] == round((price["ask"] - price["bid"]) / 1e-5)
    ticks = session.ticks("EURUSD", datetime(2022, 3, 16, 14, 30, tzinfo=UTC), limit=7)
    assert ticks["time"].to_pylist()[1] == datetime(2022, 3, 16, 14, 30, 15, tzinfo=UTC)
    assert ticks.num_rows == 7


def test_an_unrecorded_spread_is_unknown_not_zero(recorded: Any) -> None:
    session = session_over(recorded, spread_known=False)
    bars = session.closed_bars("EURUSD", "H1", datetime(2022, 3, 16, tzinfo=UTC))
    assert bars["spread_points"].null_count == bars["tick_volume"].null_count == bars.num_rows == 14
    (price,) = session.prices(["EURUSD"])
    assert (price["bid"], price["ask"], price["spread_points"]) == (1.062, None, None)
    assert price["reason"]


def test_health_says_who_answers(simulated: Make) -> None:
    health = session_over(simulated()).health()
    assert (health["connected"], health["simulated"], health["server"]) == (True, True, "Simulated-Demo")
    assert (health["server_utc_offset"], health["symbols"], health["reason"]) == (10800, ["EURUSD", "USDJPY"], "")
    assert (health["clock_rule"], health["clock"]) == ("new_york", "new_york, as configured")


def test_the_clock_is_learned_from_the_terminals_weeks(simulated: Make) -> None:
    stand = simulated("utc")
    stand.clock.now = datetime(2022, 12, 1, 12, 30, tzinfo=UTC)
    mistaken = Mt5Session(lambda: stand.terminal, BrokerClock("new_york"), stand.clock, learn_clock=True)
    bars = mistaken.closed_bars("EURUSD", "H1", datetime(2022, 11, 30, tzinfo=UTC))
    health = mistaken.health()
    assert mistaken.clock.rule == health["clock_rule"] == "utc"
    assert "not believed" in health["clock"]
    assert bars["close_time"].to_pylist()[-1] == datetime(2022, 12, 1, 12, tzinfo=UTC)


class Without:
    """The stand's terminal, but one function has nothing to say."""

    def __init__(self, terminal: Any, *silent: str) -> None:
        self.terminal, self.silent = terminal, set(silent)

    def last_error(self) -> tuple[int, str]:
        return (1, "Success")

    def __getattr__(self, name: str) -> Any:
        return (lambda *_: None) if name in self.silent else getattr(self.terminal, name)


def test_a_terminal_without_history_keeps_the_configured_clock(simulated: Make) -> None:
    stand = simulated()
    terminal = Without(stand.terminal, "copy_rates_from_pos")
    session = Mt5Session(lambda: terminal, stand.broker, stand.clock, learn_clock=True)
    assert session.health()["connected"] is True
    assert "as configured" in session.health()["clock"]


def test_half_a_connection_is_none(simulated: Make) -> None:
    """A fault while connecting must not leave a session that answers without knowing the account's names or clock."""
    stand, seconds = simulated(), [0.0]
    terminal = Without(stand.terminal, "account_info")
    session = Mt5Session(lambda: terminal, stand.broker, stand.clock, monotonic=lambda: seconds[0])
    with pytest.raises(TerminalError, match="account_info gave no answer"):
        session.prices(["EURUSD"])
    with pytest.raises(NotConnected, match="tried again by itself"):
        session.prices(["EURUSD"])
    terminal.silent.clear()
    seconds[0] += 60
    assert session.prices(["EURUSD"])[0]["bid"] is not None


class Failing:
    """A terminal that answers `initialize` as told, then what the stand's terminal says."""

    def __init__(self, terminal: Any) -> None:
        self.terminal, self.up, self.starts, self.error = terminal, True, 0, (-10003, "IPC initialize failed")

    def initialize(self, *args: Any, **given: Any) -> bool:
        self.starts += 1
        return self.up and self.terminal.initialize(*args, **given)

    def last_error(self) -> tuple[int, str]:
        return self.terminal.last_error() if self.up else self.error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.terminal, name) if self.up else lambda *_: None


def test_a_lost_connection_is_said_and_taken_up_again(simulated: Make) -> None:
    stand, seconds = simulated(), [0.0]
    stand.terminal = terminal = Failing(stand.terminal)
    session = session_over(stand, monotonic=lambda: seconds[0])
    since = datetime(2022, 3, 16, tzinfo=UTC)
    assert session.closed_bars("EURUSD", "H1", since).num_rows == 14
    terminal.up, terminal.error = False, (-10004, "No IPC connection")
    with pytest.raises(NotConnected, match="-10004"):
        session.closed_bars("EURUSD", "H1", since)
    assert terminal.starts == 1
    with pytest.raises(NotConnected, match="No connection to the terminal"):
        session.closed_bars("EURUSD", "H1", since)
    assert terminal.starts == 1, "the terminal is left alone for a moment"
    assert session.health()["connected"] is False
    seconds[0] += 1.5
    with pytest.raises(NotConnected):
        session.closed_bars("EURUSD", "H1", since)
    assert terminal.starts == 2
    terminal.up = True
    seconds[0] += 2.5
    assert session.closed_bars("EURUSD", "H1", since).num_rows == 14


def test_a_terminals_refusal_is_an_error_not_nothing(recorded: Any) -> None:
    with pytest.raises(TerminalError) as caught:
        session_over(recorded).closed_bars("EURUSD", "M1", datetime(2022, 3, 16, tzinfo=UTC))
    assert (caught.value.code, caught.value.text) == (-1, "Terminal: Call failed")


def test_another_account_is_not_believed(simulated: Make) -> None:
    stand = simulated(login=42)
    with pytest.raises(NotConnected, match="-6") as refused:
        session_over(stand, account=Account(login=7, password="secret")).closed_bars("EURUSD", "H1", None)
    assert "secret" not in repr(Account(login=7, password="secret")) + str(refused.value)
    with pytest.raises(NotConnected, match="Another account answered: server Simulated-Demo"):
        session_over(stand, account=Account(server="Other-Live")).closed_bars("EURUSD", "H1", None)


def test_a_call_that_hangs_is_left_behind(simulated: Make) -> None:
    stand, release = simulated(), threading.Event()
    session = session_over(stand, deadline_seconds=0.05)
    session._run(lambda: None)
    with pytest.raises(NotConnected, match="did not answer within"):
        session._run(lambda: release.wait(10))
    with pytest.raises(NotConnected, match="not answered an earlier call"):
        session.closed_bars("EURUSD", "H1", None)
    release.set()


def test_naive_times_are_refused(simulated: Make) -> None:
    with pytest.raises(BadTime, match="no zone"):
        session_over(simulated()).closed_bars("EURUSD", "H1", datetime(2022, 3, 16))  # noqa: DTZ001


def test_without_the_package_the_hint_says_where_it_belongs() -> None:
    try:
        import MetaTrader5  # noqa: F401
    except ImportError:
        with pytest.raises(NotConnected, match="Windows node"):
            real_terminal()
    else:
        assert real_terminal().__name__ == "MetaTrader5"
