"""The newest forecasts in this replica's memory: ready-made bytes and an ETag per symbol, and the events of the stream.

Pure: no HTTP, no Ray, and market time comes from an injected clock. Each symbol and timeframe has a key, "EURUSD/H1".
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

import orjson
import structlog

from configs.settings import Settings
from market.forecasts import BoardUpdate, iso_utc, parse_utc
from market.market_clock import add_open_time, grace, holiday_at
from market.symbols import CATALOGUE
from market.timeframes import Timeframe
from serve_app.condition import Condition, MarketHours, condition_of, signal_under, source_problem, stale_after
from serve_app.plain_words import skill_sentence
from serve_app.stream import Event, Subscription

_log = structlog.get_logger("lstmc.api")
BAR_COLUMNS = ("close_time", "open", "high", "low", "close")
EVENTS_KEPT = 16  # each has every symbol, twice: half a megabyte with 28; who has missed more takes a snapshot
SNAPSHOT_SECONDS = 1.0
NOT_REPORTED = "The forecaster has not reported yet; history is being loaded."
SILENCE_SECONDS = 30.0  # wall seconds without a word from the forecaster, which is asked every two


@dataclass(frozen=True)
class Answer:
    """A body ready to send and the tag of what it says; the tag leaves out age and time of serving."""

    body: bytes
    etag: str


@dataclass
class Card:
    """One rendered forecast: `head` is its JSON without the closing brace, so that age and time can be put behind."""

    forecast: dict[str, Any]  # as it was made
    skill: list[dict[str, Any]]
    head: bytes
    etag: str
    streamed: dict[str, Any]  # all of it but `skill`, which an event carries once for all of them
    as_of: datetime
    condition: Condition
    until: datetime  # market time at which the condition has to be judged again


def key_of(symbol: str, timeframe: str) -> str:
    return f"{symbol}/{timeframe}"


def etag_of(body: bytes) -> str:
    return f'W/"{blake2b(body, digest_size=10).hexdigest()}"'


@dataclass
class Board:
    """Holds the newest `BoardUpdate` and renders it once per change. `symbols` and `timeframes` are those served.

    `now` is the market's clock, `wall` the wall's (epoch seconds); `speed` is market seconds per wall second. What is
    wrong is judged at every answer, so it can never be older than the answer itself.
    """

    now: Callable[[], datetime]
    symbols: tuple[str, ...] = ()
    timeframes: tuple[str, ...] = ()
    speed: float = 1.0
    bars_kept: int = 240
    wall: Callable[[], float] = time.time
    instance: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    def __post_init__(self) -> None:
        self.update = BoardUpdate(version=-1)
        self.filled = False
        self.unrendered = ""  # what of the newest update could not be rendered, and why
        self.heard_at: float | None = None  # wall; set by whoever follows the forecaster
        self._silent = False
        self._snapshot: tuple[Event, float] | None = None  # and when it was made
        self._hours = MarketHours.at(self.now())
        self._cards: dict[str, Card] = {}
        self._served_at = (-1, "")
        self._sequence = 0
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._subscribers: set[Subscription] = set()
        self.streams_end = False

    @property
    def grace(self) -> timedelta:
        return grace(self.speed)

    # Writing

    def apply(self, update: BoardUpdate) -> bool:
        """Take over `update`, tell the subscribers; False when it is not newer than what is held.

        Versions count within one life of the forecaster (`status["started_at"]`); another life is always newer. What
        cannot be rendered, which would be a fault of ours, stays as it was; the other series go on.
        """
        if self.filled and self.same_life(update) and update.version <= self.update.version:
            return False
        bars, new_bars = self._merge_bars(update.bars)
        previous, self.filled = self.update, True
        self.update = BoardUpdate(
            version=update.version,
            forecasts=previous.forecasts | update.forecasts,
            signals=previous.signals | update.signals,
            skill=previous.skill | update.skill,
            models=previous.models | update.models,
            bars=bars,
            status=update.status,
        )
        self._look_at_clocks()
        self.unrendered = ""
        changed = [key for key in list(self.update.forecasts) if self._renders(key, previous)]
        self._emit(changed, new_bars)
        return True

    def tick(self) -> list[str]:
        """Judge every forecast again; those whose condition changed are rendered, sent to the subscribers and returned."""
        self._look_at_clocks()
        now, flipped = self.now(), []
        for key, card in list(self._cards.items()):
            due = now >= card.until or card.condition != self._condition(self.update.forecasts[key], card.as_of)
            if due and self._render(key):
                flipped.append(key)
        if flipped:
            self._emit(flipped, {})
        return flipped

    def heard(self) -> None:
        """The forecaster has answered, if only that there is nothing new."""
        self.heard_at = self.wall()

    @property
    def forecaster_away(self) -> str:
        """Since when nothing was heard of the forecaster; empty while it is. Unknown, and so empty, without a follower."""
        if self.heard_at is None or self.wall() - self.heard_at <= SILENCE_SECONDS:
            return ""
        since = iso_utc(datetime.fromtimestamp(int(self.heard_at), UTC))
        return f"The forecaster has not been heard of since {since}; newer bars and forecasts may be missing."

    @property
    def hours(self) -> MarketHours:
        """As of the last look: `tick`, or an answer."""
        return self._hours

    def _look_at_clocks(self) -> None:
        now = self.now()
        self._silent = bool(self.forecaster_away)
        # A holiday is believed when nothing trades: every series is late while the source answers.
        holiday = holiday_at(now) if self.update.forecasts and not source_problem(self.update.status) else None
        late = holiday is not None and all(
            now > stale_after(parse_utc(f["as_of"]), Timeframe.parse(f["timeframe"]), self.grace)
            for f in self.update.forecasts.values()
        )
        self._hours = MarketHours.at(now, holiday if late else None)

    def same_life(self, update: BoardUpdate) -> bool:
        return update.status.get("started_at") == self.update.status.get("started_at")

    def follows(self, update: BoardUpdate) -> bool:
        """Whether nothing is missing between what is held and `update`."""
        return self.filled and self.same_life(update) and update.version <= self.update.version + 1

    def _merge_bars(
        self, incoming: dict[str, list[list[Any]]]
    ) -> tuple[dict[str, list[list[Any]]], dict[str, list[list[Any]]]]:
        """(all bars, oldest first, at most `bars_kept`; only those that are new or revised)."""
        held, new = dict(self.update.bars), {}
        for key, rows in incoming.items():
            known = {row[0]: row for row in held.get(key, [])}
            fresh = [list(row) for row in rows if known.get(row[0]) != list(row)]
            if fresh:
                known |= {row[0]: row for row in fresh}
                held[key] = [known[close] for close in sorted(known)][-self.bars_kept :]
                new[key] = fresh[-self.bars_kept :]
            held.setdefault(key, [])
        return held, new

    # Rendering

    def _condition(self, forecast: Mapping[str, Any], as_of: datetime) -> Condition:
        frame, status, away = Timeframe.parse(forecast["timeframe"]), self.update.status, self.forecaster_away
        if forecast.get("on_demand"):  # what holds up the forecaster, or its model, does not hold up this one
            series = status.get("series") or {}
            status = status | {"series": {key: one for key, one in series.items() if one["code"] == "data_refused"}}
            away = away or ("" if self.filled else NOT_REPORTED)
        return condition_of(forecast, as_of, frame, self.grace, self.now(), self._hours, status, away)

    def _renders(self, key: str, before: BoardUpdate) -> bool:
        """As `_render`, or takes back what came with this update."""
        try:
            return self._render(key)
        except Exception as error:
            self.unrendered = f"The forecast of {key} cannot be rendered: {type(error).__name__}: {error}"
            _log.error(self.unrendered)
            for held, old in ((self.update.forecasts, before.forecasts), (self.update.signals, before.signals)):
                held.pop(key, None)
                held.update({key: old[key]} if key in old else {})
            return False

    def _render(self, key: str) -> bool:
        """Render one forecast; whether it says something new to those who listen to the stream."""
        forecast, old = self.update.forecasts[key], self._cards.get(key)
        self._cards[key] = card = self.card(forecast, self.skill_cards(forecast["timeframe"]))
        return old is None or old.streamed != card.streamed

    def card(self, forecast: dict[str, Any], skill: list[dict[str, Any]]) -> Card:
        """A forecast under the condition of now. `skill`: what stands beside its horizons."""
        timeframe, as_of = Timeframe.parse(forecast["timeframe"]), parse_utc(forecast["as_of"])
        condition = self._condition(forecast, as_of)
        limit, changes = stale_after(as_of, timeframe, self.grace), self._hours.changes
        until = min((moment for moment in (limit, changes) if moment >= self.now()), default=changes)
        fields = forecast | {
            "next_bar_due": iso_utc(add_open_time(as_of, timeframe.delta)),
            "stale": condition.stale,
            "reason": condition.reason,
            "reason_code": condition.code,
            "market_open": self._hours.is_open,
            "next_open": iso_utc(self._hours.next_open),
        }
        head = orjson.dumps(fields | {"skill": skill})[:-1]
        return Card(forecast, skill, head, etag_of(head), fields, as_of, condition, until)

    def renewed(self, card: Card) -> Card:
        """`card`, rendered again where its condition is another one by now. For cards that the board does not hold."""
        if overdue := self.now() >= card.until:
            self._look_at_clocks()
        changed = overdue or card.condition != self._condition(card.forecast, card.as_of)
        return self.card(card.forecast, card.skill) if changed else card

    def _fresh(self, key: str, now: datetime | None = None) -> Card | None:
        card = self._cards.get(key)
        if card is not None and ((now or self.now()) >= card.until or self._silent != bool(self.forecaster_away)):
            self.tick()
            card = self._cards[key]
        return card

    def _behind(self, card: Card, now: datetime) -> bytes:
        """Age of the newest bar in market seconds, and the wall time of this answer, as the end of a JSON object."""
        return b',"data_age_seconds":%d,"served_at":"%s"}' % (self._age(card, now), self.served_at().encode())

    def _age(self, card: Card, now: datetime) -> int:
        return max(0, int((now - card.as_of).total_seconds()))

    def _streamed(self, key: str) -> dict[str, Any]:
        card = self._cards[key]
        return card.streamed | {"data_age_seconds": self._age(card, self.now()), "served_at": self.served_at()}

    def served_at(self) -> str:
        second = int(self.wall())
        if self._served_at[0] != second:  # written once a second: it took a third of an answer's time
            self._served_at = second, str(iso_utc(datetime.fromtimestamp(second, UTC)))
        return self._served_at[1]

    # Reading

    def has(self, key: str) -> bool:
        return key in self._cards

    @property
    def ready(self) -> bool:
        return bool(self._cards)

    @property
    def count(self) -> int:
        return len(self._cards)

    @property
    def stale_keys(self) -> list[str]:
        return [key for key, card in self._cards.items() if card.condition.stale]

    def forecast(self, key: str) -> Answer | None:
        now = self.now()
        card = self._fresh(key, now)
        return None if card is None else self.answer(card, now)

    def answer(self, card: Card, now: datetime) -> Answer:
        return Answer(card.head + self._behind(card, now), card.etag)

    def forecasts(self, timeframe: str, symbols: Iterable[str]) -> Answer:
        """All of one timeframe in one body; symbols without a forecast stand under `missing` with the reason."""
        symbols = tuple(symbols)
        found = [self.forecast(key_of(symbol, timeframe)) for symbol in symbols]
        answers = [answer for answer in found if answer is not None]
        said = orjson.dumps({"timeframe": timeframe, "count": len(answers)} | self.missing(timeframe, symbols))[:-1]
        tag = etag_of(said + "".join(answer.etag for answer in answers).encode())
        body = said + b',"forecasts":[' + b",".join(answer.body for answer in answers)
        return Answer(body + b'],"served_at":"' + self.served_at().encode() + b'"}', tag)

    def missing(self, timeframe: str, symbols: Iterable[str]) -> dict[str, dict[str, str]]:
        """`missing` and `missing_codes`: why each of `symbols` has no forecast, in words and as a code."""
        why = {s: self.why_missing(s, timeframe) for s in symbols if not self.has(key_of(s, timeframe))}
        return {
            "missing": {symbol: reason for symbol, (_, reason) in why.items()},
            "missing_codes": {symbol: code for symbol, (code, _) in why.items()},
        }

    def why_missing(self, symbol: str, timeframe: str) -> tuple[str, str]:
        """(code, reason) for a symbol that has no forecast."""
        if not self.filled:
            return "forecaster_away", NOT_REPORTED
        if away := self.forecaster_away:
            return "forecaster_away", away
        if timeframe not in self.update.models:
            return "model_missing", f"No model has been promoted for {timeframe} yet."
        series = (self.update.status.get("series") or {}).get(key_of(symbol, timeframe))
        if series:
            return series["code"], series["reason"]
        return "forecast_failed", f"No forecast has been made for {symbol} {timeframe} yet."

    @property
    def conditions(self) -> dict[str, str]:
        """Series that is not well -> its code, those without a forecast among them."""
        found = {key: card.condition.code for key, card in self._cards.items()}
        for timeframe in self.timeframes:
            codes = self.missing(timeframe, self.symbols)["missing_codes"]
            found |= {key_of(symbol, timeframe): code for symbol, code in codes.items()}
        return {key: code for key, code in found.items() if code}

    def signal_fields(self, key: str) -> dict[str, Any] | None:
        """The signal of `key`. With anything wrong it is never a side to take: it becomes "none" and says why."""
        signal, card = self.update.signals.get(key), self._fresh(key)
        if signal is None:
            return None
        condition = card.condition if card else Condition("forecast_failed", "There is no forecast behind it.", True)
        return signal_under(signal, condition)

    def skill_cards(self, timeframe: str) -> list[dict[str, Any]]:
        return [card | {"in_words": skill_sentence(card)} for card in self.update.skill.get(timeframe, [])]

    def bars(self, key: str, limit: int) -> list[list[Any]]:
        """The newest `limit` closed bars, oldest first, as BAR_COLUMNS."""
        return self.update.bars.get(key, [])[-limit:]

    # The stream

    def subscribe(self, *, signals: bool, last_event_id: str = "") -> Subscription:
        """A subscription that first gets what it missed after `last_event_id`, or a whole snapshot."""
        subscription = Subscription(signals)
        missed = self._events_after(last_event_id)
        if missed is None:
            subscription.lagged = True
        else:
            for event in missed:
                subscription.offer(event)
        self._subscribers.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscribers.discard(subscription)

    def wake_subscribers(self) -> None:
        """Let every listener look whether it may still listen."""
        for subscriber in self._subscribers:
            subscriber.wake()

    def end_streams(self) -> None:
        """Every listener is to go on elsewhere: its stream ends behind the last whole event."""
        self.streams_end = True
        self.wake_subscribers()

    @property
    def subscriber_count(self) -> int:
        return len(self._subscribers)

    def snapshot_event(self) -> Event:
        """Everything there is, under the newest event's id; made once for all who come within a second."""
        held = self._snapshot
        if held is None or held[0].number != self._sequence or self.wall() - held[1] > SNAPSHOT_SECONDS:
            event = self._event("snapshot", self._sequence, list(self._cards), self.update.bars)
            held = self._snapshot = event, self.wall()
        return held[0]

    def heartbeat(self) -> bytes:
        said = {"market_time": iso_utc(self.now()), "served_at": self.served_at()}
        return b"event: heartbeat\ndata: " + orjson.dumps(said) + b"\n\n"

    def _events_after(self, last_event_id: str) -> list[Event] | None:
        instance, _, number = last_event_id.rpartition("-")
        if instance != self.instance or not number.isdigit():
            return None
        known = int(number)
        oldest = self._events[0].number if self._events else self._sequence + 1
        if known > self._sequence or known < oldest - 1:
            return None
        return [event for event in self._events if event.number > known]

    def _emit(self, changed: list[str], new_bars: dict[str, list[list[Any]]]) -> None:
        self._sequence += 1
        event = self._event("update", self._sequence, changed, new_bars)
        self._events.append(event)
        for subscriber in self._subscribers:
            subscriber.offer(event)

    def _event(self, kind: str, number: int, keys: list[str], bars: dict[str, list[list[Any]]]) -> Event:
        said = {
            "version": self.update.version,
            "market_time": iso_utc(self.now()),
            "market_open": self._hours.is_open,
            "next_open": iso_utc(self._hours.next_open),
            "speed": self.speed,
            "served_at": self.served_at(),
            "forecasts": {key: self._streamed(key) for key in keys},
            "bars": bars,
            "bar_columns": BAR_COLUMNS,
            "symbols": self.symbols,
            "timeframes": self.timeframes,
            "digits": {code: CATALOGUE[code].digits for code in self.symbols},
            "skill": {timeframe: self.skill_cards(timeframe) for timeframe in self.update.skill},
            "models": self.update.models,
            "status": self.update.status,
        }
        signals = {key: self.signal_fields(key) for key in keys if key in self.update.signals}
        return Event.encode(f"{self.instance}-{number}", number, kind, said, signals)


def board_for(settings: Settings, now: Callable[[], datetime] | None = None) -> Board:
    """An empty board for one installation, on its market clock unless `now` is given."""
    return Board(
        now or settings.market_clock.now, settings.symbols, settings.timeframes, settings.speed, settings.board_bars
    )
