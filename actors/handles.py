"""The only file that creates or looks up actors. Thin Ray shells around the pure cores: state, a loop, a lock, no decisions.

Crash contract, all actors: detached, named in the namespace "lstmc", restarted without limit, calls never retried by
Ray. What an actor holds in memory can be made again from the bar store, the registry and the ledger.

    mt5          on the node with the `mt5` resource; waits RESTARTING while that node is away, then connects anew
    market_data  one writer of the bar store; a new life backfills from the last stored bar, so gaps close by themselves
    forecaster   one writer of the ledger and its spool; a new life forecasts from stored bars at once
    rate_limiter who may still ask how often; a new life lets in what replicas can show, the rest after a minute
    schedule     on the head, where the jobs' HTTP side listens; a new life goes on from the log of runs and Ray's jobs
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
import structlog

from actors import figures
from actors.exporter import export_forever
from actors.rate_limiter import RateLimiterActor
from configs.settings import Settings, load_settings
from market.clock_watch import TOLERANCE
from market.errors import ClusterError, LstmcError, MarketUnavailable, NodeDown, NotRunning, VersionsDisagree
from market.forecasts import BoardUpdate, HorizonForecast
from mt5_actor_windows.node import APART
from mt5_actor_windows.versions import mismatch, versions

if TYPE_CHECKING:
    import pyarrow as pa

    from actors.drift_watch import DriftWatch
    from actors.market_data import MarketData
    from actors.retrain_scheduler import Jobs, RetrainScheduler
    from actors.run_log import Run
    from market.bars import BarSource, Question

NAMESPACE = "lstmc"
APP = "lstmc"
NOT_ON_MT5 = {"role": "!in(mt5,train,serve)"}  # a node that trains has not the home, one that serves only reads it
ON_HEAD = {"role": "head"}
CALL_SECONDS = 60.0  # a deep backfill of one symbol; a wedged terminal must not hold the loop for ever
MEET_SECONDS = 15.0  # an actor that has no node yet must not keep us from the next source
PREDICT_SECONDS = 60.0
WARM_SECONDS = 180.0
SCHEDULE_SECONDS = 20.0  # wall seconds between the scheduler's looks
WATCH_SECONDS = 3600.0  # between its looks at the champions' live record
STEP_SECONDS = 0.5  # wall seconds between the forecaster's looks at registry, spool and retries

log = structlog.get_logger()


# Looking up


def mt5() -> Any:
    return _lookup("mt5")


def market_data() -> Any:
    return _lookup("market_data")


def forecaster() -> Any:
    return _lookup("forecaster")


def rate_limiter() -> Any:
    return _lookup("rate_limiter")


def _lookup(name: str) -> Any:
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        raise NotRunning(f"The actor {name!r} does not run.", hint="Start the cluster with `lstmc up`.") from None


# Creating


COMMON: dict[str, Any] = {
    "namespace": NAMESPACE,
    "lifetime": "detached",
    "get_if_exists": True,
    "max_restarts": -1,
    "max_task_retries": 0,
    "num_cpus": 0,
    "enable_task_events": False,  # hundreds of calls a minute, which the control store would remember one by one
}


def start_actors(settings: Settings) -> list[str]:
    """Create what is not there yet; returns the names. Does not wait: a call waits for its actor."""
    home = str(settings.home_path)
    names = []
    if settings.market != "http":  # then the terminal's host runs the data API by itself
        shell = ray.remote(Mt5Actor)
        shell.options(name="mt5", resources={"mt5": 0.01}, max_concurrency=4, **COMMON).remote(
            settings.model_dump_json()
        )
        names.append("mt5")
    kinds = {
        "market_data": (MarketDataActor, 8),
        "forecaster": (ForecasterActor, 8),
        "rate_limiter": (LimiterActor, 1000),
    }
    for name, (kind, concurrency) in kinds.items():
        shell = ray.remote(kind)
        shell.options(name=name, label_selector=NOT_ON_MT5, max_concurrency=concurrency, **COMMON).remote(home)
        names.append(name)
    return names


def renew_actors(settings: Settings, jobs: Callable[[Settings], Jobs]) -> list[str]:
    """End ours on this side and create them anew, with the code as it is now; what they held is made again from what is
    stored. The terminal's actor stays where its host is another machine, with an installation of its own, and so does
    the rate limiter: a new one would not know who has asked how often. ClusterError when one does not end."""
    for name in ("forecaster", "market_data", "schedule", *(["mt5"] if settings.plays_terminal else [])):
        end_actor(name)
    return start_actors(settings) + ([start_schedule(settings, jobs)] if settings.schedule else [])


def end_actor(name: str) -> None:
    """For good, where it is there. ClusterError when it does not end."""
    with contextlib.suppress(NotRunning):
        ray.kill(_lookup(name))
    deadline = time.monotonic() + MEET_SECONDS
    while time.monotonic() < deadline:
        try:
            _lookup(name)
        except NotRunning:
            return
        time.sleep(0.05)
    raise ClusterError(f"The actor {name} did not end within {MEET_SECONDS:.0f} s.", hint="Roll again.")


def start_schedule(settings: Settings, jobs: Callable[[Settings], Jobs]) -> str:
    """Create the scheduler, unless it is there; returns its name. `jobs`: how it reaches Ray's jobs, made where it runs."""
    shell = ray.remote(ScheduleActor)
    shell.options(name="schedule", label_selector=ON_HEAD, **COMMON).remote(str(settings.home_path), jobs)
    return "schedule"


