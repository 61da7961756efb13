"""Bundles in memory, by id: load, verify, probe, forecast. A model's id travels with every request, so a swap is atomic.

A plain class, made a Serve deployment in `serve_app.app`. Knows nothing about champions; it never raises on a bad bundle
while warming, and has no `reconfigure`, since one that raises is an outage. What may crash or hang is first tried in a
process of its own: the models that serve live in this one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import structlog

from market.bars import bars_from_columns
from market.errors import BundleRefused, LstmcError
from market.forecasts import HorizonForecast
from market.symbols import symbol as parse_symbol
from market.timeframes import Timeframe
from tuning.model_version import ModelVersion
from tuning.trial import wrong_with

_log = structlog.get_logger("lstmc.predictor")
BUNDLES_KEPT = 4
TRIAL_SECONDS = 60.0  # of a model in its own process before it is loaded here
HUNG_SECONDS = 90.0  # a call that is not back by then never comes back: threads cannot be ended, replicas can
PROBE_START = datetime(2024, 1, 1, tzinfo=UTC)


class Model(Protocol):
    """What is used of `tuning.bundle.Bundle`."""

    @property
    def version(self) -> ModelVersion: ...
    @property
    def bars_needed(self) -> int: ...
    def forecast(self, bars: dict[str, pa.Table]) -> dict[str, tuple[HorizonForecast, ...]]: ...


class BundleShelf:
    """The last `limit` models used, each loaded and probed once. Safe for several threads; one load at a time, during
    which the models that are here go on answering."""

    def __init__(self, load: Callable[[str], Model], limit: int = BUNDLES_KEPT) -> None:
        self._load = load
        self._limit = limit
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._loading = threading.Lock()
        self._lock = threading.Lock()  # of `_models`, never held for long

    def get(self, model_id: str) -> Model:
        """The model, loaded when it is not here; whatever `load` or the probe raises, and then nothing is kept."""
        found = self._find(model_id)
        if found is not None:
            return found
        with self._loading:
            found = self._find(model_id)  # another thread may have loaded it meanwhile
            return found if found is not None else self._keep(model_id, self._load(model_id))

    def _find(self, model_id: str) -> Model | None:
        with self._lock:
            if model_id in self._models:
                self._models.move_to_end(model_id)
            return self._models.get(model_id)

    def _keep(self, model_id: str, model: Model) -> Model:
        probe(model)
        with self._lock:
            self._models[model_id] = model
            while len(self._models) > self._limit:
                self._models.popitem(last=False)
        return model

    @property
    def held(self) -> list[str]:
        return list(self._models)


def probe(model: Model) -> None:
    """Forecast made-up bars once; BundleRefused when a number is missing, not finite or out of order.

    It also pays the first call's costs (lazy imports, thread pools) before a trader waits for them.
    """
    bars = {code: probe_bars(code, model.version.timeframe, model.bars_needed) for code in model.version.symbols}
    answers = model.forecast(bars)
    for code in model.version.symbols:
        if len(answers.get(code, ())) != len(model.version.horizons):
            raise _refused(
                model, f"{code}: {len(answers.get(code, ()))} horizons, {len(model.version.horizons)} expected"
            )
        for horizon in answers[code]:
            if why := wrong_with(horizon):
                raise _refused(model, f"{code}, {horizon.bars} bars: {why}")


def _refused(model: Model, why: str) -> BundleRefused:
    return BundleRefused(
        f"The model {model.version.id} fails its probe ({why}).",
        hint="The model that served before stays; train again.",
    )


def forecast_each(model: Model, bars: dict[str, pa.Table]) -> dict[str, tuple[HorizonForecast, ...]]:
    """All at once; when that fails, one by one without those that fail. Raises when none can be forecast."""
    try:
        return model.forecast(bars)
    except Exception:
        made: dict[str, tuple[HorizonForecast, ...]] = {}
        for code, table in bars.items() if len(bars) > 1 else ():
            try:
                made |= model.forecast({code: table})
            except Exception as error:
                _log.warning("forecast failed", symbol=code, model=model.version.id, reason=_words(error))
        if not made:
            raise
        return made


def probe_bars(code: str, timeframe: str, n: int) -> pa.Table:
    """`n` seeded random-walk bars around the clock; their only purpose is that a sound model can read them."""
    frame, digits = Timeframe.parse(timeframe), parse_symbol(code).digits
    draw = np.random.default_rng(int.from_bytes(code.encode()[:6]))
    steps = draw.normal(0, 5e-4, size=(3, n))  # close-to-close, up-wick, down-wick
    close = (10.0 if digits == 2 else 1.0) * np.exp(np.cumsum(steps[0]))
    opened = np.concatenate([close[:1], close[:-1]])
    high = np.maximum(opened, close) * np.exp(np.abs(steps[1]))
    low = np.minimum(opened, close) * np.exp(-np.abs(steps[2]))
    start = np.datetime64(PROBE_START.replace(tzinfo=None), "s")
    times = start + np.arange(n) * np.timedelta64(frame.seconds, "s")
    return bars_from_columns(code, frame, times, opened, high, low, close, received_at=PROBE_START + timedelta(days=1))


def bundle_loader(home: str) -> Callable[[str], Model]:
    """model id -> its verified bundle out of the registry of the installation in `home`."""

    def load(model_id: str) -> Model:
        from configs.settings import load_settings
        from tuning.registry import Registry

        return Registry.of(load_settings(home)).load(model_id)

    return load


def bundle_trial(home: str) -> Callable[[str], None]:
    """model id -> BundleRefused unless it forecasts the stored bars in a process of its own."""

    def prove(model_id: str) -> None:
        from configs.settings import load_settings
        from tuning.registry import Registry
        from tuning.trial import Trial

        settings = load_settings(home)
        registry = Registry.of(settings)
        Trial(settings.bars_path, registry.keys.folder, TRIAL_SECONDS)(registry.path(model_id))

    return prove


class HangWatch:
    """Knows which calls into models are not back. `clock`: seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls: dict[object, float] = {}  # -> since when

    @contextmanager
    def call(self) -> Iterator[None]:
        call = object()
        self._calls[call] = self._clock()
        try:
            yield
        finally:
            del self._calls[call]

    def check(self) -> None:
        """RuntimeError while a call hangs: Serve then puts another replica in this one's place."""
        oldest = min(list(self._calls.values()), default=None)
        if oldest is not None and self._clock() - oldest > HUNG_SECONDS:
            raise RuntimeError(f"A model has not come back for {HUNG_SECONDS:.0f} s.")


