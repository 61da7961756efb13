"""The whole HTTP side as one FastAPI app, put together from the routes_* files.

Knows nothing about Ray: `serve_app.app` puts it into a deployment, tests put it behind an ASGI transport.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Protocol

from fastapi import Depends, FastAPI, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from configs.settings import Settings
from serve_app import problems
from serve_app.admission import Admission, FailureBuckets, Visit
from serve_app.asks import Asks, Compute, nobody
from serve_app.auth import TokenVerifier, Trust
from serve_app.board import Board
from serve_app.client_address import ClientAddress
from serve_app.cross_origin import NamedOrigins
from serve_app.headers import Envelope
from serve_app.lookups import Lookups
from serve_app.open_streams import OpenStreams
from serve_app.openapi import add_openapi
from serve_app.page import add_page
from serve_app.question import Question
from serve_app.rate_limit import RateLimiter
from serve_app.reference_page import add_reference
from serve_app.routes_background import API_VERSION, add_health, add_key_set, add_skill, add_status
from serve_app.routes_forecasts import add_forecasts, add_signals
from serve_app.routes_stream import HEARTBEAT_SECONDS, add_stream
from serve_app.routes_tables import add_bars, add_history
from tuning.registry import Registry

TICK_SECONDS = 1.0


class Clock(Protocol):
    """Market time, see `market.market_clock.MarketClock`."""

    def now(self) -> datetime: ...


def make_api(
    settings: Settings,
    board: Board,
    limiter: RateLimiter,
    clock: Clock,
    lookups: Lookups,
    *,
    verifier: TokenVerifier | None = None,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
    compute: Compute = nobody,
) -> FastAPI:
    """ConfigError when there is nothing to check tokens with. `compute` makes forecasts on demand."""
    verifier = verifier or TokenVerifier(Trust(settings))
    failures = FailureBuckets(settings.requests_per_minute_per_address)
    admission = Admission(verifier, limiter, ClientAddress(settings.trusted_proxies), failures)
    question = Question(settings, board)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        ticking = asyncio.create_task(_tick_forever(board, verifier))
        yield
        ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ticking

    app = FastAPI(
        title="LSTMC forecasts",
        version=API_VERSION,
        summary="Closed bars in, honest FX forecasts out.",
        description="Every forecast says how good its kind has been, on which data and model it stands, and whether it is stale. No trading advice, no order is ever sent.",
        servers=[{"url": "/"}],
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        lifespan=lifespan,
    )
    app.state.admission = admission
    app.state.limited = Counter()  # problem's code -> requests that were refused with 429
    problems.install(app)
    read = guard(admission, "read")
    add_forecasts(app, question, read, Asks(question, Registry.of(settings), compute))
    add_signals(app, question, guard(admission, "signals"))
    add_history(app, question, read, lookups)
    add_stream(app, board, OpenStreams(settings.streams_per_subject), verifier, read, heartbeat_seconds)
    add_bars(app, question, read)
    add_skill(app, question, read)
    add_status(app, question, clock, read)
    add_health(app, board)
    add_key_set(app, verifier)
    add_page(app, settings.market)
    add_openapi(app, settings)
    add_reference(app)
    if settings.cors_origins:
        app.add_middleware(NamedOrigins, origins=settings.cors_origins)
    app.add_middleware(Envelope)
    return app


async def _tick_forever(board: Board, verifier: TokenVerifier) -> None:
    generation = verifier.generation
    while True:
        board.tick()
        verifier.look()
        if verifier.generation != generation:  # a listener asks for nothing, so its token is looked at here
            generation = verifier.generation
            board.wake_subscribers()
        await asyncio.sleep(TICK_SECONDS)


def guard(admission: Admission, scope: str) -> Any:
    """A dependency that lets a request through when its token is good, has `scope` and its minute is not used up."""
    bearer = HTTPBearer(auto_error=False, bearerFormat="JWT", description="`lstmc token issue` prints one.")

    async def check(request: Request, _: HTTPAuthorizationCredentials | None = Security(bearer)) -> Visit:
        return await admission.admit(request, scope)

    return Depends(check)