class Mt5Actor:
    """One terminal's bars and prices: mt5_actor_windows.actor.Mt5Actor as an actor. Holds no state worth keeping.

    Its settings come as JSON, since a pathlib.Path does not cross from Linux to Windows.
    """

    def __init__(self, settings_json: str) -> None:
        from mt5_actor_windows.actor import Mt5Actor as Core

        self._core = Core(Settings.model_validate_json(settings_json))
        if APART not in os.environ:
            self._core.start_data_api()

    def versions(self) -> dict[str, str]:
        """Plain text only, so that it can be read whatever the versions are."""
        return versions()

    def closed_bars(
        self, symbol: str, timeframe: str, since: datetime | None, until: datetime | None = None
    ) -> pa.Table:
        return self._core.closed_bars(symbol, timeframe, since, until)

    def closed_bars_of(self, questions: Sequence[Question]) -> list[pa.Table | LstmcError]:
        """The answer to each, which may be an error. A terminal that is away is not asked again."""
        answers: list[pa.Table | LstmcError] = []
        away: MarketUnavailable | None = None
        for question in questions:
            try:
                answers.append(away or self._core.closed_bars(*question))
            except MarketUnavailable as error:
                answers.append(away := error)
            except LstmcError as error:
                answers.append(error)
        return answers

    def prices(self, symbols: list[str]) -> list[dict[str, Any]]:
        return self._core.prices(symbols)

    def ticks(self, symbol: str, since: datetime, until: datetime | None = None, limit: int = 10_000) -> pa.Table:
        return self._core.ticks(symbol, since, until, limit)

    def health(self) -> dict[str, Any]:
        return self._core.health() | {"node_id": ray.get_runtime_context().get_node_id()}


