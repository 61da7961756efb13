"""One connection to one MetaTrader 5 terminal: connect, read, and turn what comes back into our bars and our errors.

The only file that imports MetaTrader5. The terminal may be the real module or a SimulatedTerminal; nothing here tells
them apart. All calls run on one owner thread, with a deadline. Does not know Ray, HTTP or storage.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from market.bars import UTC_MICROSECONDS, bars_from_columns, empty_bars
from market.broker_clock import BrokerClock, detect
from market.errors import BadTime, NotConnected, TerminalError, UnknownSymbol
from market.symbols import from_broker
from market.symbols import symbol as known_symbol
from market.timeframes import Timeframe

LOST = range(-10005, -9999)  # IPC errors: the connection is gone, not the request wrong
NO_ERROR = (0, 1)
CHUNK_BARS = 20_000
BACKOFF_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
MAX_TICKS = 100_000
_HINTS = {
    -2: "The request itself was refused: check symbol, timeframe and dates.",
    -4: "Is the symbol offered by this account? See it in the terminal's Market Watch.",
    -5: "Update the terminal and the MetaTrader5 package to matching versions.",
    -6: "Check MT5_LOGIN, MT5_PASSWORD and MT5_SERVER.",
    -8: "Allow algorithmic trading through the Python API in the terminal's options.",
    -10003: "Start the terminal in this user's session, or set MT5_PATH to terminal64.exe.",
    -10004: "The terminal was closed; it is asked again by itself.",
    -10005: "The terminal does not answer; restart it if this lasts.",
}

T = TypeVar("T")


@dataclass(frozen=True)
class Account:
    """What to log in to; the password is never printed. Without a login the terminal's own account is taken as it is."""

    login: int | None = None
    server: str | None = None
    path: str | None = None
    password: str | None = field(default=None, repr=False)


class OwnerThread:
    """Runs functions one after another on one thread. A call that outlives its deadline leaves the thread wedged:
    MetaTrader's calls cannot be interrupted, so later calls are refused at once until it returns."""

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._wedged: Future[Any] | None = None
        threading.Thread(target=self._loop, name=name, daemon=True).start()

    def run(self, function: Callable[[], T], deadline_seconds: float) -> T:
        if self._wedged is not None and not self._wedged.done():
            raise NotConnected("The terminal has not answered an earlier call yet.", hint="Restart it if this lasts.")
        future: Future[T] = Future()
        self._work.put((function, future))
        try:
            return future.result(timeout=deadline_seconds)
        except TimeoutError:
            if future.done():
                raise
            self._wedged = future
            raise NotConnected(
                f"The terminal did not answer within {deadline_seconds:g} s.", hint="Restart it if this lasts."
            ) from None

    def _loop(self) -> None:
        while True:
            function, future = self._work.get()
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)


