"""From a source of closed bars to the store: ask for what came since the last stored close, validate, append, announce.

Backfill, polling and recovery are the same question, so an outage loses nothing. Knows neither Ray nor terminals.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from market.bar_store import Appended, BarStore
from market.bars import BarSource, validate
from market.errors import InputError, MarketUnavailable
from market.market_clock import add_open_time
from market.timeframes import Timeframe

MEMORY_BARS = 10_000  # per symbol and timeframe; longer tails come from the store
CONTEXT_BARS = 10  # stored bars that new ones are judged against
REVISIT_BARS = 2  # asked for again with every new bar: a source may correct itself
COOL_DOWN_SECONDS = 15.0  # a failed source is not asked first again before that
OVERDUE_BARS, OVERDUE_POLLS = 3, 10  # a recording has ended, a holiday: look less often
HEALTH_POLLS = 30

Key = tuple[str, str]
T = TypeVar("T")


class MarketData:
    """The only writer of the bar store. `sources`: (name, source), asked in this order; `now`: market time.

    `poll` and `backfill` belong to one thread; `tail` and `status` may be called from any.
    """

    def __init__(
        self,
        sources: Sequence[tuple[str, BarSource]],
        store: BarStore,
        symbols: Sequence[str],
        timeframes: Sequence[str],
        history_days: int,
        now: Callable[[], datetime],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sources, self._store, self._now, self._monotonic = list(sources), store, now, monotonic
        self._symbols = tuple(symbols)
        self._keys: list[Key] = [(symbol, frame) for frame in timeframes for symbol in symbols]
        self._history = timedelta(days=history_days)
        self._lock = threading.Lock()  # of the store, which is not for two threads at once
        self._memory: dict[Key, pa.Table] = {}
        self._failed_at: dict[str, float] = {}
        self._asked_at: dict[Key, int] = {}
        self._polls = 0
        self._health: dict[str, Any] = {}
        self._prices: dict[str, dict[str, Any]] = {}
        self._problems: dict[str, str] = {}
        self._reason, self._transport = "not asked yet", ""
        self._last_poll: datetime | None = None

    def backfill(self, on_progress: Callable[[str, int, int], None] | None = None) -> dict[str, Any]:
        """Fetch `history_days` up to now, or only what is missing of them. Never raises MarketUnavailable: see `reason`.

        Each symbol and timeframe is one commit, so an interrupted backfill goes on where it stopped. Returns
        {"added": n, "bars": {"EURUSD/H1": n}, "reason": ""}.
        """
        added = 0
        for done, key in enumerate(self._keys, start=1):
            try:
                added += self._fill(key)
            except MarketUnavailable as error:
                self._outage(error)
                break
            if on_progress is not None:
                on_progress(key[0], done, len(self._keys))
        else:
            self._look_around()
        with self._lock:
            counts = self._store.counts()
        return {"added": added, "bars": {f"{s}/{t}": n for (s, t), n in counts.items()}, "reason": self._reason}

    def poll(self) -> list[pa.Table]:
        """Bars that closed since the last look, appended in one commit; one table per symbol and timeframe.

        [] with the reason in `status` when no source answers. After an outage the same call brings all that was missed.
        """
        self._polls += 1
        now, fetched = self._now(), []
        try:
            for key in self._keys:
                if self._is_due(key, now):
                    fetched.append(self._fetch(key, self._since(key, now), None))
            self._look_around()
            self._last_poll = now
        except MarketUnavailable as error:
            self._outage(error)
        return self._take_in([table for table in fetched if table.num_rows])

    def tail(self, symbol: str, timeframe: str, n: int) -> pa.Table:
        """The newest `n` stored bars, oldest first, from memory where it reaches."""
        remembered = self._remembered((symbol, timeframe))
        if n <= remembered.num_rows or remembered.num_rows < MEMORY_BARS:
            return remembered.slice(max(remembered.num_rows - n, 0))
        with self._lock:
            return self._store.tail(symbol, timeframe, n)

    def status(self) -> dict[str, Any]:
        """connected, reason, transport, simulated, market, quarantined, last_poll, spread_points, prices, problems; never asks anybody."""
        connected = not self._reason and bool(self._health.get("connected", False))
        return {
            "connected": connected,
            "reason": self._reason or str(self._health.get("reason") or ""),
            "transport": self._transport,
            "simulated": bool(self._health.get("simulated", False)),
            "market": self._health.get("market"),  # what the source itself says it is
            "server": self._health.get("server"),
            "quarantined": self._health.get("quarantined", {}),  # rows of recorded files that are no bars
            "last_poll": self._last_poll,
            "spread_points": {symbol: price.get("spread_points") for symbol, price in self._prices.items()},
            "prices": dict(self._prices),
            "problems": dict(self._problems),
        }

    # -- asking

    def _is_due(self, key: Key, now: datetime) -> bool:
        """Whether the next bar may have closed. Closed weekends are stepped over; a bar long overdue is asked for rarely."""
        last, frame = self._last_close(key), Timeframe.parse(key[1])
        if last is None:
            return True
        due = add_open_time(last, frame.delta)
        if now < due:
            return False
        rests = self._polls - self._asked_at.get(key, -OVERDUE_POLLS) < OVERDUE_POLLS
        return not (rests and now - due > OVERDUE_BARS * frame.delta)

    def _since(self, key: Key, now: datetime) -> datetime:
        last = self._last_close(key)
        return now - self._history if last is None else last - REVISIT_BARS * Timeframe.parse(key[1]).delta

    def _fetch(self, key: Key, since: datetime, until: datetime | None) -> pa.Table:
        """Closed bars from the first source that answers. A symbol that no source offers is a problem of its own, noted."""
        self._asked_at[key] = self._polls
        name = "/".join(key)
        try:
            bars = self._ask(lambda source: source.closed_bars(key[0], key[1], since, until))
        except InputError as error:
            self._problems[name] = str(error)
            return self._remembered(key).slice(0, 0)
        self._problems.pop(name, None)
        return bars

    def _ask(self, question: Callable[[BarSource], T]) -> T:
        """The first answer, sources that failed lately coming last. Raises the first source's MarketUnavailable."""
        first: MarketUnavailable | None = None
        now = self._monotonic()
        resting = {n for n, at in self._failed_at.items() if now - at < COOL_DOWN_SECONDS}
        for name, source in sorted(self._sources, key=lambda one: one[0] in resting):
            try:
                answer = question(source)
            except MarketUnavailable as error:
                self._failed_at[name] = self._monotonic()
                first = first or error
                continue
            self._failed_at.pop(name, None)
            self._answered(name)
            return answer
        raise first or MarketUnavailable("There is no source of bars.", hint="Set market, or data_api_url.")

    def _answered(self, name: str) -> None:
        if self._transport != name or self._reason:
            self._health = {}  # another terminal, or the same one after an outage
        self._transport, self._reason = name, ""

    def _outage(self, error: MarketUnavailable) -> None:
        self._reason = str(error)
        self._asked_at.clear()  # once it is over, ask for everything at once

    def _look_around(self) -> None:
        """Prices, and now and then the terminal's health: what the page shows beside the bars."""
        self._prices = {
            price["symbol"]: price for price in self._ask(lambda source: source.prices(list(self._symbols)))
        }
        if not self._health or self._polls % HEALTH_POLLS == 0:
            self._health = self._ask(lambda source: source.health())

    # -- taking in

    def _fill(self, key: Key) -> int:
        """What is missing at both ends of one symbol's history; returns bars added."""
        now = self._now()
        start = now - self._history
        with self._lock:
            first = self._store.first_open(*key)
        tables = [self._fetch(key, self._since(key, now), None)]
        if first is not None and first - start > timedelta(days=4):  # history_days was raised; less is a long weekend
            tables.append(self._fetch(key, start, first))
        return sum(table.num_rows for table in self._take_in([table for table in tables if table.num_rows]))

    def _take_in(self, fetched: list[pa.Table]) -> list[pa.Table]:
        """Validate each table against what is stored before it, append all in one commit; the added rows, per key."""
        judged = [self._judge(bars) for bars in fetched]
        if not judged:
            return []
        bad = pa.concat_tables([bad for _, bad in judged])
        with self._lock:
            if bad.num_rows:
                self._store.quarantine(bad)
            appended = self._store.append(pa.concat_tables([good for good, _ in judged]))
        self._remember(appended)
        return [rows for key in self._keys if (rows := _of(appended.added, key)).num_rows]

    def _judge(self, bars: pa.Table) -> tuple[pa.Table, pa.Table]:
        key = (bars["symbol"][0].as_py(), bars["timeframe"][0].as_py())
        first = bars["open_time"][0]
        stored = self._remembered(key)
        context = stored.filter(pc.less(stored["open_time"], first))
        context = context.slice(max(context.num_rows - CONTEXT_BARS, 0))
        good, bad = validate(pa.concat_tables([context, bars]), Timeframe.parse(key[1]))
        return good.filter(pc.greater_equal(good["open_time"], first)), bad.filter(
            pc.greater_equal(bad["open_time"], first)
        )

    def _last_close(self, key: Key) -> datetime | None:
        bars = self._remembered(key)
        return bars["close_time"][-1].as_py() if bars.num_rows else None

    def _remembered(self, key: Key) -> pa.Table:
        if key not in self._memory:
            with self._lock:
                self._memory[key] = self._store.tail(*key, MEMORY_BARS)
        return self._memory[key]

    def _remember(self, appended: Appended) -> None:
        """Carry memory forward; a revision, or a bar from before the newest, is read back from the store."""
        changed = pa.concat_tables([appended.added, appended.revised])
        for key in {(s, t) for s, t in _pairs(changed)}:
            old, new = self._remembered(key), _of(appended.added, key)
            follows = new.num_rows and (old.num_rows == 0 or new["open_time"][0].as_py() > old["open_time"][-1].as_py())
            if follows and _of(appended.revised, key).num_rows == 0:
                both = pa.concat_tables([old, new]).combine_chunks()
                self._memory[key] = both.slice(max(both.num_rows - MEMORY_BARS, 0))
            else:
                with self._lock:
                    self._memory[key] = self._store.tail(*key, MEMORY_BARS)


def _pairs(bars: pa.Table) -> list[Key]:
    return list(zip(bars["symbol"].to_pylist(), bars["timeframe"].to_pylist(), strict=True))


def _of(bars: pa.Table, key: Key) -> pa.Table:
    """Rows of one symbol and timeframe."""
    keep = pc.and_(pc.equal(bars["symbol"], key[0]), pc.equal(bars["timeframe"], key[1]))
    return bars.filter(keep) if np.any(keep.to_numpy(zero_copy_only=False)) else bars.slice(0, 0)