class RayBarSource:
    """The `mt5` actor as a market.bars.BarSource. Whatever Ray raises becomes NodeDown with a hint.

    Each time the actor is met anew its node's versions are compared with ours: VersionsDisagree instead of what unpickling
    would say.
    """

    def __init__(self, actor: Callable[[], Any] = mt5, seconds: float = CALL_SECONDS) -> None:
        self._actor = actor
        self._seconds = seconds
        self._agreed = False
        self._expected: dict[Question, pa.Table | LstmcError] = {}

    def closed_bars(
        self, symbol: str, timeframe: str, since: datetime | None, until: datetime | None = None
    ) -> pa.Table:
        answer = self._expected.pop((symbol, timeframe, since, until), None)
        if answer is None:
            return self._call("closed_bars", symbol, timeframe, since, until)
        if isinstance(answer, LstmcError):
            raise answer
        return answer

    def expect(self, questions: Sequence[Question]) -> None:
        """Ask them all with one call. Answers are for this once; those of before are forgotten."""
        self._expected = {}
        try:
            if len(questions) > 1:
                self._expected = dict(zip(questions, self._call("closed_bars_of", questions), strict=True))
        except NodeDown as error:  # who did not answer in time need not be waited for again
            self._expected = dict.fromkeys(questions, error)
        except LstmcError:
            pass  # an older node, which does not know the question, is asked one by one; others say it again

    def prices(self, symbols: list[str]) -> list[dict[str, Any]]:
        return self._call("prices", symbols)

    def ticks(self, symbol: str, since: datetime, until: datetime | None = None, limit: int = 10_000) -> pa.Table:
        return self._call("ticks", symbol, since, until, limit)

    def health(self) -> dict[str, Any]:
        return self._call("health")

    def _call(self, method: str, *arguments: Any) -> Any:
        if not self._agreed:
            self._compare(self._get("versions", seconds=min(MEET_SECONDS, self._seconds)))
        return self._get(method, *arguments, seconds=self._seconds)

    def _compare(self, theirs: dict[str, str]) -> None:
        wrong = mismatch(versions(), theirs)
        if wrong:
            hint = "Install the same on both; on Windows run install.ps1 again."
            raise VersionsDisagree(f"The mt5 node's packages do not fit ours: {wrong}.", hint=hint)
        self._agreed = True

    def _get(self, method: str, *arguments: Any, seconds: float) -> Any:
        try:
            return self._answer(method, *arguments, seconds=seconds)
        except NodeDown:
            self._agreed = False  # what comes back may be another installation
            raise

    def _answer(self, method: str, *arguments: Any, seconds: float) -> Any:
        hint = (
            "A local node: `lstmc up` restarts it. A Windows node starts again by itself; if not, run doctor.ps1 there."
        )
        try:
            return ray.get(getattr(self._actor(), method).remote(*arguments), timeout=seconds)
        except LstmcError as error:  # Ray raises a task's own error as that type too
            raise (getattr(error, "cause", None) or error) from None
        except ray.exceptions.RayTaskError as error:
            raise MarketUnavailable(f"The mt5 actor failed: {error.cause}", hint=hint) from None
        except ray.exceptions.GetTimeoutError:
            raise NodeDown(f"The mt5 actor did not answer within {seconds:.0f} s.", hint=hint) from None
        except ray.exceptions.RayError:
            raise NodeDown("The node that holds the terminal is gone; its actor waits for it.", hint=hint) from None


def bar_sources(settings: Settings) -> list[tuple[str, BarSource]]:
    """(name, source), in the order in which they are asked."""
    sources: list[tuple[str, BarSource]] = []
    if settings.market != "http":
        sources.append(("ray", RayBarSource()))
    if settings.data_api_url:
        from mt5_actor_windows.client import HttpBarSource

        url, ca = settings.data_api_url, settings.data_api_ca
        sources.append(("http", HttpBarSource(url, lambda: settings.secret("data_api_key").get_secret_value(), ca=ca)))
    return sources


