"""Forecasts on demand as the HTTP side sees them: which model is meant, what is kept, who waits for whom and how long.

Asks for the same model travel together, the same ask once, and one call for a model is under way at a time. Nobody waits
long: a call goes on without those who gave up, and what it brings is there when they ask again. Pure: `compute` is given.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from market.errors import BundleRefused, ModelError, in_one_line
from market.forecasts import parse_utc
from market.market_clock import add_open_time
from market.timeframes import Timeframe
from serve_app.board import Answer, Card, key_of
from serve_app.on_demand import Batch
from serve_app.plain_words import skill_sentence
from serve_app.problems import Problem, unavailable
from serve_app.question import Question
from tuning.model_version import ModelVersion

GATHER_SECONDS = 0.01  # for asks of the same moment to come together
WAIT_SECONDS = 8.0  # of one request; the Python client gives up after ten
CALL_SECONDS = 60.0  # a replica that starts and a stack that is loaded included
PAUSE_SECONDS = 60.0  # for a model whose call failed: it may have taken a replica with it
RECHECK_SECONDS = 2.0  # between looks for a bar that is due, or for what was missing
MOST_WAITING = 200  # requests of one replica, which holds ten times as many
ANSWERS_KEPT = 256  # of some 10 KB
_log = structlog.get_logger("lstmc.api")

Compute = Callable[[str, Sequence[str]], Awaitable[Batch]]
Said = Mapping[str, Card | Problem]  # by symbol


class Busy(Exception):
    """The queue of those who compute is full."""


async def nobody(model_id: str, symbols: Sequence[str]) -> Batch:
    """Where there is no deployment."""
    raise Busy


class Models(Protocol):
    """What is used of `tuning.registry.Registry`."""

    def get(self, model_id: str) -> ModelVersion: ...
    def champion_pointer(self, timeframe: str) -> dict[str, Any] | None: ...


@dataclass
class _Kept:
    said: Card | Problem
    at: float  # loop time of the last look


@dataclass
class _Flight:
    """One call. Asks join it until it has `gone`, those for its own symbols until it is back."""

    symbols: set[str]
    task: asyncio.Task[Said] | None = None
    gone: bool = False


class Asks:
    """Belongs to one event loop, whose clock it uses. `compute`: raises Busy, or anything else when the call failed."""

    def __init__(self, question: Question, models: Models, compute: Compute) -> None:
        self._question, self._models, self._compute = question, models, compute
        self._board = question.board
        self._versions: dict[str, ModelVersion] = {}  # a model's id is a hash of its content
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()  # by model and symbol
        self._flights: dict[str, list[_Flight]] = {}
        self._paused: dict[str, float] = {}  # model -> until when, loop time
        self._waiting = 0

    async def by_model(self, symbol: str, timeframe: str | None, model_id: str) -> Answer:
        """The newest forecast by that model: the board's own where it serves. Without a timeframe, the model's."""
        version = await self._version(model_id)
        frame = self._question.timeframe(timeframe or version.timeframe)
        if frame != version.timeframe or symbol not in version.symbols:
            raise _not_made_for(version, symbol, frame)
        key = key_of(symbol, frame)
        if self._board.update.forecasts.get(key, {}).get("model_id") == model_id and (has := self._board.forecast(key)):
            return has
        return await self._answer(symbol, version)

    async def by_champion(self, symbol: str, timeframe: str) -> Answer:
        """For a series of which the board has nothing, because the forecaster has not come to it; the usual problem where
        it has, and while there is no champion that knows the symbol."""
        not_yet = self._question.not_yet(symbol, timeframe)
        series = (self._board.update.status.get("series") or {}).get(key_of(symbol, timeframe), {})
        if series.get("code", "model_missing") != "model_missing":
            raise not_yet
        try:
            pointer = await asyncio.to_thread(self._models.champion_pointer, timeframe)
            version = await self._version(pointer["id"]) if pointer else None
            if version and symbol in version.symbols:
                return await self._answer(symbol, version)
        except (ModelError, Problem) as error:
            if isinstance(error, Problem) and error.status == 503:
                raise
        raise not_yet  # also where the champion is refused: it is not for the caller to choose another

    async def _version(self, model_id: str) -> ModelVersion:
        if model_id not in self._versions:
            try:
                self._versions[model_id] = await asyncio.to_thread(self._models.get, model_id)
            except BundleRefused as error:
                raise _refused(error.message) from None
            except ModelError as error:
                raise Problem(404, "unknown-model", "Unknown model", error.message, hint=CHOOSE) from None
        return self._versions[model_id]

    async def _answer(self, symbol: str, version: ModelVersion) -> Answer:
        said = self._known(symbol, version) or await self._made(symbol, version)
        if isinstance(said, Problem):
            raise said
        return self._board.answer(said, self._board.now())

    # What is kept

    def _known(self, symbol: str, version: ModelVersion) -> Card | Problem | None:
        kept = self._kept.get((version.id, symbol))
        if kept is None or self._outdated(kept, key_of(symbol, version.timeframe)):
            return None
        self._kept.move_to_end((version.id, symbol))
        if isinstance(kept.said, Card):
            kept.said = self._board.renewed(kept.said)
        return kept.said

    def _outdated(self, kept: _Kept, key: str) -> bool:
        """Whether there is a newer bar, or there may be one and nobody has looked for a while."""
        due = True
        if isinstance(kept.said, Card):
            newest = self._board.bars(key, 1)
            if newest and parse_utc(newest[0][0]) > kept.said.as_of:
                return True
            due = self._board.now() >= add_open_time(kept.said.as_of, Timeframe.parse(key.partition("/")[2]).delta)
        return due and asyncio.get_running_loop().time() - kept.at >= RECHECK_SECONDS

    def _keep(self, model_id: str, batch: Batch) -> Said:
        now, skill = asyncio.get_running_loop().time(), [c | {"in_words": skill_sentence(c)} for c in batch.skill]
        said: dict[str, Card | Problem] = {symbol: _lacks(*why) for symbol, why in batch.lacking.items()}
        for symbol, forecast in batch.forecasts.items():
            card = self._board.card(forecast | {"market": self._market()}, skill)
            kept = self._kept.get((model_id, symbol))
            if kept and isinstance(kept.said, Card) and kept.said.as_of == card.as_of:
                card = self._board.renewed(kept.said)  # without a new bar: the same bytes
            said[symbol] = card
        for symbol, one in said.items():
            self._kept[model_id, symbol] = _Kept(one, now)
            self._kept.move_to_end((model_id, symbol))
        while len(self._kept) > ANSWERS_KEPT:
            self._kept.popitem(last=False)
        return said

    def _market(self) -> str:
        """As the forecaster says it: over HTTP the host at the other end knows whether its market is simulated."""
        ours = self._question.settings.market
        told = (self._board.update.status.get("source") or {}).get("market") if ours == "http" else None
        return str(told or ours)

    # Who waits for whom

    async def _made(self, symbol: str, version: ModelVersion) -> Card | Problem:
        if self._waiting >= MOST_WAITING:
            raise _busy()
        self._waiting += 1
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                return (await asyncio.shield(self._join(version.id, symbol)))[symbol]
        except TimeoutError:
            raise _under_way(version.id) from None
        finally:
            self._waiting -= 1

    def _join(self, model_id: str, symbol: str) -> asyncio.Task[Said]:
        flights = self._flights.setdefault(model_id, [])
        for flight in flights:
            if flight.task and (symbol in flight.symbols or not flight.gone):
                flight.symbols.add(symbol)
                return flight.task
        flight = _Flight({symbol})
        flight.task = asyncio.create_task(self._fly(model_id, flight, flights[-1].task if flights else None))
        flights.append(flight)
        return flight.task

    async def _fly(self, model_id: str, flight: _Flight, before: asyncio.Task[Said] | None) -> Said:
        try:
            await asyncio.sleep(GATHER_SECONDS)
            if before:
                await asyncio.wait([before])
            flight.gone = True
            said = await self._call(model_id, sorted(flight.symbols))
            return dict.fromkeys(flight.symbols, said) if isinstance(said, Problem) else self._keep(model_id, said)
        finally:
            self._flights[model_id].remove(flight)
            if not self._flights[model_id]:
                del self._flights[model_id]

    async def _call(self, model_id: str, symbols: list[str]) -> Batch | Problem:
        """Never raises."""
        now = asyncio.get_running_loop().time
        if (left := self._paused.get(model_id, 0.0) - now()) > 0:
            return _failed(model_id, left)
        try:
            async with asyncio.timeout(CALL_SECONDS):
                batch = await self._compute(model_id, symbols)
        except Busy:
            return _busy()
        except Exception as error:  # another process: anything can come back, or nothing
            _log.warning("forecast on demand failed", model=model_id, symbols=symbols, reason=in_one_line(error))
            self._paused[model_id] = now() + PAUSE_SECONDS
            return _failed(model_id, PAUSE_SECONDS)
        return _refused(batch.refused) if batch.refused else batch


CHOOSE = "`lstmc models list` shows those of this installation; without `model` the champion answers."


def _not_made_for(version: ModelVersion, symbol: str, frame: str) -> Problem:
    served = {"symbols": list(version.symbols), "timeframe": version.timeframe}
    said = f"{version.id} was trained on {version.timeframe} of {', '.join(version.symbols)}, not on {symbol} {frame}."
    return Problem(422, "model-mismatch", "Not a model of this series", said, hint=CHOOSE, more={"trained_on": served})


def _refused(why: str) -> Problem:
    return Problem(422, "model-refused", "The model is not sound", why, hint=f"Choose another one. {CHOOSE}")


def _lacks(code: str, why: str) -> Problem:
    hint = "Watch /api/v1/status while history is loaded; `lstmc bars gaps` shows what is missing."
    return unavailable(code, "No forecast of this series", why, hint=hint, retry_after=10)


def _busy() -> Problem:
    said = "More forecasts are asked for on demand than can wait."
    return unavailable("on-demand-busy", "Too many forecasts on demand", said, hint="Ask again later.", retry_after=2)


def _under_way(model_id: str) -> Problem:
    said = f"The forecast by {model_id} was not ready within {WAIT_SECONDS:.0f} s; it is still being made."
    hint = "Ask again: what is made meanwhile is kept. The first question has to wait for a process to start."
    return unavailable("on-demand-under-way", "Still being made", said, hint=hint, retry_after=2)


def _failed(model_id: str, seconds: float) -> Problem:
    said = f"The last forecast by {model_id} failed, or its process crashed or hung; it is not asked for a while."
    hint = f"The log of the API has the reason. {CHOOSE}"
    return unavailable("on-demand-failed", "The model failed", said, hint=hint, retry_after=math.ceil(seconds))
