"""From a source of closed bars to the store: ask for what came since the last stored close and for every hole, validate, append.

Backfill, polling and recovery are the same question, so an outage loses nothing; what was answered is kept as evidence,
and no answer is never taken for no bars. Knows neither Ray nor terminals.
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

from actors.answers import Answer, answer_of, moment_of, opens_of, stamp_of
from actors.clock_guard import ClockGuard
from actors.figures import SeriesState
from actors.rolling_reread import SLICE_BARS, RollingReread
from actors.tick_probe import TickProbe
from market.bar_store import Appended, BarStore, classify
from market.bars import BAR_SCHEMA, AsksAhead, BarSource, Question, empty_bars, validate
from market.broker_clock import detect
from market.calendar import are_among, gaps
from market.clock_watch import FARTHEST, TOLERANCE
from market.coverage import ENOUGH, SETTLED, Coverage
from market.errors import ClockDisagrees, InputError, MarketUnavailable, StoreUnavailable
from market.gap_ledger import classifier, to_ask
from market.market_clock import add_open_time
from market.timeframes import Timeframe

MEMORY_BARS = 10_000  # per symbol and timeframe; longer tails come from the store
CONTEXT_BARS = 10  # stored bars that new ones are judged against
REVISIT_BARS = 2  # asked for again with every new bar: a source may correct itself
RECHECK_BARS = 300  # asked for again with every start
RECENT_BARS = 1000  # how far back polls look for holes
REPAIR_EVERY = timedelta(hours=1)  # recent holes that should have bars, and a slice of old bars, are asked for again
SPARE = timedelta(seconds=15)  # old bars are asked for only when none closes so soon
ROUNDS = 4  # of a backfill, while answers still grow
COOL_DOWN_SECONDS = 15.0  # a failed source is not asked first again before that
OVERDUE_BARS, OVERDUE_POLLS = 3, 10  # a recording has ended, a holiday: look less often
HEALTH_POLLS = 30

Key = tuple[str, str]
T = TypeVar("T")


class MarketData:
    """The only writer of the bar store. `sources`: (name, source), asked in this order; `now`: market time; `coverage`:
    the evidence, by default the file beside the store; `slice_bars`: old bars of a series asked for again every hour;
    `tolerance`: how far ahead of `now` a source's clock may be, in market time.

    `poll` and `backfill` belong to one thread; `tail`, `status` and `series` may be called from any.
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
        coverage: Coverage | None = None,
        slice_bars: int = SLICE_BARS,
        tolerance: timedelta = TOLERANCE,
    ) -> None:
        self._sources, self._store, self._now, self._monotonic = list(sources), store, now, monotonic
        self._symbols = tuple(symbols)
        self._keys: list[Key] = [(symbol, frame) for frame in timeframes for symbol in symbols]
        self._history = timedelta(days=history_days)
        self._coverage = coverage if coverage is not None else Coverage.beside(store.path)
        self._probe = TickProbe(store, self._coverage)
        self._old_bars = RollingReread(self._coverage, slice_bars)
        self._unsettled: dict[Key, datetime] = {}  # the oldest recent hole that is not settled yet
        self._repair_at: datetime | None = None
        self._tolerance = tolerance
        self._guard, self._old_guard = ClockGuard(), ClockGuard()  # an alarm over old bars says nothing of the polls
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
        """Fetch `history_days` up to now, or only what is missing of them, until a round of answers brings nothing new.

        Never raises MarketUnavailable: see `reason`. Each symbol and timeframe is one commit, so an interrupted backfill
        goes on where it stopped. Returns {"added": n, "bars": {"EURUSD/H1": n}, "reason": ""}.
        """
        added = 0
        try:
            self._look_around()
            for done, key in enumerate(self._keys, start=1):
                added += self._fill(key)
                if not self._health:  # another source went on
                    self._look_at_health()
                if on_progress is not None:
                    on_progress(key[0], done, len(self._keys))
            added += self._refill()
            self._probe.run(self._keys, self._now() - self._history, self._now(), self._ask)
            self._check_history()
        except MarketUnavailable as error:
            self._outage(error)
        self._repair_at = self._now() + REPAIR_EVERY
        self._coverage.save()
        with self._lock:
            counts = self._store.counts()
        return {"added": added, "bars": {f"{s}/{t}": n for (s, t), n in counts.items()}, "reason": self._reason}

    def poll(self, tell: Callable[[list[pa.Table]], None] = lambda _: None) -> list[pa.Table]:
        """Bars that closed since the last look, appended in one commit; one table per symbol and timeframe. `tell` has
        them, where there are any, as soon as they are stored, before the answers are written down as evidence.

        [] with the reason in `status` when no source answers, or the store takes nothing. After an outage the same call
        brings all that was missed. Between closes it also asks for a slice of old bars: what changed there becomes
        revisions and is not returned.
        """
        self._polls += 1
        now = self._now()
        answers: list[Answer] = []
        try:
            self._look_around()
            repairs = self._repairs(now)
            asked = self._due(now) | repairs
            self._expect(asked)
            for key, since in asked.items():
                answers += self._fetch(key, since, None)
            if repairs:  # after the bars, which would have told a wrong clock
                self._probe.run(list(repairs), now - self._history, now, self._ask, RECENT_BARS)
            self._look_at_health()
            self._last_poll = now
        except MarketUnavailable as error:
            self._outage(error)
        try:
            closed = self._take_in(answers, tell)
            if not closed and not self._reason and not self._is_busy(now + SPARE):
                self._ask_again(now)
        except StoreUnavailable as error:
            self._outage(error)
            return []
        return closed

    def tail(self, symbol: str, timeframe: str, n: int) -> pa.Table:
        """The newest `n` stored bars, oldest first, from memory where it reaches."""
        remembered = self._remembered((symbol, timeframe))
        if n <= remembered.num_rows or remembered.num_rows < MEMORY_BARS:
            return remembered.slice(max(remembered.num_rows - n, 0))
        with self._lock:
            return self._store.tail(symbol, timeframe, n)

    def status(self) -> dict[str, Any]:
        """connected, reason, transport, transports, simulated, market, quarantined, last_poll, spread_points, prices, problems; never asks anybody."""
        connected = not self._reason and bool(self._health.get("connected", False))
        own = {"clock": self._guard.problem, "evidence": self._coverage.problem}
        return {
            "connected": connected,
            "reason": self._reason or str(self._health.get("reason") or ""),
            "transport": self._transport,
            "transports": dict.fromkeys(tuple(self._failed_at), False)
            | {name: connected for name in [self._transport] if name},
            "simulated": bool(self._health.get("simulated", False)),
            "market": self._health.get("market"),  # what the source itself says it is
            "server": self._health.get("server"),
            "quarantined": self._health.get("quarantined", {}),  # rows of recorded files that are no bars
            "last_poll": self._last_poll,
            "spread_points": {symbol: price.get("spread_points") for symbol, price in self._prices.items()},
            "prices": dict(self._prices),
            "problems": self._problems | {what: why for what, why in own.items() if why},
        }

    def series(self) -> dict[Key, SeriesState]:
        """What is remembered of each series that has bars. Asks nobody and reads no file."""
        recent = {key: bars.slice(max(bars.num_rows - RECENT_BARS, 0)) for key, bars in dict(self._memory).items()}
        opens = {key: opens_of(bars) for key, bars in recent.items() if bars.num_rows}
        return {
            key: SeriesState(recent[key]["close_time"][-1].as_py(), self._count_missing(key, opens)) for key in opens
        }

    def _count_missing(self, key: Key, opens: dict[Key, np.ndarray]) -> int:
        """Holes among these opens that were asked for often enough, and are neither a holiday nor proven to be silent."""
        panel = {symbol: held for (symbol, timeframe), held in opens.items() if timeframe == key[1]}
        first, last = moment_of(opens[key][0]), moment_of(opens[key][-1])
        kinds = classifier(key, self._coverage, panel)
        return sum(gap.kind == "missing" for gap in gaps(opens[key], Timeframe.parse(key[1]), first, last, kinds=kinds))

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

    def _due(self, now: datetime) -> dict[Key, datetime]:
        """Series whose next bar may have closed, and since when to ask: back to their oldest unsettled hole."""
        return {key: self._since(key, now) for key in self._keys if self._is_due(key, now)}

    def _is_busy(self, now: datetime) -> bool:
        """Whether a bar is to be had. A series that never had one is not waited for."""
        return any(self._last_close(key) is not None and self._is_due(key, now) for key in self._keys)

    def _repairs(self, now: datetime) -> dict[Key, datetime]:
        """Now and then, and rather between two closes: series with recent holes, and since when to ask."""
        at = self._repair_at or now + REPAIR_EVERY
        self._repair_at = at
        if now < at + (5 * REPAIR_EVERY if self._is_busy(now) else timedelta(0)):
            return {}
        self._repair_at = now + REPAIR_EVERY
        self._old_bars.begin(self._keys)
        found = {}
        for key in self._keys:
            holes = self._holes(key, now, ENOUGH + 1)
            if holes:
                found[key] = min(holes[0][0], self._since(key, now))
        return found

    def _since(self, key: Key, now: datetime, revisit: int = REVISIT_BARS) -> datetime:
        last = self._last_close(key)
        if last is None:
            return now - self._history
        opens = self._remembered_opens(key)[-revisit:]
        back = max(moment_of(opens[0]), min(now - self._history, last))
        return min(back, self._unsettled.get(key, last))

    def _holes(self, key: Key, now: datetime, fewer_than: int) -> list[tuple[datetime, datetime]]:
        """Spans of recent bars, the last stored one at the latest, that are not there and were not answered for so often."""
        last = self._last_close(key)
        if last is None:
            return []
        since = max(now - self._history, last - RECENT_BARS * Timeframe.parse(key[1]).delta)
        held = self._remembered_opens(key)
        return to_ask(held, self._coverage, key, since, last, fewer_than=fewer_than)

    def _expect(self, asked: dict[Key, datetime]) -> None:
        """Only of whom is asked first. The others forget: an answer of an earlier poll would speak for less than it claims."""
        questions: list[Question] = [(symbol, frame, since, None) for (symbol, frame), since in asked.items()]
        for turn, (_, source) in enumerate(self._in_turn()):
            if isinstance(source, AsksAhead):
                source.expect([] if turn else questions)

    def _fetch(self, key: Key, since: datetime, until: datetime | None) -> list[Answer]:
        """The first source's answer that can be believed. A symbol that no source offers is a problem of its own, noted."""
        self._asked_at[key] = self._polls

        def question(source: BarSource) -> pa.Table:
            bars = self._guard.closed_by(self._now(), key, answer_of(source, key, since, until), self._tolerance)
            stored, live = self._remembered(key), self._is_live()
            witness = None if stored.num_rows else self._witness()
            self._guard.check_bars(key, bars, stored, source, live=live, witness=witness)
            return bars

        return self._answers(key, since, until, question)

    def _witness(self) -> tuple[Key, pa.Table] | None:
        """Any series that we hold bars of: it tells whether the source's clock and account are still those of our bars."""
        held = ((key, self._remembered(key)) for key in self._keys)
        return next(((key, bars) for key, bars in held if bars.num_rows), None)

    def _answers(
        self,
        key: Key,
        since: datetime,
        until: datetime | None,
        question: Callable[[BarSource], pa.Table],
        *,
        aside: bool = False,
    ) -> list[Answer]:
        name, now = "/".join(key), self._now()
        try:
            bars = self._ask(question, aside=aside)
        except InputError as error:
            self._problems[name] = str(error)
            return []
        self._problems.pop(name, None)
        return [Answer(key, since, until or now, now, bars)]

    def _ask_again(self, now: datetime) -> None:
        """One slice of one series' old bars, when one is due. No answer is no outage: the slice stays due for the next hour."""
        key = self._old_bars.next_key()
        if key is None or (last := self._last_close(key)) is None:
            return
        with self._lock:
            first = max(self._store.first_open(*key) or last, now - self._history)
            start, end = self._old_bars.slice(key, first, last)
            held = self._store.read([key[0]], key[1], start - FARTHEST, end + FARTHEST)

        def question(source: BarSource) -> pa.Table:
            bars = answer_of(source, key, start, end)
            newest, live = self._remembered(key), self._is_live()
            self._old_guard.check_old_bars(key, bars, held, newest, source, live=live)
            return bars

        alarm = f"{'/'.join(key)} old bars"
        self._problems.pop(alarm, None)
        try:
            answers = self._answers(key, start, end, question, aside=True)
        except ClockDisagrees as error:
            self._problems[alarm] = str(error)
            return self._old_bars.done(key, start)  # it would be refused the next time, too
        except MarketUnavailable:
            return
        if answers:
            self._take_in(answers)
            self._old_bars.done(key, start)

    def _ask(self, question: Callable[[BarSource], T], *, aside: bool = False) -> T:
        """The first answer. Raises the first source's MarketUnavailable.

        `aside`: what comes of it says nothing about who is asked first, nor about what the polls hear.
        """
        first: MarketUnavailable | None = None
        for name, source in self._in_turn():
            try:
                answer = question(source)
            except MarketUnavailable as error:
                if not aside:
                    self._failed_at[name] = self._monotonic()
                first = first or error
                continue
            if not aside:
                self._failed_at.pop(name, None)
                self._answered(name)
            return answer
        raise first or MarketUnavailable("There is no source of bars.", hint="Set market, or data_api_url.")

    def _in_turn(self) -> list[tuple[str, BarSource]]:
        """Sources that failed lately come last."""
        now = self._monotonic()
        resting = {n for n, at in self._failed_at.items() if now - at < COOL_DOWN_SECONDS}
        return sorted(self._sources, key=lambda one: one[0] in resting)

    def _answered(self, name: str) -> None:
        if self._transport != name or self._reason:
            self._health = {}  # another terminal, or the same one after an outage
        self._transport, self._reason = name, ""

    def _outage(self, error: MarketUnavailable) -> None:
        self._reason = str(error)
        self._asked_at.clear()  # once it is over, ask for everything at once

    def _look_around(self) -> None:
        """Prices, and now and then the terminal's health: what the page shows beside the bars, and whether clocks agree."""
        prices = self._ask(lambda source: source.prices(list(self._symbols)))
        self._prices = {price["symbol"]: price for price in prices}
        self._look_at_health()
        if self._is_live():
            self._guard.check_ticks((price.get("time") for price in prices), self._now())

    def _is_live(self) -> bool:
        return not self._health.get("simulated") and self._health.get("market") in (None, "mt5")

    def _look_at_health(self) -> None:
        """Every HEALTH_POLLS polls, at once when another source answers than before, and at each poll while it is not well."""
        if not self._health.get("connected") or self._polls % HEALTH_POLLS == 0:
            self._health = self._ask(lambda source: source.health())
            clock = {name: self._health.get(name) for name in ("server", "clock", "clock_rule", "server_utc_offset")}
            self._coverage.note_clock(clock)

    # -- whose time it is

    def _check_history(self) -> None:
        """Alarm when the stored weeks themselves do not open and close as UTC weeks do."""
        key = next((key for key in self._keys if Timeframe.parse(key[1]).seconds <= 3600), None)
        if key is None:
            return
        with self._lock:
            opens = self._store.opens(*key)
        found = detect(opens, Timeframe.parse(key[1]), claim="UTC")
        self._problems.pop("history_clock", None)
        if found.enough and (found.rule != "utc" or found.slips):
            self._problems["history_clock"] = f"{'/'.join(key)}: {found.message}"

    # -- taking in

    def _fill(self, key: Key) -> int:
        """What is missing of one symbol's history, and its newest bars once more; returns bars added."""
        now = self._now()
        answers = self._fetch(key, self._since(key, now, RECHECK_BARS), None)
        if self._last_close(key) is not None:
            for start, end in self._old_holes(key, now, ENOUGH):
                answers += self._fetch(key, start, end)
        return sum(table.num_rows for table in self._take_in(answers))

    def _refill(self) -> int:
        """Ask for what is not settled until a round brings nothing: a terminal may first answer with what it has ready."""
        total = 0
        for _ in range(ROUNDS - 1):
            now, added = self._now(), 0
            for key in self._keys:
                for start, end in self._old_holes(key, now, SETTLED):
                    added += sum(table.num_rows for table in self._take_in(self._fetch(key, start, end)))
            total += added
            if not added:
                break
        return total

    def _old_holes(self, key: Key, now: datetime, fewer_than: int) -> list[tuple[datetime, datetime]]:
        with self._lock:
            held = self._store.opens(*key)
        since = now - self._history
        return to_ask(held, self._coverage, key, since, now, fewer_than=fewer_than)

    def _take_in(
        self, answers: list[Answer], tell: Callable[[list[pa.Table]], None] = lambda _: None
    ) -> list[pa.Table]:
        """Validate each answer against what is stored before it, append all in one commit; the added rows, per key."""
        judged = [self._judge(answer.bars) for answer in answers if answer.bars.num_rows]
        for good, bad in judged:
            self._note_refused(good, bad)
        appended = Appended(empty_bars(), empty_bars(), 0)
        if judged:
            bad = pa.concat_tables([bad for _, bad in judged])
            fresh = self._fresh([good for good, _ in judged if good.num_rows])
            with self._lock:
                if bad.num_rows:
                    self._store.quarantine(bad)
                appended = self._store.append(fresh)
            self._remember(appended)
        if closed := [rows for key in self._keys if (rows := _of(appended.added, key)).num_rows]:
            tell(closed)
        grew = [self._grew(answer, appended.added) for answer in answers]  # before any of them counts
        for answer, more in zip(answers, grew, strict=True):
            self._note(answer, more)
        self._coverage.save()
        return closed

    def _fresh(self, good: list[pa.Table]) -> pa.Table:
        """Without what is stored just so, as far as memory reaches: for bars asked for again the store would have to read."""
        if not good:
            return empty_bars()
        known = [self._remembered_from(_key(bars), stamp_of(pc.min(bars["open_time"]).as_py())) for bars in good]
        found = classify(pa.concat_tables(known), pa.concat_tables(good))
        return pa.concat_tables([found.added, found.revised])

    def _note_refused(self, good: pa.Table, bad: pa.Table) -> None:
        """A series whose newest bar is none stands still, which must not look like a quiet market."""
        if bad.num_rows and (not good.num_rows or bad["open_time"][-1].as_py() > good["open_time"][-1].as_py()):
            name = f"{bad['symbol'][0].as_py()}/{bad['timeframe'][0].as_py()}"
            self._problems[name] = (
                f"The source's newest bar was refused ({bad['reason'][-1].as_py()}) and is in quarantine."
            )

    def _grew(self, answer: Answer, added: pa.Table) -> bool:
        """Whether bars were added that an earlier answer lacked: that one was incomplete."""
        return bool((self._coverage.times(answer.key, opens_of(_of(added, answer.key))) > 0).any())

    def _note(self, answer: Answer, grew: bool) -> None:
        """Keep the answer as evidence. One that lacks bars we hold is incomplete, and so evidence of nothing."""
        key, (start, end) = answer.key, answer.span()
        held, given = self._opens_between(key, start, end), opens_of(answer.bars)
        if are_among(held, given).all():
            self._coverage.answered(key, start, end, answer.at, grew=grew)
        holes = self._holes(key, answer.at, SETTLED)
        self._unsettled.pop(key, None)
        if holes:
            self._unsettled[key] = holes[0][0]

    def _opens_between(self, key: Key, start: datetime, end: datetime) -> np.ndarray:
        opens = self._remembered_opens(key)
        if len(opens) >= MEMORY_BARS and opens[0] > stamp_of(start):
            with self._lock:
                return self._store.opens(*key, start, end)
        return opens[(opens >= stamp_of(start)) & (opens < stamp_of(end))]

    def _remembered_opens(self, key: Key) -> np.ndarray:
        return opens_of(self._remembered(key))

    def _remembered_from(self, key: Key, open: np.datetime64) -> pa.Table:
        return self._remembered(key).slice(int(np.searchsorted(self._remembered_opens(key), open)))

    def _judge(self, bars: pa.Table) -> tuple[pa.Table, pa.Table]:
        key = _key(bars)
        first = bars["open_time"][0]
        context = self._before(key, first.as_py())
        good, bad = validate(pa.concat_tables([context, bars]), Timeframe.parse(key[1]))
        return good.filter(pc.greater_equal(good["open_time"], first)), bad.filter(
            pc.greater_equal(bad["open_time"], first)
        )

    def _before(self, key: Key, first: datetime) -> pa.Table:
        """Up to CONTEXT_BARS stored bars that open before `first`, also where memory does not reach."""
        stored = self._remembered(key)
        if stored.num_rows >= MEMORY_BARS and stored["open_time"][0].as_py() >= first:
            since = first - Timeframe.parse(key[1]).delta * CONTEXT_BARS - timedelta(days=4)  # over a weekend
            with self._lock:
                stored = self._store.read([key[0]], key[1], since, first)
        context = stored.filter(pc.less(stored["open_time"], pa.scalar(first, BAR_SCHEMA.field("open_time").type)))
        return context.slice(max(context.num_rows - CONTEXT_BARS, 0))

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


def _key(bars: pa.Table) -> Key:
    return bars["symbol"][0].as_py(), bars["timeframe"][0].as_py()


def _pairs(bars: pa.Table) -> list[Key]:
    return list(zip(bars["symbol"].to_pylist(), bars["timeframe"].to_pylist(), strict=True))


def _of(bars: pa.Table, key: Key) -> pa.Table:
    """Rows of one symbol and timeframe."""
    if bars.num_rows == 0:
        return bars
    keep = pc.and_(pc.equal(bars["symbol"], key[0]), pc.equal(bars["timeframe"], key[1]))
    return bars.filter(keep) if np.any(keep.to_numpy(zero_copy_only=False)) else bars.slice(0, 0)