class MarketDataActor:
    """Backfills, then polls; hands every closed bar to the forecaster. A crash loses nothing: see the module."""

    def __init__(self, home: str) -> None:
        from actors.market_data import MarketData
        from market.bar_store import BarStore

        self._settings = load_settings(home)
        self._core: MarketData = MarketData(
            bar_sources(self._settings),
            BarStore(self._settings.bars_path),
            self._settings.symbols,
            self._settings.timeframes,
            self._settings.history_days,
            self._settings.market_clock.now,
            tolerance=TOLERANCE * max(self._settings.speed, 1.0),
        )
        self._untold: dict[tuple[str, str], pa.Table] = {}  # closed bars, while the forecaster cannot be told of them
        self._progress: dict[str, Any] = {"done": 0, "total": 0, "symbol": "", "ready": False, "reason": ""}
        threading.Thread(target=self._run, name="poll", daemon=True).start()
        export_forever(self._figures)

    def progress(self) -> dict[str, Any]:
        """Of the backfill: done, total, symbol, ready, and the reason while it cannot go on."""
        return self._progress

    def status(self) -> dict[str, Any]:
        return self._core.status()

    def tails(self, symbols: Sequence[str], timeframe: str, n: int) -> dict[str, pa.Table]:
        return {symbol: self._core.tail(symbol, timeframe, n) for symbol in symbols}

    def _run(self) -> None:
        while not self._backfilled():
            time.sleep(self._settings.poll_seconds)
        while True:
            started = time.monotonic()
            self._step()
            time.sleep(max(0.0, self._settings.poll_seconds - (time.monotonic() - started)))

    def _backfilled(self) -> bool:
        def on_progress(symbol: str, done: int, total: int) -> None:
            self._progress = {"done": done, "total": total, "symbol": symbol, "ready": False, "reason": ""}

        try:
            self._core.backfill(on_progress)
            missing = self._without_bars()
        except Exception as error:  # the source is another process; say why and try again
            missing = str(error)
        self._progress = self._progress | {"ready": not missing, "reason": missing}
        return not missing

    def _figures(self) -> figures.Figures:
        transports, now = self._core.status()["transports"], self._settings.market_clock.now()
        return figures.of_market_data(transports, self._core.series(), now)

    def _without_bars(self) -> str:
        """Why forecasting cannot begin: nothing stored of some symbol and the source does not answer."""
        wanted = [(s, t) for s in self._settings.symbols for t in self._settings.timeframes]
        empty = [f"{s}/{t}" for s, t in wanted if self._core.tail(s, t, 1).num_rows == 0]
        status = self._core.status()
        if len(empty) == len(wanted) or (empty and not status.get("connected")):
            return str(status.get("reason") or f"no bars of {', '.join(empty)}")
        return ""

    def _step(self) -> None:
        try:
            if not self._core.poll(self._tell):
                self._tell([])
        except Exception as error:  # the loop must outlive whatever one pass meets
            log.warning("poll failed", error=str(error))

    def _tell(self, closed: list[pa.Table]) -> None:
        """Of bars that closed, or that nobody could be told of before; else of the source."""
        self._untold |= {(table["symbol"][0].as_py(), table["timeframe"][0].as_py()): table for table in closed}
        try:
            if self._untold:
                forecaster().on_bars.remote(list(self._untold.values()), self._core.status())
            else:
                forecaster().on_source.remote(self._core.status())
            self._untold = {}
        except Exception as error:  # it must not keep the poll from writing down what it asked
            log.warning("the forecaster cannot be told", series=len(self._untold), error=str(error))


class LimiterActor(RateLimiterActor):
    """actors.rate_limiter on an event loop, where every replica has a poll waiting."""

    def __init__(self, home: str) -> None:
        reborn = bool(ray.get_runtime_context().was_current_actor_reconstructed)
        address = ray.util.get_node_ip_address()
        super().__init__(load_settings(home).requests_per_minute, reborn=reborn, address=address)


class ForecasterActor:
    """The forecaster and its loop, which alone changes it. Reads of the board never wait for a forecast in the making."""

    def __init__(self, home: str) -> None:
        from actors.forecast_spool import ForecastSpool
        from actors.forecaster import Forecaster
        from actors.prediction_ledger import PredictionLedger
        from market.bar_store import BarStore
        from tuning.registry import Registry

        self._settings = settings = load_settings(home)
        self._store = BarStore(settings.bars_path)
        self._closed: queue.SimpleQueue[list[pa.Table]] = queue.SimpleQueue()
        self._core = Forecaster(
            registry=Registry.of(settings),
            tails=self._tails,
            predict=_predict,
            warm=_warm,
            publish=_publish,
            ledger=PredictionLedger.of(settings),
            spool=ForecastSpool(settings.spool_path, settings.secret("ledger_key").get_secret_value()),
            now=settings.market_clock.now,
            settings=settings,
            data_version=self._store.data_version,
            bars_since=lambda symbol, timeframe, since: self._store.read([symbol], timeframe, since),
            beside=ThreadPoolExecutor(1, thread_name_prefix="swap").submit,
        )
        threading.Thread(target=self._run, name="forecast", daemon=True).start()
        export_forever(self._figures)

    def on_bars(self, tables: list[pa.Table], source: dict[str, Any]) -> None:
        """Returns at once: a slow predictor must not fill this actor's threads, which the board is read through."""
        self._core.on_source(source)
        self._closed.put(tables)

    def on_source(self, source: dict[str, Any]) -> None:
        self._core.on_source(source)

    def snapshot(self, since_version: int | None = None) -> BoardUpdate:
        return self._core.snapshot(since_version)

    def status(self) -> dict[str, Any]:
        return self._core.status()

    def _figures(self) -> figures.Figures:
        return figures.of_forecaster(self._core.snapshot(), self._core.status(), self._settings.market_clock.now())

    def _tails(self, symbols: Sequence[str], timeframe: str, n: int) -> dict[str, pa.Table]:
        """From the market data actor's memory; from the store while that actor is away."""
        try:
            return ray.get(market_data().tails.remote(symbols, timeframe, n), timeout=10)
        except (ray.exceptions.RayError, LstmcError):
            return {symbol: self._store.tail(symbol, timeframe, n) for symbol in symbols}

    def _run(self) -> None:
        while True:
            tables = self._wait_for_bars()
            try:
                self._core.on_bars(tables)
                self._core.step()
            except Exception as error:  # the loop must outlive whatever one pass meets
                log.warning("step failed", error=str(error))

    def _wait_for_bars(self) -> list[pa.Table]:
        """What has closed, as soon as something does; nothing after STEP_SECONDS."""
        tables: list[pa.Table] = []
        with contextlib.suppress(queue.Empty):
            tables += self._closed.get(timeout=STEP_SECONDS)
            while True:
                tables += self._closed.get_nowait()
        return tables


