"""The market's door: a plain class that Ray pins to the node with the `mt5` resource. Chooses the terminal, offers its reads.

Broker names, server time and MetaTrader's errors end here. Does not store bars and does not know who asks.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from configs.settings import Settings
from market.broker_clock import BrokerClock
from market.errors import ConfigError
from market.forecasts import iso_utc
from mt5_actor_windows.session import Account, Mt5Session, real_terminal
from mt5_actor_windows.session_process import SessionProcess

if TYPE_CHECKING:
    from market.bar_files import RecordedBars
    from mt5_actor_windows.listening import DataApi


class Mt5Actor:
    """A BarSource over one terminal: simulated, recorded or real, as the settings say.

    Stateless but for the connection: after a crash a new one answers the same questions the same way.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        recorded = read_recorded(settings)
        self._session = make_reader(settings, recorded)
        self._quarantined = quarantine_counts(recorded)
        self._server: DataApi | None = None
        self._ends = _recording_ends(settings)

    def closed_bars(
        self, symbol: str, timeframe: str, since: datetime | None, until: datetime | None = None
    ) -> pa.Table:
        return self._session.closed_bars(symbol, timeframe, since, until)

    def prices(self, symbols: Sequence[str]) -> list[dict[str, Any]]:
        return self._session.prices(symbols)

    def ticks(self, symbol: str, since: datetime, until: datetime | None = None, limit: int = 10_000) -> pa.Table:
        return self._session.ticks(symbol, since, until, limit)

    def health(self) -> dict[str, Any]:
        health = self._session.health() | {"market": self._settings.market, "pid": os.getpid()}
        health["quarantined"] = self._quarantined
        if self._ends is not None and health["now"] > self._ends and not health["reason"]:
            health["reason"] = f"The recording has been played to its end, {iso_utc(self._ends)}."
        return health

    def start_data_api(self) -> int:
        """Serve the same reads over HTTP from a thread of this process; returns the port. Idempotent.

        Keys and certificate are those of this host's own home; without a key it listens and lets nobody in. Raises
        PortInUse, and ConfigError for an address that must not be listened on or a certificate that cannot be used.
        """
        from mt5_actor_windows.admission import Admission
        from mt5_actor_windows.api_keys import KeyRing, node_home
        from mt5_actor_windows.data_api import create_app
        from mt5_actor_windows.listening import find_tls, serve_in_thread

        if self._server is None:
            home = node_home(self._settings)
            admission = Admission(KeyRing(home), self._settings.data_api_requests_per_minute)
            app, host = create_app(self, admission), self._settings.data_api_host
            self._server = serve_in_thread(app, host, self._settings.data_api_port, find_tls(home))
        return self._server.port

    @property
    def data_api(self) -> DataApi | None:
        """The running data API; None before `start_data_api`."""
        return self._server

    def close(self) -> None:
        if self._server is not None:
            self._server.stop()
        self._session.close()


def read_recorded(settings: Settings) -> list[RecordedBars]:
    """The played symbols' files of a recorded market; [] for any other. BadBars names what cannot be read."""
    if settings.market != "recorded":
        return []
    from market.bar_files import read_bar_folder

    if settings.bars_dir is None:
        raise ConfigError("market=recorded needs bars_dir.", hint="Give a folder with --bars DIR.")
    return read_bar_folder(settings.bars_dir, symbols=settings.symbols, received_at=datetime.now(UTC))


def quarantine_counts(recorded: Sequence[RecordedBars]) -> dict[str, dict[str, int]]:
    """Rows that are no bars and are not played: "EURUSD/M1" -> reason -> rows."""
    return {
        f"{one.symbol}/{one.timeframe}": dict(Counter(one.quarantined["reason"].to_pylist()))
        for one in recorded
        if one.quarantined.num_rows
    }


def make_reader(settings: Settings, recorded: list[RecordedBars]) -> Mt5Session | SessionProcess:
    """The session: of the real terminal in a process of its own, which can be killed; any other in this one."""
    if settings.market != "mt5":
        return make_session(settings, recorded)
    _account()  # a wrong environment is said at once
    return SessionProcess(
        "mt5_actor_windows.actor:session_from_json",
        settings.model_dump_json(),
        deadline_seconds=settings.terminal_deadline_seconds,
    )


def session_from_json(settings: str) -> Mt5Session:
    """What a session's process runs. `settings`: Settings as JSON; they hold no secrets."""
    return make_session(Settings(**json.loads(settings)))


def make_session(settings: Settings, recorded: list[RecordedBars] | None = None) -> Mt5Session:
    """Settings -> a session over the right terminal. Nothing is connected yet. `recorded`: as read by `read_recorded`."""
    if settings.market == "mt5":
        return Mt5Session(
            real_terminal,
            BrokerClock(settings.broker_zone),
            lambda: datetime.now(UTC),
            account=_account(),
            simulated=False,
            learn_clock=True,
            settle_seconds=2.0,
            loading_seconds=0.5,
        )
    if settings.market == "simulated":
        return _simulated(settings)
    if settings.market == "recorded":
        return _recorded(settings, read_recorded(settings) if recorded is None else recorded)
    raise ConfigError(f"market={settings.market} has no terminal.", hint="Its bars come over HTTP: see data_api_url.")


def _recording_ends(settings: Settings) -> datetime | None:
    """The newest close of the played series; None for a market that goes on."""
    if settings.market != "recorded" or settings.bars_dir is None:
        return None
    from market.bar_files import folder_contents

    contents = folder_contents(settings.bars_dir)
    played = [(symbol, timeframe) for symbol in settings.symbols for timeframe in settings.timeframes]
    return max((contents[key][1] for key in played if key in contents), default=None)


def _simulated(settings: Settings) -> Mt5Session:
    from mt5_actor_windows.feeds import SimulatedFeed
    from mt5_actor_windows.simulated_market import SimulatedMarket
    from mt5_actor_windows.simulated_terminal import SimulatedTerminal

    clock, market_clock = BrokerClock(settings.broker_zone), settings.market_clock
    feed = SimulatedFeed(SimulatedMarket(settings.seed), settings.symbols, clock)
    return Mt5Session(lambda: SimulatedTerminal(feed, clock, market_clock.now), clock, market_clock.now)


def _recorded(settings: Settings, recorded: list[RecordedBars]) -> Mt5Session:
    from mt5_actor_windows.feeds import RecordedFeed
    from mt5_actor_windows.simulated_terminal import SimulatedTerminal

    clock, market_clock = BrokerClock(settings.broker_zone), settings.market_clock
    feed = RecordedFeed(recorded, clock)
    return Mt5Session(
        lambda: SimulatedTerminal(feed, clock, market_clock.now, server="Recorded", maxbars=1_000_000),
        clock,
        market_clock.now,
        simulated=False,
        spread_known=False,
        frozen_seconds=None,  # its ticks are as far apart as its bars
    )


def _account() -> Account:
    """From MT5_LOGIN, MT5_SERVER, MT5_PATH and MT5_PASSWORD; none given: whatever the terminal is logged in to."""
    login = os.environ.get("MT5_LOGIN")
    if login is not None and not login.isdigit():
        raise ConfigError("MT5_LOGIN is not a number.", hint="It is the account's number.")
    return Account(
        login=int(login) if login else None,
        server=os.environ.get("MT5_SERVER"),
        path=os.environ.get("MT5_PATH"),
        password=os.environ.get("MT5_PASSWORD"),
    )
