"""`lstmc roll`: the code as it is now takes over from the one that runs, without a failed request.

Replicas of the new version start beside the old ones and take over one by one; then the actors, whose forecasts the
replicas hold meanwhile. Knows nothing about what has changed.
"""

from __future__ import annotations

import time
from typing import Any

from cluster import fill, health, jobs
from cluster.bootstrap import connect, leave
from cluster.progress import Progress
from configs.settings import Settings
from market.errors import ClusterError, NotRunning

READY_SECONDS = 120.0


def roll(settings: Settings, progress: Progress) -> dict[str, Any]:
    """Returns {"seconds", "actors"}. ClusterError when the new code does not even start here, or its replicas do not:
    the old ones then go on serving."""
    began = time.monotonic()
    if not health.is_running(settings, health.current_run(settings)):
        raise NotRunning("Nothing runs that could be rolled.", hint="Start it with `lstmc up`.")
    health.use_token(settings)  # before Ray is imported, which is when it looks
    _starts_here(settings)
    connect(settings, progress)
    import ray

    from actors.handles import forecaster, renew_actors

    try:
        before = _serving(ray.get(forecaster().status.remote(), timeout=60))
        progress.doing("rolling the HTTP side")
        try:
            fill.deploy(settings)
        except RuntimeError as error:  # Serve's own, after its tries
            hint = "The old version goes on serving. `lstmc status` has the reason; mend the code, then roll again."
            raise ClusterError(f"The new version did not start: {error}", hint=hint) from None
        progress.say("the HTTP side runs the code as it is now")
        actors = renew_actors(settings, jobs.RayJobs)
        _await_forecasts(before, progress)
        progress.say(f"so do the actors: {', '.join(actors)}")
    finally:
        leave()
    return {"seconds": round(time.monotonic() - began, 1), "actors": actors}


def _starts_here(settings: Settings) -> None:
    """The HTTP side, made in this process: what cannot be imported or built shall not get near a replica."""
    from datetime import UTC, datetime

    from serve_app.api import make_api
    from serve_app.board import board_for
    from serve_app.lookups import ledger_lookups
    from serve_app.rate_limit import RateLimiter

    board = board_for(settings, lambda: datetime.now(UTC))
    make_api(settings, board, RateLimiter(1), settings.market_clock, ledger_lookups(settings))


def _serving(status: dict[str, Any]) -> set[str]:
    return set(status["champion"])


def _await_forecasts(timeframes: set[str], progress: Progress) -> None:
    """Until the new forecaster serves every timeframe that the old one did."""
    import ray

    from actors.handles import forecaster

    deadline = time.monotonic() + READY_SECONDS
    while True:
        status = ray.get(forecaster().status.remote(), timeout=60)
        if timeframes <= _serving(status):
            return
        if time.monotonic() > deadline:
            raise ClusterError(
                f"The new forecaster serves nothing yet: {status['problems']}.",
                hint="The forecasts from before are still served. See `lstmc status`.",
            )
        progress.doing("waiting for the new forecaster")
        time.sleep(0.3)
