"""The Serve application "lstmc": the deployments Api (ingress), Predictor and OnDemand, with what they need of the cluster.

The only file of this room that imports Ray. Deployed by `serve.run(build({"home": ...}), name="lstmc")`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ray import serve
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from actors.exporter import export_forever
from actors.figures import of_replica
from configs.settings import load_settings
from market.forecasts import BoardUpdate
from serve_app.api import make_api
from serve_app.asks import Busy
from serve_app.board import board_for
from serve_app.drain_watch import DrainWatch
from serve_app.follower import Follower
from serve_app.hot_path import HotPath
from serve_app.lookups import ledger_lookups
from serve_app.named_actor import NamedActor
from serve_app.on_demand import NICENESS, Batch, OnDemand, bar_store
from serve_app.placement import WHERE_THE_HOME_IS, of_replicas
from serve_app.predictor import Predictor, bundle_loader, bundle_trial
from serve_app.rate_limit import RateLimiter
from serve_app.remote_book import RemoteBook

APP_NAME = "lstmc"
SIBLING_SECONDS = 5.0
# Serving costs little CPU; what is not claimed here is left to training.
CPUS_PER_REPLICA = 0.1
HEALTH = {"health_check_period_s": 1, "health_check_timeout_s": 30}  # also how soon a dead replica is seen
SHUTDOWN = {"graceful_shutdown_timeout_s": 3, "graceful_shutdown_wait_loop_s": 0.5}
API_SHUTDOWN = SHUTDOWN | {"graceful_shutdown_timeout_s": 5}  # it is reachable for 3 of them, for HAProxy


@serve.ingress()
class Api:
    """The HTTP side over one board. Ready as soon as that holds what others hold; while nobody has a forecast /readyz says
    so, and the replica stays up."""

    async def __init__(self, home: str, predictor: DeploymentHandle, on_demand: DeploymentHandle) -> None:  # type: ignore[misc]
        from actors import handles

        self._predictor = predictor  # binds it into the application; only the forecaster asks it
        self._on_demand = on_demand
        self._settings = load_settings(home)
        self._board = board_for(self._settings)
        self._follower = Follower(self._board, _pull_from(NamedActor(handles.forecaster)))
        self._limiter = RateLimiter(self._settings.requests_per_minute, RemoteBook(NamedActor(handles.rate_limiter)))
        self._drain_watch = DrainWatch()
        await self._follower.fill(_ask_sibling)
        self._following = [asyncio.create_task(self._follower.forever()), asyncio.create_task(self._limiter.follow())]
        if self._settings.serve_proxy == "haproxy":  # otherwise nobody reaches the replica itself
            self._leaving = asyncio.create_task(self._leave_in_time())

    def __serve_build_asgi_app__(self) -> ASGIApp:
        settings, board = self._settings, self._board
        lookups = ledger_lookups(settings)
        api = make_api(settings, board, self._limiter, settings.market_clock, lookups, compute=self._compute)
        export_forever(lambda: of_replica(dict(api.state.limited)))
        return self._drain_watch.learning(HotPath(api, settings, board, api.state.admission))

    async def _compute(self, model_id: str, symbols: Sequence[str]) -> Batch:
        try:
            batch: Batch = await self._on_demand.forecast.remote(model_id, symbols)
        except BackPressureError as error:
            raise Busy from error
        return batch

    async def publish(self, update: BoardUpdate) -> bool:
        """Pushed by the forecaster to every replica; whether the board changed."""
        return self._follower.take(update)

    async def board(self) -> BoardUpdate | None:
        """For a replica that starts: all that is held here."""
        return self._board.update if self._board.filled else None

    async def _leave_in_time(self) -> None:
        """What this replica has for others, before Serve kills it."""
        await self._drain_watch.drains()
        self._board.end_streams()
        await self._limiter.leave()

    async def __del__(self) -> None:
        """Called by Serve when no request is left: the only sign behind Ray's own proxy, where an open stream prevents it."""
        await self._limiter.leave()

    async def check_health(self) -> None:
        if any(task.done() for task in self._following):
            raise RuntimeError("The board no longer follows the forecaster, or the limit its leases.")


def _pull_from(forecaster: NamedActor) -> Callable[[int | None], Awaitable[BoardUpdate]]:
    async def pull(since_version: int | None) -> BoardUpdate:
        update: BoardUpdate = await forecaster.call("snapshot", since_version)
        return update

    return pull


async def _ask_sibling() -> BoardUpdate | None:
    async with asyncio.timeout(SIBLING_SECONDS):
        return await serve.get_deployment_handle("Api", APP_NAME).board.remote()


def build(args: dict[str, Any]) -> serve.Application:
    """`args["home"]`: the installation's folder. `args["environment"]`: of its replicas, on whatever node they are.

    `args["generation"]`, another one each time: replicas then begin in new processes, which import the code as it is now;
    Ray gives a process that is idle to the next actor otherwise.
    """
    settings = load_settings(args["home"])
    home, local = str(settings.home_path), settings.profile == "local"
    options = {
        "num_cpus": CPUS_PER_REPLICA,
        "label_selector": WHERE_THE_HOME_IS,
        "runtime_env": {"env_vars": args["environment"] | {"LSTMC_GENERATION": args["generation"]}},
    }
    predictor = serve.deployment(
        Predictor,
        name="Predictor",
        ray_actor_options=options,
        max_ongoing_requests=8,
        max_surge_percent=100,  # a new version's replica is there before the old one goes
        max_queued_requests=64,  # who asks for more is told at once, and asks again: the forecaster with its next look
        autoscaling_config={
            "min_replicas": 1,
            "max_replicas": 2 if local else 8,
            "target_ongoing_requests": 2,
            "upscale_delay_s": 5,
            "downscale_delay_s": 120,
        },
        **HEALTH,
        **SHUTDOWN,
    )
    on_demand = serve.deployment(
        OnDemand,
        name="OnDemand",
        ray_actor_options=options | {"num_cpus": 0},  # it starts also while training claims all there are
        max_ongoing_requests=1,  # a model that crashes takes nobody else's forecast with it
        max_queued_requests=settings.on_demand_queue,  # of each replica of Api
        autoscaling_config={
            "min_replicas": 0,
            "max_replicas": 2 if local else 8,
            "target_ongoing_requests": 1,
            "upscale_delay_s": 2,
            "downscale_delay_s": 30,
            "downscale_to_zero_delay_s": 300,
        },
        **HEALTH,
        **SHUTDOWN,
    )
    api = serve.deployment(
        Api,
        name="Api",
        num_replicas=settings.http_replicas or (1 if local else 2),
        ray_actor_options=options | {"label_selector": of_replicas(settings)},
        max_ongoing_requests=2000,  # every listener of the stream is an ongoing request
        max_surge_percent=100,
        logging_config={"enable_access_log": False},
        **HEALTH,
        **API_SHUTDOWN,
    )
    asked = on_demand.bind(bundle_loader(home), bar_store(home), niceness=NICENESS)
    return api.bind(home, predictor.bind(bundle_loader(home), bundle_trial(home)), asked)
