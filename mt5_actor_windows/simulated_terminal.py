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
from mt5_actor_windows.mt5_structs import AccountInfo, SymbolInfo, TerminalInfo, Tick

SUCCESS = (1, "Success")
CALL_FAILED = (-1, "Terminal: Call failed")
INVALID_PARAMS = (-2, "Terminal: Invalid params")
INVALID_ARGUMENTS = (-2, "Invalid arguments")
NOT_FOUND = (-4, "Terminal: Not found")
AUTH_FAILED = (-6, "Terminal: Authorization failed")
NO_IPC = (-10004, "No IPC connection")
_FRAMES = {frame.mt5_code: frame for frame in Timeframe}
_TIMEFRAME_CODES = dict(M1=1, M2=2, M3=3, M4=4, M5=5, M6=6, M10=10, M12=12, M15=15, M20=20, M30=30)
_TIMEFRAME_CODES |= {f"H{n}": n | 0x4000 for n in (1, 2, 3, 4, 6, 8, 12)} | {"D1": 16408, "W1": 32769, "MN1": 49153}


class SimulatedTerminal:
    """One terminal with one account. `now()` is market time (aware); `suffix` is added to every symbol's name.

    Positional arguments only, as in the real module, but for `initialize`, `login` and `symbols_get`.
    """

    COPY_TICKS_ALL, COPY_TICKS_INFO, COPY_TICKS_TRADE = -1, 1, 2
    TICK_FLAG_BID, TICK_FLAG_ASK, TICK_FLAG_LAST, TICK_FLAG_VOLUME = 2, 4, 8, 16
    RES_S_OK, RES_E_FAIL, RES_E_INVALID_PARAMS, RES_E_NOT_FOUND, RES_E_AUTH_FAILED = 1, -1, -2, -4, -6
    RES_E_INTERNAL_FAIL_CONNECT, RES_E_INTERNAL_FAIL_TIMEOUT = -10004, -10005
    ACCOUNT_TRADE_MODE_DEMO = 0

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
    ) -> None:
        for name, code in _TIMEFRAME_CODES.items():
            setattr(self, f"TIMEFRAME_{name}", code)
        self._feed, self._clock, self._now = feed, clock, now
        self._suffix, self._maxbars, self._login, self._server = suffix, maxbars, login, server
        self._connected = False
        self._selected: set[str] = set()
        self._error: tuple[int, str] = (0, "")

    # -- connection

    def initialize(self, *path: str, **given: Any) -> bool:
        if given.get("login") is not None and int(given["login"]) != self._login:
            return bool(self._fail(AUTH_FAILED, False))
        self._connected = True
        return bool(self._done(True))

    def login(self, login: int, **given: Any) -> bool:
        if not self._connected:
            return bool(self._fail(NO_IPC, False))
        known = login == self._login and given.get("server", self._server) == self._server
        return bool(self._done(True) if known else self._fail(AUTH_FAILED, False))

    def shutdown(self) -> bool:
        self._connected = False
        return bool(self._done(True))

    def last_error(self) -> tuple[int, str]:
        return self._error

    def version(self) -> tuple[int, int, str]:
        return (500, 6231, "1 Nov 2026") if self._connected else (0, 0, "")

    def terminal_info(self) -> Any:
        if not self._connected:
            return self._fail(NO_IPC)
        given = dict(connected=True, build=6231, maxbars=self._maxbars, name="Simulated terminal", company="Simulated")
        return self._done(TerminalInfo.make(given | {"language": "English", "ping_last": 1000}))

    def account_info(self) -> Any:
        if not self._connected:
            return self._fail(NO_IPC)
        money = dict(balance=10_000.0, equity=10_000.0, margin_free=10_000.0, currency="USD", currency_digits=2)
        who = dict(login=self._login, server=self._server, name="Simulated", company="Simulated", leverage=100)
        return self._done(AccountInfo.make(money | who))

    # -- symbols

    def symbols_total(self) -> int | None:
        return self._done(len(self._feed.codes)) if self._connected else self._fail(NO_IPC)

    def symbols_get(self, *args: str, group: str | None = None) -> tuple[Any, ...] | None:
        if not self._connected:
            return self._fail(NO_IPC)
        pattern = args[0] if args else group
        return self._done(
            tuple(self._info(code) for code in self._feed.codes if _in_group(code + self._suffix, pattern))
        )

    def symbol_info(self, name: str, /) -> Any:
        code = self._code(name)
        return None if code is None else self._done(self._info(code))

    def symbol_select(self, name: str, enable: bool = True, /) -> bool:
        code = self._code(name)
        if code is None:
            return False
        (self._selected.add if enable else self._selected.discard)(code)
        return bool(self._done(True))

    def symbol_info_tick(self, name: str, /) -> Any:
        code = self._code(name)
        if code is None:
            return None
        quote = self._feed.last_quote(code, self._second())
        if quote is None or code not in self._selected:
            return self._fail(NOT_FOUND)
        return self._done(Tick(_tick_row(quote, code, self._clock)))

    # -- history

    def copy_rates_from(self, name: str, timeframe: int, date_from: Any, count: int, /) -> np.ndarray | None:
        """`count` bars back from the last one that opens at or before `date_from`."""
        asked = self._asked(name, timeframe, date_from)
        if asked is None or count <= 0:
            return None if asked is None else self._fail(INVALID_PARAMS)
        code, frame, (until,) = asked
        return self._rates(code, frame, self._back(code, frame, until, count))

    def copy_rates_from_pos(self, name: str, timeframe: int, start_pos: int, count: int, /) -> np.ndarray | None:
        """Position 0 is the bar that is forming."""
        asked = self._asked(name, timeframe)
        if asked is None or count <= 0 or start_pos < 0:
            return None if asked is None else self._fail(INVALID_PARAMS)
        code, frame, _ = asked
        found = self._back(code, frame, int(self._second()), start_pos + count)
        if found is not None and len(found) <= start_pos:
            return self._fail(CALL_FAILED)
        return self._rates(code, frame, None if found is None else found[: len(found) - start_pos])

    def copy_rates_range(self, name: str, timeframe: int, date_from: Any, date_to: Any, /) -> np.ndarray | None:
        """Bars that open in [date_from, date_to], both ends inclusive."""
        asked = self._asked(name, timeframe, date_from, date_to)
        if asked is None:
            return None
        code, frame, (since, until) = asked
        return self._rates(code, frame, self._feed.rates(code, frame, since, until, self._second()))

    def copy_ticks_from(self, name: str, date_from: Any, count: int, flags: int, /) -> np.ndarray | None:
        """`count` ticks forward from `date_from`."""
        found = self.copy_ticks_range(name, date_from, self._server_second() + 1, flags)
        return None if found is None else found[:count]

    def copy_ticks_range(self, name: str, date_from: Any, date_to: Any, flags: int, /) -> np.ndarray | None:
        """Ticks in [date_from, date_to], of more than MAX_TICKS the oldest."""
        code, seconds = self._code(name), self._dates(date_from, date_to)
        if code is None or seconds is None:
            return None
        since, until = self._utc(seconds[0]), self._utc(seconds[1])
        quotes = self._feed.quotes(code, since, until, self._second()) if flags != self.COPY_TICKS_TRADE else []
        rows = [_tick_row(quote, code, self._clock) for quote in quotes[:MAX_TICKS]]
        return self._done(np.array(rows, TICKS))

    # -- inside

    def _done(self, value: Any) -> Any:
        self._error = SUCCESS
        return value

    def _fail(self, error: tuple[int, str], value: Any = None) -> Any:
        self._error = error
        return value

    def _second(self) -> float:
        return self._now().timestamp()

    def _server_second(self) -> int:
        return self._clock.server_epoch(self._now())

    def _utc(self, server_second: float) -> int:
        stamp = np.array([int(server_second)]).astype("datetime64[s]")
        return int(self._clock.to_utc(stamp).astype(np.int64)[0])

    def _code(self, name: Any) -> str | None:
        if not self._connected:
            return self._fail(NO_IPC)
        if not isinstance(name, str) or len(name) > 29:
            return self._fail(INVALID_ARGUMENTS)
        code = name.removesuffix(self._suffix) if name.endswith(self._suffix) else ""
        return code if code in self._feed.codes else self._fail(NOT_FOUND)

    def _dates(self, *dates: Any) -> tuple[float, ...] | None:
        """Server-clock epoch seconds; what the real module takes: datetime, int, float. Naive means this machine's zone."""
        seconds = []
        for date in dates:
            if isinstance(date, datetime):
                seconds.append(date.timestamp())
            elif isinstance(date, int | float):
                seconds.append(float(date))
            else:
                return self._fail(INVALID_ARGUMENTS)
        return tuple(seconds)

    def _asked(self, name: Any, timeframe: int, *dates: Any) -> tuple[str, Timeframe, tuple[int, ...]] | None:
        code, seconds = self._code(name), self._dates(*dates)
        if code is None or seconds is None:
            return None
        frame = _FRAMES.get(timeframe)
        if frame is None:
            return self._fail(INVALID_PARAMS)
        return code, frame, tuple(self._utc(second) for second in seconds)

    def _back(self, code: str, frame: Timeframe, until: int, count: int) -> np.ndarray | None:
        """The last `count` bars that open at or before `until`."""
        reach = int(frame.seconds * min(count, self._maxbars) * 1.5) + 4 * 86400
        while True:
            found = self._feed.rates(code, frame, until - reach, until, self._second())
            if found is None or len(found) >= count or reach > 40 * 365 * 86400:
                return None if found is None else found[-count:]
            reach *= 4

    def _rates(self, code: str, frame: Timeframe, found: np.ndarray | None) -> np.ndarray | None:
        """What the terminal keeps (its newest `maxbars`), on the server's clock."""
        if found is None:
            return self._fail(CALL_FAILED)
        shown = found[-self._maxbars :].copy() if len(found) else empty_rates()
        oldest = int(self._second()) - frame.seconds * self._maxbars
        if len(shown) and shown["time"][0] < oldest:  # bars are never denser than the clock, so only then look closer
            newest = self._back(code, frame, int(self._second()), self._maxbars)
            shown = shown if newest is None or len(newest) == 0 else shown[shown["time"] >= newest["time"][0]]
        shown["time"] = shown["time"] + self._clock.offset_seconds(shown["time"])
        return self._done(shown.astype(RATES, copy=False))

    def _info(self, code: str) -> Any:
        pair, quote = known_symbol(code), self._feed.last_quote(code, self._second())
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
        return SymbolInfo.make(prices | chosen | names | sizes | path)


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
