"""Forecasts of the newest stored bars by any model of the registry, made when somebody asks: the deployment OnDemand.

A deployment of its own, not the Predictor: nobody has tried a challenger or an archived model on today's bars, and one
that crashes or hangs takes its process with it. Here that costs those who ask on demand another try, while the
forecaster's calls go to processes and queues that no such question reaches. A trial process would catch a crash while
loading but none that a later bar brings. It begins with no replica, since one with a stack in it holds as much memory
as the rest of serving; the first question waits for its start. A plain class; knows neither Ray nor HTTP.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import pyarrow as pa

from actors.model_swap import unsound
from market.errors import ModelError
from market.forecasts import Forecast, HorizonForecast, SkillCard
from serve_app.predictor import BundleShelf, HangWatch, Model, forecast_each

# A second opinion may wait for the forecaster, which shares its processors with it.
NICENESS = 5
LIVE_REASON = "Made on demand: only what the forecaster makes is recorded and judged live."
NOT_LIVE: dict[str, Any] = dict.fromkeys(("live_value", "live_t", "live_coverage80", "live_since")) | {
    "live_n": 0,
    "live_baseline": "",
    "live_reason": LIVE_REASON,
}
# What such a forecast says beyond its own fields.
UNRECORDED: dict[str, Any] = {
    "on_demand": True,
    "recorded": False,
    "signal": {
        "side": "none",
        "reason_code": "on_demand",
        "reason": "A forecast made on demand gives no signal: it is not recorded, so nobody could hold it to account.",
    },
}


class Store(Protocol):
    """What is used of `market.bar_store.BarStore`."""

    def data_version(self) -> str: ...
    def tail(self, symbol: str, timeframe: str, n: int) -> pa.Table: ...


@dataclass(frozen=True)
class Batch:
    """What one model says of some symbols: JSON-ready forecasts and pooled skill cards, why a symbol has none as (code,
    words), and, with nothing else, why the model is not to be had."""

    forecasts: dict[str, dict[str, Any]] = field(default_factory=dict)
    skill: list[dict[str, Any]] = field(default_factory=list)
    lacking: dict[str, tuple[str, str]] = field(default_factory=dict)
    refused: str = ""


class OnDemand:
    """Stateless but for its shelf of models. `store` is opened at the first question; `niceness` is added to the process's."""

    def __init__(
        self,
        load: Callable[[str], Model],
        store: Callable[[], Store],
        *,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
        niceness: int = 0,
    ) -> None:
        self._shelf, self._watch = BundleShelf(load), HangWatch(clock)
        self._open, self._reading = store, threading.Lock()
        self._store: Store | None = None
        self._wall = wall
        os.nice(niceness)

    async def forecast(self, model_id: str, symbols: Sequence[str]) -> Batch:
        """All symbols in one call of the model. Raises what the model raises when it can forecast none of them."""
        return await asyncio.to_thread(self._forecast, model_id, symbols)

    async def check_health(self) -> None:
        self._watch.check()

    def _forecast(self, model_id: str, symbols: Sequence[str]) -> Batch:
        with self._watch.call():
            try:
                model = self._shelf.get(model_id)
            except ModelError as error:
                return Batch(refused=error.message)
            data_version, tails = self._tails(symbols, model.version.timeframe, model.bars_needed)
            enough = {symbol: table for symbol, table in tails.items() if table.num_rows >= model.bars_needed}
            answers = forecast_each(model, enough) if enough else {}
        wrong = unsound(answers)
        lacking = {
            symbol: ("too-few-bars", f"{table.num_rows} bars of {symbol} are stored, {model.bars_needed} are needed.")
            for symbol, table in tails.items()
            if symbol not in enough
        } | {
            symbol: ("unsound-forecast", f"{model_id} forecast nonsense: {wrong.get(symbol, 'nothing at all')}.")
            for symbol in enough
            if symbol in wrong or symbol not in answers
        }
        made = {
            symbol: self._dressed(symbol, tails[symbol], answers[symbol], model, data_version)
            for symbol in enough
            if symbol not in lacking
        }
        pooled = [card.to_dict() for bars in model.version.horizons for card in _skill(model, bars)]
        return Batch(made, pooled, lacking)

    def _tails(self, symbols: Sequence[str], timeframe: str, n: int) -> tuple[str, dict[str, pa.Table]]:
        with self._reading:  # the store is not made for several threads
            self._store = store = self._store or self._open()
            return store.data_version(), {symbol: store.tail(symbol, timeframe, n) for symbol in symbols}

    def _dressed(
        self, symbol: str, bars: pa.Table, horizons: tuple[HorizonForecast, ...], model: Model, data_version: str
    ) -> dict[str, Any]:
        """As the forecaster publishes it, less what it learns from live outcomes; whoever serves it names the market."""
        forecast = Forecast(
            symbol=symbol,
            timeframe=model.version.timeframe,
            as_of=bars["close_time"][-1].as_py(),
            last_close=bars["close"][-1].as_py(),
            horizons=tuple(replace(horizon, skill=_skill(model, horizon.bars)) for horizon in horizons),
            model_id=model.version.id,
            data_version=data_version,
            made_at=self._wall(),
            market="",
        )
        return forecast.to_dict() | UNRECORDED


def _skill(model: Model, bars: int) -> tuple[SkillCard, ...]:
    """The model's measured cards of one horizon; nothing is known of how it does live."""
    names = {f"rv{bars}", f"r{bars}", f"sign{bars}"}
    return tuple(replace(card, **NOT_LIVE) for card in model.version.skill if card.target in names)


def bar_store(home: str) -> Callable[[], Store]:
    """Opens the bars of the installation in `home`."""

    def open_store() -> Store:
        from configs.settings import load_settings
        from market.bar_store import BarStore

        return BarStore(load_settings(home).bars_path)

    return open_store
