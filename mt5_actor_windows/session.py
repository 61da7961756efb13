"""One session with one MetaTrader 5 terminal: read, and turn what comes back into our bars in UTC and our errors.

The only file that imports MetaTrader5. The terminal may be the real module or a SimulatedTerminal; nothing here tells
them apart. All calls run on one owner thread, with a deadline. Does not know Ray, HTTP or storage.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from market.bars import UTC_MICROSECONDS, bars_from_columns, empty_bars
from market.broker_clock import BrokerClock, detect
from market.calendar import expected_opens
from market.errors import BadTime, NotConnected, TerminalError, UnknownSymbol
from market.market_clock import is_open
from market.symbols import symbol as known_symbol
from market.timeframes import Timeframe
from mt5_actor_windows.connection import Account, Connection
from mt5_actor_windows.owner_thread import OwnerThread

CHUNK_BARS = 20_000
MAX_TICKS = 100_000
SETTLING_READS = 20  # at most, of one range
ALIKE, ALIKE_THOUGH_SHORT, MOSTLY = 2, 5, 0.9  # answers in a row that must agree; more when bars seem to be missing
PULSE_SYMBOLS = 3  # whose ticks tell whether the feed is alive

T = TypeVar("T")


class Mt5Session:
    """Reads of one terminal. `terminal()` gives the module, `now()` the market's time, `monotonic()` seconds for backoff.

    Every method may raise NotConnected or TerminalError, both MarketUnavailable; a lost connection is taken up again
    by the next call, at most once per backoff step. Without `spread_known` a spread of 0 means that nobody recorded one.
    `settle_seconds`: how long after its close a bar may still change; `loading_seconds`: the pause between reads of
    history that the terminal may still be downloading; `frozen_seconds`: without a tick for so long the feed is dead (None: it may be as
    old as it likes).
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
        loading_seconds: float = 0.0,
        frozen_seconds: float | None = 300.0,
        deadline_seconds: float = 60.0,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.clock, self._now = clock, now
        self._simulated, self._spread_known, self._learn = simulated, spread_known, learn_clock
        self._settle, self._loading, self._frozen = settle_seconds, loading_seconds, frozen_seconds
        self._deadline, self._pause = deadline_seconds, pause
        self._owner = OwnerThread("mt5-owner")
        self._connection = Connection(terminal, account or Account(), monotonic=monotonic, jitter=jitter)
        self._whole_from: dict[tuple[str, Timeframe], int] = {}  # history read twice alike from this server second on
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
        """Never raises: `connected` is False with a `reason` instead, also while the feed is frozen."""
        try:
            reason = self._run(self._trouble)
        except (NotConnected, TerminalError) as error:
            reason = str(error)
        now, connection = self._now(), self._connection
        return {
            "connected": not reason,
            "simulated": self._simulated,
            "account": connection.who.get("login"),
            "server": connection.who.get("server"),
            "server_utc_offset": self.clock.server_epoch(now) - int(now.timestamp()),
            "clock": self._clock_note,
            "maxbars": connection.maxbars,  # the terminal's "Max bars in chart"; 0 before the first connection
            "clock_rule": self.clock.rule,
            "symbols": sorted(connection.names),
            "names": dict(connection.names),
            "quarantine": connection.quarantine,
            "now": now,
            "reason": reason,
        }

    def close(self) -> None:
        self._owner.run(self._connection.close, self._deadline)

    # -- on the owner thread

    def _run(self, function: Callable[[], T]) -> T:
        def connected() -> T:
            if not self._connection.is_open:
                self._connect()
            answer = function()
            self._connection.verify()  # after the reads: an account that changed before or between them gives nothing
            self._connection.proved()
            return answer

        return self._owner.run(connected, self._deadline)

    def _connect(self) -> None:
        self._connection.open()
        self._whole_from.clear()
        try:
            self._learn_clock()
        except Exception as error:
            self._connection.lose(str(error))
            raise

    def _learn_clock(self) -> None:
        """The configured rule is a claim; the terminal's own weeks decide where they are many enough."""
        names = self._connection.names
        code = next((code for code in ("EURUSD", "GBPUSD", "USDJPY") if code in names), None)
        if not self._learn or code is None:
            return
        try:
            name = self._connection.select(code)
            rates = self._connection.call("copy_rates_from_pos", name, Timeframe.H1.mt5_code, 0, 5000)
        except TerminalError:  # no history yet: the rule stays a claim
            return
        findings = detect(rates["time"].astype("datetime64[s]"), Timeframe.H1, claim=self.clock.rule)
        self.clock, self._clock_note = BrokerClock(findings.rule), findings.message

    def _trouble(self) -> str:
        """Why nothing new may come although the terminal answers; "" when all is well."""
        if not self._connection.call("terminal_info").connected:
            return "The terminal has no broker connection."
        if self._frozen is None:
            return ""
        newest, now = self._newest_tick(), self._now()
        if newest is None or not is_open(now) or not is_open(now - timedelta(seconds=self._frozen)):
            return ""
        age = (now - newest).total_seconds()
        return f"No tick for {age:.0f} s although the market is open." if age > self._frozen else ""

    def _closed_bars(self, code: str, frame: Timeframe, since: datetime | None, until: datetime | None) -> pa.Table:
        now = self._now()
        name = self._connection.select(code)
        first = (since or now - frame.delta * self._connection.maxbars) - frame.delta
        last = min(until or now, now)
        rates = self._rates(name, frame, self.clock.server_epoch(first), self.clock.server_epoch(last))
        if len(rates) == 0:
            return empty_bars()
        opened = self.clock.to_utc(rates["time"].astype("datetime64[s]"))
        closed = opened.astype(np.int64) + frame.seconds
        newest = closed == closed.max()  # anything older has a successor, so it is closed
        keep = closed <= now.timestamp() - np.where(newest, self._settle, 0.0)
        if keep[newest].any() and not self._is_over(code, datetime.fromtimestamp(int(closed.max()), UTC)):
            keep &= ~newest
        keep &= closed <= last.timestamp()
        if since is not None:
            keep &= closed > since.timestamp()
        return self._as_bars(code, frame, rates[keep], opened[keep])

    def _is_over(self, code: str, close: datetime) -> bool:
        """Whether a bar without a successor is closed, or only cut off by a feed that froze: some tick must have followed."""
        return not is_open(close) or any(at >= close for at in self._tick_times(code))

    def _newest_tick(self) -> datetime | None:
        return max(self._tick_times(None), default=None)

    def _tick_times(self, code: str | None) -> Iterator[datetime]:
        """When the feed last showed life: in the newest tick of the symbol, then of a few others."""
        others = [one for one in self._connection.names if one != code][:PULSE_SYMBOLS]
        for one in ([code] if code else []) + others:
            at = self._tick_time(one)
            if at is not None:
                yield at

    def _tick_time(self, code: str) -> datetime | None:
        try:
            tick = self._connection.call("symbol_info_tick", self._connection.select(code))
        except TerminalError:
            return None
        return self._moment(tick.time_msc)

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
        step = max(min(CHUNK_BARS, self._connection.maxbars // 2), 1) * frame.seconds
        whole_from = self._whole_from.get((name, frame))
        pieces = []
        for start in range(first, last + 1, step):
            end = min(start + step - 1, last)
            known = whole_from is not None and start >= whole_from
            pieces.append(self._read(name, frame, start, end) if known else self._settled(name, frame, start, end))
        self._whole_from[name, frame] = first if whole_from is None else min(first, whole_from)
        return np.concatenate(pieces) if pieces else np.zeros(0, [("time", "<i8")])

    def _read(self, name: str, frame: Timeframe, first: int, last: int) -> np.ndarray:
        rates: np.ndarray = self._connection.call("copy_rates_range", name, frame.mt5_code, first, last)
        return rates

    def _settled(self, name: str, frame: Timeframe, first: int, last: int) -> np.ndarray:
        """The first question starts a download and shows what is there already: ask until answers agree."""
        found, alike = self._read(name, frame, first, last), 1
        for _ in range(SETTLING_READS):
            if alike >= (ALIKE if self._covers(found, frame, first, last) else ALIKE_THOUGH_SHORT):
                return found
            if self._loading:
                self._pause(self._loading)
            again = self._read(name, frame, first, last)
            found, alike = again, alike + 1 if _agree(found, again) else 1
        raise NotConnected(
            f"The terminal is still loading the history of {name} {frame.value}.", hint="It is asked again by itself."
        )

    def _covers(self, rates: np.ndarray, frame: Timeframe, first: int, last: int) -> bool:
        """Whether most of what the trading week should have opened in [first, last], server seconds, is there.

        What lies further back than the terminal's `maxbars` is not expected of it.
        """
        reach = self._now() - frame.delta * self._connection.maxbars
        since, until = (
            datetime.fromtimestamp(int(second.astype(np.int64)), UTC) for second in self._utc([first, last])
        )
        return len(rates) >= MOSTLY * len(expected_opens(frame, max(since, reach), until, self.clock))

    def _utc(self, server_seconds: list[int]) -> np.ndarray:
        return self.clock.to_utc(np.array(server_seconds).astype("datetime64[s]"))

    def _price(self, code: str) -> dict[str, Any]:
        unknown = {"symbol": code, "bid": None, "ask": None, "spread_points": None, "time": None, "age_seconds": None}
        try:
            tick = self._connection.call("symbol_info_tick", self._connection.select(code))
        except (TerminalError, UnknownSymbol) as error:
            return unknown | {"reason": str(error)}
        if not tick.bid:
            return unknown | {"reason": "No tick yet."}
        at = self._moment(tick.time_msc)
        if not is_open(at) and not is_open(at - timedelta(minutes=1)):  # the week's last tick may carry its close
            return unknown | {"reason": "Quoted while the market is closed."}
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
        name, end = self._connection.select(code), until or self._now()
        first, last = (self.clock.server_epoch(moment) for moment in (since or end - timedelta(hours=1), end))
        found = self._connection.call("copy_ticks_range", name, first, last, -1)[:limit]
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

    def _moment(self, time_msc: int) -> datetime:
        utc = self._utc_of_msc(np.array([time_msc]))[0].astype("datetime64[us]").astype(datetime)
        moment: datetime = utc.replace(tzinfo=UTC)
        return moment


def real_terminal() -> Any:
    """The MetaTrader5 package; NotConnected where it is not installed (it exists for Windows only)."""
    try:
        import MetaTrader5  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise NotConnected(
            f"The MetaTrader5 package cannot be imported: {error}.",
            hint="Run mt5_actor_windows/install/install.ps1 on the Windows node; elsewhere use another --market.",
        ) from None
    return MetaTrader5


def _agree(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether the later answer only added what has happened meanwhile: the same start, a bar or two more."""
    if len(before) == 0 or len(after) == 0:
        return len(before) == len(after)
    return bool(before["time"][0] == after["time"][0]) and 0 <= len(after) - len(before) <= 2


def _or_null(values: np.ndarray, unknown: np.ndarray) -> Any:
    return pa.array(np.ascontiguousarray(values), mask=unknown)


def _aware(moment: datetime | None) -> datetime | None:
    if moment is not None and moment.tzinfo is None:
        raise BadTime(
            f"The time {moment.isoformat()} has no zone.", hint="Give aware times, such as 2020-03-02T14:00Z."
        )
    return moment
