"""The Serve application "lstmc": the deployments Api (ingress) and Predictor, with what they need of the cluster.

The only file of this room that imports Ray. Deployed by `serve.run(build({"home": ...}), name="lstmc")`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from configs.settings import Settings, load_settings
from market.forecasts import BoardUpdate
from serve_app.api import Lookups, make_api
from serve_app.board import board_for
from serve_app.follower import Follower
from serve_app.predictor import Predictor, bundle_loader
from serve_app.rate_limit import RateLimiter

APP_NAME = "lstmc"
NOT_ON_THE_WINDOWS_NODE = {"role": "!in(mt5,train)"}  # a node that only trains has not the home, either
# Serving costs little CPU; what is not claimed here is left to training.
CPUS_PER_REPLICA = 0.1
HEALTH = {"health_check_period_s": 5, "health_check_timeout_s": 30}
SHUTDOWN = {"graceful_shutdown_timeout_s": 3, "graceful_shutdown_wait_loop_s": 0.5}


@serve.ingress()
class Api:
    """The HTTP side over one board. Ready at once: while there is no forecast /readyz says so, the replica stays up."""

    async def __init__(self, home: str, predictor: DeploymentHandle) -> None:  # type: ignore[misc]
        self._predictor = predictor  # binds both deployments into one application
        self._settings = load_settings(home)
        self._board = board_for(self._settings)
        self._follower = Follower(self._board, _pull)
        await self._follower.catch_up()
        self._following = asyncio.create_task(self._follower.forever())

    def __serve_build_asgi_app__(self) -> FastAPI:
        settings = self._settings
        limiter = RateLimiter(settings.requests_per_minute)
        return make_api(settings, self._board, limiter, settings.market_clock, ledger_lookups(settings))

    async def publish(self, update: BoardUpdate) -> bool:
        """Pushed by the forecaster to every replica; whether the board changed."""
        return self._follower.take(update)

    async def check_health(self) -> None:
        if self._following.done():
            raise RuntimeError("The board no longer follows the forecaster.")


async def _pull(since_version: int | None) -> BoardUpdate:
    from actors import handles

    return await handles.forecaster().snapshot.remote(since_version)


def ledger_lookups(settings: Settings) -> Lookups:
    """Reads past forecasts straight from the ledger's database, which is opened at the first question."""
    opened: list[Any] = []

    def read(symbol: str, timeframe: str, limit: int) -> list[dict[str, Any]]:
        from actors.prediction_ledger import PredictionLedger

        if not opened:
            opened.append(PredictionLedger.of(settings))
        return opened[0].history(symbol, timeframe, limit)

    async def history(symbol: str, timeframe: str, limit: int) -> list[dict[str, Any]]:
        return await asyncio.to_thread(read, symbol, timeframe, limit)

    return Lookups(history)


def build(args: dict[str, Any]) -> serve.Application:
    """`args["home"]`: the installation's folder. One ingress replica in the local profile, so that rate limits are exact."""
    settings = load_settings(args["home"])
    home, local = str(settings.home_path), settings.profile == "local"
    options = {"num_cpus": CPUS_PER_REPLICA, "label_selector": NOT_ON_THE_WINDOWS_NODE}
    predictor = serve.deployment(
        Predictor,
        name="Predictor",
        ray_actor_options=options,
        max_ongoing_requests=8,
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
    api = serve.deployment(
        Api,
        name="Api",
        num_replicas=1 if local else 2,
        ray_actor_options=options,
        max_ongoing_requests=2000,  # every listener of the stream is an ongoing request
        max_surge_percent=100,
        logging_config={"enable_access_log": False},
        **HEALTH,
        **SHUTDOWN,
    )
    return api.bind(home, predictor.bind(bundle_loader(home)))