class ScheduleActor:
    """Looks at the timetable now and then and submits what is due. Holds nothing that the log of runs does not."""

    def __init__(self, home: str, jobs: Callable[[Settings], Jobs]) -> None:
        from actors.retrain_scheduler import scheduler_of

        self._settings = load_settings(home)
        self._core: RetrainScheduler = scheduler_of(self._settings, jobs(self._settings))
        self._problem = ""
        self._open: tuple[Run, ...] = ()
        threading.Thread(target=self._run, name="schedule", daemon=True).start()
        export_forever(lambda: figures.of_schedule(self._open, datetime.now(UTC)))

    def problem(self) -> str:
        """Why the last look came to nothing; "" when all is well."""
        return self._problem

    def _run(self) -> None:
        watch_at, watch = time.monotonic() + WATCH_SECONDS, None
        while True:
            try:
                self._open = self._core.look().open
                if time.monotonic() >= watch_at:
                    watch_at, watch = time.monotonic() + WATCH_SECONDS, watch or self._drift_watch()
                    self._watch(watch)
                self._problem = ""
            except Exception as error:  # the loop must outlive whatever one pass meets
                if str(error) != self._problem:
                    log.warning("schedule failed", error=str(error))
                self._problem = str(error)
            time.sleep(SCHEDULE_SECONDS)

    def _drift_watch(self) -> DriftWatch:
        from actors.drift_watch import DriftWatch
        from actors.prediction_ledger import PredictionLedger

        return DriftWatch(PredictionLedger.of(self._settings).settled)

    def _watch(self, watch: DriftWatch) -> None:
        """Ask for an extra run when a champion's live record has drifted."""
        from actors.retrain_scheduler import ask_for_drift
        from actors.timetable import load_timetable
        from tuning.registry import Registry

        registry = Registry.of(self._settings)
        live = ray.get(forecaster().status.remote(), timeout=10)["live"]
        champions = [registry.champion(timeframe) for timeframe in self._settings.timeframes]
        reasons = [watch.reason(one, live.get(one.timeframe, [])) for one in champions if one]
        for reason in filter(None, reasons):
            now, timetable = datetime.now(UTC), load_timetable()
            self._core.look(partial(ask_for_drift, now=now, timetable=timetable, reason=reason))


def _deployment(name: str) -> Any:
    from ray import serve

    return serve.get_deployment_handle(name, APP)


def _predict(model_id: str, bars: dict[str, pa.Table]) -> dict[str, tuple[HorizonForecast, ...]]:
    return _deployment("Predictor").forecast.remote(model_id, bars).result(timeout_s=PREDICT_SECONDS)


def _warm(model_id: str, prove: bool) -> dict[str, Any]:
    return _deployment("Predictor").warm.remote(model_id, prove).result(timeout_s=WARM_SECONDS)


def _publish(update: BoardUpdate) -> None:
    _deployment("Api").broadcast("publish", update).results(timeout_s=10)
