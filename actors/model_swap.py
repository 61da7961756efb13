"""Which model serves each timeframe, and how a new champion takes over from it.

The champion is proven, loaded and asked on a thread of its own while the old model goes on forecasting; whatever it does
there is a reason, and the old one stays. Knows neither Ray nor HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from market.errors import in_one_line
from market.forecasts import HorizonForecast, iso_utc, parse_utc
from tuning.model_version import ModelVersion
from tuning.trial import wrong_with

RETRY_SECONDS = 15.0  # wall seconds before a champion that could not be loaded is tried again
UNREACHED_SECONDS = 1.0  # the same for a predictor that did not answer while nothing serves: it may just be starting
MOST_TRIES = 3  # of a champion, or of a forecast, that takes the predictor with it


class Champions(Protocol):
    """The part of tuning.registry.Registry that is needed here."""

    def champion_pointer(self, timeframe: str) -> dict[str, Any] | None: ...
    def get(self, model_id: str) -> ModelVersion: ...
    def refuse(self, timeframe: str, model_id: str, stays: str, why: str) -> None: ...


@dataclass(frozen=True)
class Serving:
    """The model that answers for one timeframe. `since`, `why`: when and why it became champion."""

    version: ModelVersion
    bars_needed: int
    since: datetime
    why: str


@dataclass(frozen=True)
class Refused:
    """The last champion that was not let in, or was sent back. `since`: wall time."""

    id: str
    reason: str
    since: datetime

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.id, "reason": self.reason, "since": iso_utc(self.since)}


@dataclass(frozen=True)
class _Outcome:
    """serving: None when the model is not fit, or (`unreached`) when nobody could tell."""

    serving: Serving | None
    reason: str = ""
    unreached: bool = False


Warm = Callable[[str, bool], Mapping[str, Any]]
Rehearse = Callable[[Serving], str]
Beside = Callable[[Callable[[], _Outcome]], "Future[_Outcome]"]


def at_once(call: Callable[[], _Outcome]) -> Future[_Outcome]:
    """Without a second thread: for tests."""
    done: Future[_Outcome] = Future()
    done.set_result(call())
    return done


class ModelSwap:
    """warm: (id, prove) -> {"ok", "reason", "bars_needed"}; `prove` asks for a trial in a process of its own first, which
    is not worth its seconds while there is no old model to protect. rehearse: what is wrong with the model's forecasts
    of the newest bars, "" when nothing. Both run beside; everything else belongs to one thread."""

    def __init__(
        self,
        registry: Champions,
        warm: Warm,
        rehearse: Rehearse,
        wall: Callable[[], datetime],
        beside: Beside = at_once,
    ) -> None:
        self._registry, self._warm, self._rehearse, self._wall, self._beside = registry, warm, rehearse, wall, beside
        self.serving: dict[str, Serving] = {}
        self.refused: dict[str, Refused] = {}
        self.problems: dict[str, str] = {}
        self._before: dict[str, Serving] = {}
        self._trials: dict[str, tuple[dict[str, Any], Future[_Outcome]]] = {}
        self._tries: dict[str, int] = {}
        self._retry_at: dict[str, datetime] = {}
        self._failures: dict[str, int] = {}

    def look(self, timeframe: str) -> bool:
        """Begin what is due, conclude what is done; whether another model serves now."""
        try:
            pointer = self._registry.champion_pointer(timeframe)
        except Exception as error:
            self._note(timeframe, f"The registry cannot be read: {error}")
            return False
        serving = self.serving.get(timeframe)
        if pointer is None:
            if serving is None:
                self._note(timeframe, "There is no champion yet; the first one is made as soon as history is in.")
            return False
        if timeframe not in self._trials:
            if serving is not None and serving.version.id == pointer["id"]:
                self.problems.pop(f"champion {timeframe}", None)
                return False
            again_at = self._retry_at.get(pointer["id"])
            if again_at is not None and self._wall() < again_at:
                return False
            self._trials[timeframe] = pointer, self._beside(lambda: self._try(pointer, serving))
        tried, outcome = self._trials[timeframe]
        if not outcome.done():
            return False
        del self._trials[timeframe]
        if tried["id"] != pointer["id"]:  # the registry has moved on meanwhile
            return False
        return self._conclude(timeframe, pointer["id"], outcome.result())

    def answered(self, timeframe: str) -> None:
        """The model that serves has made its forecasts."""
        self._failures.pop(timeframe, None)

    def failed(self, timeframe: str, reason: str, before_answers: Callable[[Serving], bool]) -> bool:
        """The predictor died or fell silent over a forecast. After several in a row, and when the model before answers
        the same bars (so it is the model), that one serves again; whether it does."""
        self._failures[timeframe] = self._failures.get(timeframe, 0) + 1
        before = self._before.get(timeframe)
        if before is None or self._failures[timeframe] < MOST_TRIES or not before_answers(before):
            return False
        return self.send_back(timeframe, reason)

    def send_back(self, timeframe: str, reason: str) -> bool:
        """The model before serves again, the present one is refused; False when there is none before."""
        before = self._before.pop(timeframe, None)
        if before is None:
            return False
        bad = self.serving[timeframe].version.id
        self.serving[timeframe] = before
        self._failures.pop(timeframe, None)
        self._refuse(timeframe, bad, reason)
        return True

    def _try(self, pointer: Mapping[str, Any], old: Serving | None) -> _Outcome:
        """Beside: never raises."""
        model_id = pointer["id"]
        try:
            answer = self._warm(model_id, old is not None or model_id in self._tries)
            if not answer.get("ok"):
                return _Outcome(None, str(answer.get("reason")))
            version = self._registry.get(model_id)
            since, needed = parse_utc(pointer["since"]), int(answer.get("bars_needed") or 1)
            made = Serving(version, needed, since, pointer["why"])
            reason = self._rehearse(made) if old is not None else ""
        except Exception as error:  # the predictor is another process: anything can come back
            return _Outcome(None, in_one_line(error), unreached=True)
        return _Outcome(None, reason) if reason else _Outcome(made)

    def _conclude(self, timeframe: str, model_id: str, outcome: _Outcome) -> bool:
        old = self.serving.get(timeframe)
        if outcome.serving is not None:
            if old is not None:
                self._before[timeframe] = old
            self.serving[timeframe] = outcome.serving
            for kept in (self._tries, self._retry_at):
                kept.pop(model_id, None)
            self._failures.pop(timeframe, None)
            if timeframe in self.refused and self.refused[timeframe].id == model_id:
                del self.refused[timeframe]  # promoted again and fit now
            self.problems.pop(f"champion {timeframe}", None)
            return True
        self._tries[model_id] = self._tries.get(model_id, 0) + 1
        pause = UNREACHED_SECONDS if outcome.unreached and old is None else RETRY_SECONDS
        self._retry_at[model_id] = self._wall() + timedelta(seconds=pause)
        stays = f"; {old.version.id} stays" if old else ""
        self._note(timeframe, f"{model_id} could not be loaded: {outcome.reason}{stays}")
        if old is not None and (not outcome.unreached or self._tries[model_id] >= MOST_TRIES):
            self._refuse(timeframe, model_id, outcome.reason)
        return False

    def _refuse(self, timeframe: str, model_id: str, reason: str) -> None:
        """Also in the registry, so that the next life of this process begins with the model that serves."""
        stays = self.serving[timeframe].version.id
        self.refused[timeframe] = Refused(model_id, reason, self._wall())
        try:
            self._registry.refuse(timeframe, model_id, stays, f"{model_id} was refused: {reason}")
        except Exception as error:
            self._retry_at[model_id] = self._wall() + timedelta(seconds=RETRY_SECONDS)
            return self._note(timeframe, f"{model_id} was refused, {stays} stays: {reason} ({in_one_line(error)})")
        for kept in (self._tries, self._retry_at):  # when it is promoted again, that is a new wish
            kept.pop(model_id, None)
        self.problems.pop(f"champion {timeframe}", None)

    def _note(self, timeframe: str, problem: str) -> None:
        self.problems[f"champion {timeframe}"] = problem


def unsound(forecasts: Mapping[str, tuple[HorizonForecast, ...]]) -> dict[str, str]:
    """Symbol -> what is wrong with its forecast: a number that is missing, none, or out of order."""
    found = {}
    for symbol, horizons in forecasts.items():
        wrong = [f"{symbol}, {horizon.bars} bars: {why}" for horizon in horizons if (why := wrong_with(horizon))]
        if wrong or not horizons:
            found[symbol] = wrong[0] if wrong else f"{symbol}: no horizons"
    return found
