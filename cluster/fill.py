"""The middle of `up`: history through the market data actor, the first champion, and the Serve application beside them.

Needs a connected driver. Knows nothing about processes and clocks.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from cluster.progress import Progress
from cluster.serve_environment import replica_environment
from configs.settings import LOOPBACK, Settings, load_settings
from market.errors import ClusterError, LstmcError

BACKFILL_SECONDS = 600.0


def import_ray() -> None:
    """Seconds of imports; once done, Serve keeps its log to itself."""
    import ray
    from ray import serve

    from serve_app import app

    _ = (ray, serve, app)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # we say what happens ourselves


def fill(settings: Settings, progress: Progress) -> None:
    """Backfill, then the econometric champion; Serve is deployed meanwhile."""
    with ThreadPoolExecutor(1) as beside:
        deployed = beside.submit(deploy, settings)
        _backfill(settings, progress)
        _champions(settings, progress)
        _await(deployed, lambda: progress.doing(_deploying(settings)))
    progress.say(f"HTTP side deployed on port {settings.port}")


def _deploying(settings: Settings) -> str:
    import ray

    from serve_app.placement import awaited_machine

    awaited = ""
    with suppress(ray.exceptions.RayError):  # it is said again in a moment
        awaited = awaited_machine(settings, {node["Labels"].get("role", "") for node in ray.nodes() if node["Alive"]})
    return f"waiting for {awaited}" if awaited else "deploying the HTTP side"


def _await(future: Future[Any], meanwhile: Callable[[], None]) -> Any:
    while not future.done():
        meanwhile()
        time.sleep(0.2)
    return future.result()


def deploy(settings: Settings) -> None:
    """Deploy or update the Serve application."""
    import_ray()
    from ray import serve

    from serve_app.app import APP_NAME, build

    where = "HeadOnly" if settings.client_host in LOOPBACK else "EveryNode"  # that is, every one with a replica
    serve.start(proxy_location=where, http_options={"host": settings.client_host, "port": settings.port})
    environment = replica_environment(settings)
    args = {"home": str(settings.home_path), "generation": uuid.uuid4().hex, "environment": environment}
    serve.run(build(args), name=APP_NAME, route_prefix="/")


def _backfill(settings: Settings, progress: Progress) -> None:
    import ray

    from actors import handles

    deadline = time.monotonic() + BACKFILL_SECONDS
    while True:
        at = ray.get(handles.market_data().progress.remote(), timeout=60)
        if at["ready"]:
            break
        if time.monotonic() > deadline:
            raise ClusterError(
                f"History could not be loaded: {at['reason'] or 'it takes too long'}.", hint="See `lstmc doctor`."
            )
        progress.doing(f"loading history: {at['symbol']} {at['done']}/{at['total']} {at['reason']}".rstrip())
        time.sleep(0.2)
    progress.say(f"history is in: {_bar_count(settings):,} bars")
    rejected = ray.get(handles.market_data().status.remote(), timeout=60)["quarantined"]
    for series, reasons in rejected.items():
        words = ", ".join(f"{reason} {rows}" for reason, rows in reasons.items())
        progress.say(f"{series}: {sum(reasons.values())} rows of the file are no bars and are not played ({words})")


def _bar_count(settings: Settings) -> int:
    from market.bar_store import BarStore

    return sum(BarStore(settings.bars_path).counts().values())


def _champions(settings: Settings, progress: Progress) -> None:
    """The econometric baseline as first champion, fitted on the cluster, where there is none."""
    from tuning.registry import Registry

    registry = Registry.of(settings)
    for timeframe in settings.timeframes:
        champion = registry.sound_champion(timeframe, progress.say)
        what = f"fitting the econometric champion for {timeframe}"
        if champion is None:
            future = _fit_champion(settings, timeframe)
            model_id = _await_champion(future, partial(progress.doing, what))
            progress.say(f"champion of {timeframe}: {model_id} (econometric)")
        else:
            progress.say(f"champion of {timeframe}: {champion.id} ({champion.kind})")


def _await_champion(future: Future[Any], meanwhile: Callable[[], None]) -> str:
    try:
        return str(_await(future, meanwhile))
    except LstmcError:
        raise
    except Exception as error:  # a task's error carries its whole remote traceback
        last = [line for line in str(error).splitlines() if line.strip()][-1]
        hint = "The whole story is in the Ray dashboard, under Jobs."
        raise ClusterError(f"The econometric champion could not be fitted: {last}", hint=hint) from None


def _fit_champion(settings: Settings, timeframe: str) -> Future[Any]:
    import ray

    from actors.handles import NOT_ON_MT5

    task = ray.remote(econometric_champion).options(num_cpus=1, label_selector=NOT_ON_MT5, max_retries=1)
    return task.remote(str(settings.home_path), timeframe).future()


def econometric_champion(home: str, timeframe: str) -> str:
    """The task: fit, save, promote; returns the model's id."""
    from tuning.retrain import econometric_champion as fit

    return fit(load_settings(home), timeframe).id