class Predictor:
    """Forecasts with any registered model. Stateless but for its shelf: a crash costs one load."""

    def __init__(
        self,
        load: Callable[[str], Model],
        prove: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shelf, self._watch = BundleShelf(load), HangWatch(clock)
        self._prove = prove

    async def warm(self, model_id: str, prove: bool = False) -> dict[str, Any]:
        """Load, verify and probe in a thread -> {"ok", "reason", "bars_needed"}. Never raises.

        prove: first in a process of its own, unless the model is here already.
        """
        try:
            if prove and model_id not in self._shelf.held:
                await asyncio.to_thread(self._prove, model_id)
            model = await asyncio.to_thread(self._get, model_id)
        except Exception as error:  # whatever a bundle does, the caller keeps its old one
            return {"ok": False, "reason": _words(error), "bars_needed": 0}
        return {"ok": True, "reason": "", "bars_needed": model.bars_needed}

    async def forecast(self, model_id: str, bars: dict[str, pa.Table]) -> dict[str, tuple[HorizonForecast, ...]]:
        """Symbol -> newest closed bars, at least `bars_needed` -> symbol -> one HorizonForecast per horizon."""
        return await asyncio.to_thread(self._forecast, model_id, bars)

    async def held(self) -> list[str]:
        return self._shelf.held

    async def check_health(self) -> None:
        self._watch.check()

    def _get(self, model_id: str) -> Model:
        with self._watch.call():
            return self._shelf.get(model_id)

    def _forecast(self, model_id: str, bars: dict[str, pa.Table]) -> dict[str, tuple[HorizonForecast, ...]]:
        with self._watch.call():
            return forecast_each(self._shelf.get(model_id), bars)


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, LstmcError) else f"{type(error).__name__}: {error}"