class Mt5Session:
    """Reads of one terminal. `terminal()` gives the module, `now()` the market's time, `monotonic()` seconds for backoff.

    Every method may raise NotConnected or TerminalError, both MarketUnavailable; a lost connection is taken up again
    by the next call, at most once per backoff step. Without `spread_known` a spread of 0 means that nobody recorded one.
    """

    def __init__(
        self,
        terminal: Callable[[], Any],
        clock: BrokerClock,
        now: Callable[[], datetime],
        *,
        account: Account | None = None,
        simulated: bool = True,
        spread_known: bool = True,
        learn_clock: bool = False,
        settle_seconds: float = 0.0,
        deadline_seconds: float = 60.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open_terminal, self.clock, self._now = terminal, clock, now
        self._account = account or Account()
        self._simulated, self._spread_known, self._learn = simulated, spread_known, learn_clock
        self._settle, self._deadline, self._monotonic = settle_seconds, deadline_seconds, monotonic
        self._owner = OwnerThread("mt5-owner")
        self._terminal: Any = None
        self._names: dict[str, str] = {}  # our code -> the broker's name
        self._maxbars = CHUNK_BARS
        self._failures, self._retry_at, self._reason = 0, float("-inf"), ""
        self._who: dict[str, Any] = {}
        self._clock_note = f"{clock.rule}, as configured"

    # -- what a BarSource offers

    def closed_bars(
        self, symbol: str, timeframe: str | Timeframe, since: datetime | None, until: datetime | None = None
    ) -> pa.Table:
        """Bars with `since < close_time <= until`, BAR_SCHEMA, oldest first. The bar still forming is never among them."""
        code = known_symbol(symbol).code
        frame = timeframe if isinstance(timeframe, Timeframe) else Timeframe.parse(timeframe)
        return self._run(lambda: self._closed_bars(code, frame, _aware(since), _aware(until)))

    def prices(self, symbols: Sequence[str]) -> list[dict[str, Any]]:
        """symbol, bid, ask, spread_points, time (UTC), age_seconds; unknown values are None and `reason` says why."""
        return self._run(lambda: [self._price(known_symbol(symbol).code) for symbol in symbols])

    def ticks(self, symbol: str, since: datetime, until: datetime | None = None, limit: int = 10_000) -> pa.Table:
        """symbol, time (UTC), bid, ask; the first `limit` with `since <= time <= until`, oldest first."""
        code = known_symbol(symbol).code
        return self._run(lambda: self._ticks(code, _aware(since), _aware(until), min(limit, MAX_TICKS)))

    def health(self) -> dict[str, Any]:
        """Never raises: `connected` is False with a `reason` instead."""
        try:
            info = self._run(lambda: self._call("terminal_info"))
            connected, reason = bool(info.connected), "" if info.connected else "The terminal has no broker connection."
        except (NotConnected, TerminalError) as error:
            connected, reason = False, str(error)
        now = self._now()
        return {
            "connected": connected,
            "simulated": self._simulated,
            "account": self._who.get("login"),
            "server": self._who.get("server"),
            "server_utc_offset": self.clock.server_epoch(now) - int(now.timestamp()),
            "clock": self._clock_note,
            "symbols": sorted(self._names),
            "now": now,
            "reason": reason,
        }

    def close(self) -> None:
        if self._terminal is not None:
            self._owner.run(self._terminal.shutdown, self._deadline)
            self._terminal = None

    # -- on the owner thread

    def _run(self, function: Callable[[], T]) -> T:
        def connected() -> T:
            if self._terminal is None:
                self._connect()
            return function()

        return self._owner.run(connected, self._deadline)

    def _connect(self) -> None:
        if self._monotonic() < self._retry_at:
            raise NotConnected(f"No connection to the terminal: {self._reason}", hint="It is tried again by itself.")
        try:
            terminal = self._open_terminal()
            self._initialize(terminal)
            self._terminal = terminal
            self._identify()
            self._names = _broker_names(self._call("symbols_get"))
            self._maxbars = int(self._call("terminal_info").maxbars)
            self._learn_clock()
        except Exception as error:  # half a connection would answer with the wrong names or the wrong clock
            self._lose(str(error))
            raise
        self._failures, self._reason = 0, ""

    def _lose(self, reason: str) -> None:
        self._terminal = None
        self._reason = reason
        self._retry_at = self._monotonic() + BACKOFF_SECONDS[min(self._failures, len(BACKOFF_SECONDS) - 1)]
        self._failures += 1

    def _initialize(self, terminal: Any) -> None:
        given = {"login": self._account.login, "password": self._account.password, "server": self._account.server}
        keywords = {name: value for name, value in given.items() if value is not None}
        path = [self._account.path] if self._account.path else []
        if not terminal.initialize(*path, **keywords):
            code, text = terminal.last_error()
            raise NotConnected(f"MetaTrader answered {code} ({text}).", hint=_HINTS.get(code, ""))

    def _identify(self) -> None:
        """Several terminals on one host can answer for each other: believe none that is not the account asked for."""
        info = self._call("account_info")
        self._who = {"login": int(info.login), "server": str(info.server)}
        for name, wanted in (("login", self._account.login), ("server", self._account.server)):
            if wanted is not None and self._who[name] != wanted:
                raise NotConnected(
                    f"Another account answered: {name} {self._who[name]}, not {wanted}.",
                    hint="One terminal per host; set MT5_PATH to the right one.",
                )

    def _learn_clock(self) -> None:
        """The configured rule is a claim; the terminal's own weeks decide where they are many enough."""
        code = next((code for code in ("EURUSD", "GBPUSD", "USDJPY") if code in self._names), None)
        if not self._learn or code is None:
            return
        rates = self._call("copy_rates_from_pos", self._selected(code), Timeframe.H1.mt5_code, 0, 5000)
        if rates is None:  # no history yet: the rule stays a claim
            return
        findings = detect(rates["time"].astype("datetime64[s]"), Timeframe.H1, claim=self.clock.rule)
        self.clock, self._clock_note = BrokerClock(findings.rule), findings.message

    def _call(self, name: str, *args: Any) -> Any:
        """One call of the module. None is an error, or "nothing there" when the last error is none."""
        result = getattr(self._terminal, name)(*args)
        if result is not None and result is not False:
            return result
        code, text = self._terminal.last_error()
        if code in LOST:
            self._lose(f"MetaTrader answered {code} ({text}).")
            raise NotConnected(f"MetaTrader answered {code} ({text}).", hint=_HINTS.get(code, ""))
        if code in NO_ERROR:
            return None
        raise TerminalError(code, text, hint=_HINTS.get(code, ""))

    def _selected(self, code: str) -> str:
        """The broker's name of a symbol, shown in Market Watch; without that the terminal answers nothing."""
        name = self._names.get(code)
        if name is None:
            has = ", ".join(sorted(self._names)) or "none of ours"
            raise UnknownSymbol(f"This account does not offer {code}.", hint=f"It offers {has}.")
        self._call("symbol_select", name, True)
        return name

    def _closed_bars(self, code: str, frame: Timeframe, since: datetime | None, until: datetime | None) -> pa.Table:
        now = self._now()
        name = self._selected(code)
        first = (since or now - frame.delta * self._maxbars) - frame.delta
        last = min(until or now, now)
        rates = self._rates(name, frame, self.clock.server_epoch(first), self.clock.server_epoch(last))
        if len(rates) == 0:
            return empty_bars()
        opened = self.clock.to_utc(rates["time"].astype("datetime64[s]"))
        closed = opened.astype(np.int64) + frame.seconds
        newest = closed == closed.max()  # anything older has a successor, so it is closed
        keep = closed <= now.timestamp() - np.where(newest, self._settle, 0.0)
        keep &= closed <= last.timestamp()
        if since is not None:
            keep &= closed > since.timestamp()
        return self._as_bars(code, frame, rates[keep], opened[keep])

    def _as_bars(self, code: str, frame: Timeframe, rates: np.ndarray, opened: np.ndarray) -> pa.Table:
        volume, spread = rates["tick_volume"].astype(np.int64), rates["spread"].astype(np.int32)
        return bars_from_columns(
            code,
            frame,
            opened,
            rates["open"],
            rates["high"],
            rates["low"],
            rates["close"],
            _or_null(volume, volume == 0),  # a bar without a tick does not exist: 0 is "unknown"
            _or_null(spread, spread == 0 if not self._spread_known else spread < 0),
            received_at=datetime.now(UTC),
        )

    def _rates(self, name: str, frame: Timeframe, first: int, last: int) -> np.ndarray:
        """All rates that open in [first, last], server seconds, asked for in pieces well below the terminal's maximum."""
        step = max(min(CHUNK_BARS, self._maxbars // 2), 1) * frame.seconds
        pieces = []
        for start in range(first, last + 1, step):
            found = self._call("copy_rates_range", name, frame.mt5_code, start, min(start + step - 1, last))
            if found is not None and len(found):
                pieces.append(found)
        if not pieces:
            return np.zeros(0, [("time", "<i8")])
        return np.concatenate(pieces)

    def _price(self, code: str) -> dict[str, Any]:
        unknown = {"symbol": code, "bid": None, "ask": None, "spread_points": None, "time": None, "age_seconds": None}
        try:
            tick = self._call("symbol_info_tick", self._selected(code))
        except (TerminalError, UnknownSymbol) as error:
            return unknown | {"reason": str(error)}
        if tick is None or not tick.bid:
            return unknown | {"reason": "No tick yet."}
        at = (
            self._utc_of_msc(np.array([tick.time_msc]))[0].astype("datetime64[us]").astype(datetime).replace(tzinfo=UTC)
        )
        known = self._spread_known or tick.ask > tick.bid
        spread = round((tick.ask - tick.bid) / known_symbol(code).point) if known else None
        age = (self._now() - at).total_seconds()
        return {
            "symbol": code,
            "bid": float(tick.bid),
            "ask": float(tick.ask) if known else None,
            "spread_points": spread,
            "time": at,
            "age_seconds": round(age, 3),
            "reason": "" if known else "The recording has no spread.",
        }

    def _ticks(self, code: str, since: datetime | None, until: datetime | None, limit: int) -> pa.Table:
        name, end = self._selected(code), until or self._now()
        first, last = (self.clock.server_epoch(moment) for moment in (since or end - timedelta(hours=1), end))
        found = self._call("copy_ticks_range", name, first, last, -1)
        found = np.zeros(0, [("time_msc", "<i8"), ("bid", "<f8"), ("ask", "<f8")]) if found is None else found[:limit]
        return pa.table(
            {
                "symbol": pa.repeat(pa.scalar(code), len(found)),
                "time": pa.array(self._utc_of_msc(found["time_msc"]).astype("datetime64[us]"), UTC_MICROSECONDS),
                "bid": np.ascontiguousarray(found["bid"]),
                "ask": np.ascontiguousarray(found["ask"]),
            }
        )

    def _utc_of_msc(self, time_msc: np.ndarray) -> np.ndarray:
        """Server milliseconds [n] -> UTC datetime64[ms] [n]."""
        utc = self.clock.to_utc((time_msc // 1000).astype("datetime64[s]"))
        return utc.astype("datetime64[ms]") + (time_msc % 1000).astype("timedelta64[ms]")


def real_terminal() -> Any:
    """The MetaTrader5 package; NotConnected where it is not installed (it exists for Windows only)."""
    try:
        import MetaTrader5  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise NotConnected(
            f"The MetaTrader5 package cannot be imported: {error}.",
            hint="Install it on the Windows node: pip install lstmc[windows].",
        ) from None
    return MetaTrader5


def _broker_names(infos: Sequence[Any] | None) -> dict[str, str]:
    """Our codes -> the broker's spelling, kept as it is (it is case-sensitive); the plainest name of several wins."""
    names: dict[str, str] = {}
    for name in sorted((str(info.name) for info in infos or ()), key=lambda name: (len(name), name)):
        found = from_broker(name)
        if found is not None:
            names.setdefault(found.code, name)
    return names


def _or_null(values: np.ndarray, unknown: np.ndarray) -> Any:
    return pa.array(np.ascontiguousarray(values), mask=unknown)


def _aware(moment: datetime | None) -> datetime | None:
    if moment is not None and moment.tzinfo is None:
        raise BadTime(
            f"The time {moment.isoformat()} has no zone.", hint="Give aware times, such as 2020-03-02T14:00Z."
        )
    return moment
