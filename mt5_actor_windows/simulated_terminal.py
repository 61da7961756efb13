"""MetaTrader5's Python functions over a simulated or recorded market: its names, dtypes, None and `last_error`.

An object stands where the module would. Knows the server's clock and Market Watch; the market itself is a Feed.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np

from market.broker_clock import BrokerClock
from market.symbols import symbol as known_symbol
from market.timeframes import Timeframe
from mt5_actor_windows.feeds import BID_AND_ASK, MAX_TICKS, RATES, TICKS, Feed, Quote, empty_rates
from mt5_actor_windows.mt5_arguments import (
    anything,
    bare,
    date,
    group_arguments,
    history_arguments,
    initialize_arguments,
    integer,
    keyworded,
    login_arguments,
    positional,
    selection_arguments,
    symbol_name,
)
from mt5_actor_windows.mt5_constants import CONSTANTS
from mt5_actor_windows.mt5_structs import STRUCTS, AccountInfo, SymbolInfo, TerminalInfo, Tick, filled
from mt5_actor_windows.terminal_faults import Faults

SUCCESS = (1, "Success")
CALL_FAILED = (-1, "Terminal: Call failed")
INVALID_PARAMS = (-2, "Terminal: Invalid params")
NOT_FOUND = (-4, "Terminal: Not found")
AUTH_FAILED = (-6, "Terminal: Authorization failed")
NOT_INSTALLED = (-10003, "IPC initialize failed, MetaTrader 5 x64 not found")
NO_IPC = (-10004, "No IPC connection")
INCOMPATIBLE = (
    -5,
    "Terminal: Incompatible versions, please install the latest version of Terminal and Python module",
)
BUILD = "5.0.6231"
LATEST = 7_226_582_400  # the year 2199; dates beyond mean "all there is"
# What they say without a connection is not the usual.
_UNCONNECTED = {"symbols_total": INCOMPATIBLE, "symbols_get": INCOMPATIBLE}
_UNCONNECTED |= {"market_book_add": SUCCESS, "market_book_release": SUCCESS}
_FALSE = {"symbol_select", "login", "market_book_add", "market_book_release"}
_FRAMES = {frame.mt5_code: frame for frame in Timeframe}


class SimulatedTerminal:
    """One terminal with one account. `now()` is market time (aware); `suffix` is added to every symbol's name.

    The read API of MetaTrader5 5.0.6231 and its constants; what trades (order_*, Buy, Sell, Close) is not there.
    `faults` may be changed at any time.
    """

    def __init__(
        self,
        feed: Feed,
        clock: BrokerClock,
        now: Callable[[], datetime],
        *,
        suffix: str = "",
        maxbars: int = 100_000,
        login: int = 1,
        server: str = "Simulated-Demo",
        faults: Faults | None = None,
    ) -> None:
        self.__dict__.update(CONSTANTS)
        self.__dict__.update(STRUCTS)
        self.__version__ = BUILD
        self._feed, self._clock, self._now = feed, clock, now
        self._given_suffix, self._maxbars, self._given_account = suffix, maxbars, (login, server)
        self._faults = faults or Faults()
        self._connected = False
        self._selected: set[str] = set()
        self._error: tuple[int, str] = (0, "")

    # -- connection

    @keyworded(initialize_arguments, refused=False)
    def initialize(self, path: str = "", login: int | None = None, server: str | None = None, **_: Any) -> bool:
        if not self._faults.installed:
            started = f"IPC initialize failed, Process create failed '{path}'"
            return self._fail((-10003, started) if path else NOT_INSTALLED, False)
        if login is not None and not self._is_account(login, server):
            return self._fail(AUTH_FAILED, False)
        self._connected = True
        return self._done(True)

    @keyworded(login_arguments, refused=False)
    def login(self, login: int, server: str | None = None, **_: Any) -> bool:
        return self._done(True) if self._is_account(login, server) else self._fail(AUTH_FAILED, False)

    @bare
    def shutdown(self) -> bool:
        self._connected = False
        return self._done(True)

    @bare
    def last_error(self) -> tuple[int, str]:
        return self._error

    @bare
    def version(self) -> tuple[int, int, str]:
        return self._done((500, 6231, "1 Nov 2026"))

    @bare
    def terminal_info(self) -> Any:
        given = dict(connected=True, build=6231, maxbars=self._maxbars, name="Simulated terminal", company="Simulated")
        return self._done(filled(TerminalInfo, given | {"language": "English", "ping_last": 1000}))

    @bare
    def account_info(self) -> Any:
        login, server = self._account
        money = dict(balance=10_000.0, equity=10_000.0, margin_free=10_000.0, currency="USD", currency_digits=2)
        who = dict(login=login, server=server, name="Simulated", company="Simulated", leverage=100)
        return self._done(filled(AccountInfo, money | who))

    # -- orders and positions: this account has none

    @bare
    def orders_total(self) -> int:
        return self._done(0)

    @bare
    def positions_total(self) -> int:
        return self._done(0)

    @keyworded(selection_arguments)
    def orders_get(self, **_: Any) -> tuple[Any, ...]:
        return self._done(())

    @keyworded(selection_arguments)
    def positions_get(self, **_: Any) -> tuple[Any, ...]:
        return self._done(())

    @keyworded(history_arguments)
    def history_orders_get(self, **_: Any) -> tuple[Any, ...]:
        return self._done(())

    @keyworded(history_arguments)
    def history_deals_get(self, **_: Any) -> tuple[Any, ...]:
        return self._done(())

    @positional(date, date)
    def history_orders_total(self, since: float, until: float) -> int:
        return self._done(0)

    @positional(date, date)
    def history_deals_total(self, since: float, until: float) -> int:
        return self._done(0)

    # -- symbols

    @bare
    def symbols_total(self) -> int:
        return self._done(len(self._feed.codes))

    @keyworded(group_arguments, refused=False)
    def symbols_get(self, group: str | None) -> tuple[Any, ...]:
        return self._done(tuple(self._info(code) for code in self._feed.codes if _in_group(code + self._suffix, group)))

    @positional(symbol_name)
    def symbol_info(self, name: str) -> Any:
        code = self._code(name)
        return None if code is None else self._done(self._info(code))

    @positional(symbol_name, anything, required=1, refused=False)
    def symbol_select(self, name: str, enable: Any = True) -> bool:
        code = self._code(name)
        if code is None:
            return False
        (self._selected.add if enable else self._selected.discard)(code)
        return self._done(True)

    @positional(symbol_name)
    def symbol_info_tick(self, name: str) -> Any:
        code = self._code(name)
        if code is None:
            return None
        quote = self._quote(code)
        if quote is None or code not in self._selected:
            return self._fail(NOT_FOUND)
        return self._done(Tick(_tick_row(quote, code, self._clock)))

    @positional(symbol_name)
    def market_book_add(self, name: str) -> bool:
        return False if self._code(name) is None else self._done(True)

    @positional(symbol_name)
    def market_book_get(self, name: str) -> Any:
        return None if self._code(name) is None else self._done(())  # no depth of market

    @positional(symbol_name)
    def market_book_release(self, name: str) -> bool:
        return False if self._code(name) is None else self._done(True)

    # -- history

    @positional(symbol_name, integer, date, integer)
    def copy_rates_from(self, name: str, timeframe: int, date_from: float, count: int) -> np.ndarray | None:
        """`count` bars back from the last one that opens at or before `date_from`."""
        asked = self._asked(name, timeframe)
        if asked is None or count <= 0:
            return None if asked is None else self._fail(INVALID_PARAMS)
        return self._rates(*asked, self._back(*asked, self._utc(date_from), count))

    @positional(symbol_name, integer, integer, integer)
    def copy_rates_from_pos(self, name: str, timeframe: int, start_pos: int, count: int) -> np.ndarray | None:
        """Position 0 is the bar that is forming."""
        asked = self._asked(name, timeframe)
        if asked is None or count <= 0 or start_pos < 0:
            return None if asked is None else self._fail(INVALID_PARAMS)
        found = self._back(*asked, int(self._second()), start_pos + count)
        if found is not None and len(found) <= start_pos:
            return self._fail(CALL_FAILED)
        return self._rates(*asked, None if found is None else found[: len(found) - start_pos])

    @positional(symbol_name, integer, date, date)
    def copy_rates_range(self, name: str, timeframe: int, date_from: float, date_to: float) -> np.ndarray | None:
        """Bars that open in [date_from, date_to], both ends inclusive."""
        asked = self._asked(name, timeframe)
        if asked is None:
            return None
        return self._rates(*asked, self._feed.rates(*asked, self._utc(date_from), self._utc(date_to), self._second()))

    @positional(symbol_name, date, integer, integer)
    def copy_ticks_from(self, name: str, date_from: float, count: int, flags: int) -> np.ndarray | None:
        """`count` ticks forward from `date_from`."""
        found = self._ticks(name, date_from, self._clock.server_epoch(self._now()) + 1, flags)
        return None if found is None else found[: max(count, 0)]

    @positional(symbol_name, date, date, integer)
    def copy_ticks_range(self, name: str, date_from: float, date_to: float, flags: int) -> np.ndarray | None:
        """Ticks in [date_from, date_to], of more than MAX_TICKS the oldest."""
        return self._ticks(name, date_from, date_to, flags)

    # -- inside

    def _ask(self, function: str, answer: Callable[[], Any], refused: Any) -> Any:
        """One call: without a connection, or with a fault in force, the answer is not asked for."""
        if function in ("last_error", "shutdown"):
            return answer()
        if function in self._faults.wedged:
            self._faults.hang()
        if self._faults.loses_connection():
            self._connected = False
            if function == "initialize":
                return self._fail(NOT_INSTALLED, False)
        if not self._connected and function != "initialize":
            unconnected = (0, 0, "") if function == "version" else False if function in _FALSE else None
            return self._fail(_UNCONNECTED.get(function, NO_IPC), unconnected)
        if self._faults.is_silent(function):
            return self._done(None)
        return answer()

    @property
    def _suffix(self) -> str:
        return self._given_suffix if self._faults.suffix is None else self._faults.suffix

    @property
    def _account(self) -> tuple[int, str]:
        return self._faults.account or self._given_account

    def _is_account(self, login: int | None, server: str | None) -> bool:
        return all(
            wanted is None or wanted == is_it for wanted, is_it in zip((login, server), self._account, strict=True)
        )

    def _done(self, value: Any) -> Any:
        self._error = SUCCESS
        return value

    def _fail(self, error: tuple[int, str], value: Any = None) -> Any:
        self._error = error
        return value

    def _second(self) -> float:
        """Until when the market is known here: now, or when the feed froze."""
        frozen = self._faults.frozen_at
        now = self._now()
        return (now if frozen is None else min(now, frozen)).timestamp()

    def _utc(self, server_second: float) -> int:
        within = 0.0 if server_second != server_second else min(max(server_second, 0.0), LATEST)
        return int(self._clock.to_utc(np.array([int(within)]).astype("datetime64[s]")).astype(np.int64)[0])

    def _code(self, name: str) -> str | None:
        code = name.removesuffix(self._suffix) if name.endswith(self._suffix) else ""
        return code if code in self._feed.codes else self._fail(NOT_FOUND)

    def _asked(self, name: str, timeframe: int) -> tuple[str, Timeframe] | None:
        code, frame = self._code(name), _FRAMES.get(timeframe)
        if code is None:
            return None
        return (code, frame) if frame is not None else self._fail(INVALID_PARAMS)

    def _quote(self, code: str) -> Quote | None:
        return self._faults.quoted(self._feed.last_quote(code, self._second()), self._second())

    def _ticks(self, name: str, date_from: float, date_to: float, flags: int) -> np.ndarray | None:
        code = self._code(name)
        if code is None:
            return None
        since, until = self._utc(date_from), self._utc(date_to)
        traded = flags == CONSTANTS["COPY_TICKS_TRADE"]
        quotes = [] if traded else self._feed.quotes(code, since, until, self._second())
        return self._done(np.array([_tick_row(quote, code, self._clock) for quote in quotes[:MAX_TICKS]], TICKS))

    def _back(self, code: str, frame: Timeframe, until: int, count: int) -> np.ndarray | None:
        """The last `count` bars that open at or before `until`."""
        reach = int(frame.seconds * min(count, self._maxbars) * 1.5) + 4 * 86400
        while True:
            found = self._feed.rates(code, frame, until - reach, until, self._second())
            if found is None or len(found) >= count or reach > 40 * 365 * 86400:
                return None if found is None else found[-count:]
            reach *= 4

    def _rates(self, code: str, frame: Timeframe, found: np.ndarray | None) -> np.ndarray | None:
        """What the terminal keeps (its newest `maxbars`) and has at hand, on the server's clock."""
        if found is None:
            return self._fail(CALL_FAILED)
        shown = found[-self._maxbars :].copy() if len(found) else empty_rates()
        oldest = int(self._second()) - frame.seconds * self._maxbars
        if len(shown) and shown["time"][0] < oldest:  # bars are never denser than the clock, so only then look closer
            newest = self._back(code, frame, int(self._second()), self._maxbars)
            shown = shown if newest is None or len(newest) == 0 else shown[shown["time"] >= newest["time"][0]]
        shown = self._faults.seen(code, frame.value, shown).copy()
        shown["time"] = shown["time"] + self._clock.offset_seconds(shown["time"])
        return self._done(shown.astype(RATES, copy=False))

    def _info(self, code: str) -> Any:
        pair, quote = known_symbol(code), self._quote(code)
        prices: dict[str, Any] = {}
        if quote is not None:
            tick = _tick_row(quote, code, self._clock)
            prices = {"bid": tick[1], "ask": tick[2], "time": tick[0], "spread": quote.spread}
        chosen = {"select": code in self._selected, "visible": code in self._selected, "spread_float": True}
        names = {
            "name": code + self._suffix,
            "currency_base": pair.base,
            "currency_profit": pair.quote,
            "currency_margin": pair.base,
        }
        sizes = {"digits": pair.digits, "point": pair.point, "trade_tick_size": pair.point, "trade_contract_size": 1e5}
        path = {"path": f"Forex\\{code}{self._suffix}", "description": f"{pair.base} vs {pair.quote}"}
        return filled(SymbolInfo, prices | chosen | names | sizes | path)


def _tick_row(quote: Quote, code: str, clock: BrokerClock) -> tuple[Any, ...]:
    """A Tick's eight fields, server clock."""
    second = int(quote.time)
    server = second + int(clock.offset_seconds(np.array([second]))[0])
    pair = known_symbol(code)
    ask = round(quote.bid + quote.spread * pair.point, pair.digits)
    return (server, quote.bid, ask, 0.0, 0, int(server * 1000 + (quote.time - second) * 1000), BID_AND_ASK, 0.0)


def _in_group(name: str, pattern: str | None) -> bool:
    """MetaTrader's filter: comma-separated, `*` wildcards, `!` excludes; later conditions override earlier ones."""
    from fnmatch import fnmatchcase

    shown = pattern is None
    for part in (pattern or "").split(","):
        condition = part.strip()
        if condition and fnmatchcase(name, condition.removeprefix("!")):
            shown = not condition.startswith("!")
    return shown
