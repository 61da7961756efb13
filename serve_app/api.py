"""The routes. Each reads the board, or asks a lookup, and answers with ready bytes or a problem.

Knows nothing about Ray: `serve_app.app` puts it into a deployment, tests put it behind an ASGI transport.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Protocol

import orjson
from fastapi import Depends, FastAPI, Query, Request, Response, Security
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from configs.settings import Settings
from market.forecasts import iso_utc, jsonable
from serve_app import problems
from serve_app.admission import Admission, FailureBuckets, Visit
from serve_app.auth import Caller, TokenVerifier, Trust
from serve_app.board import BAR_COLUMNS, Answer, Board, etag_of, key_of
from serve_app.client_address import ClientAddress
from serve_app.cross_origin import NamedOrigins
from serve_app.headers import Envelope
from serve_app.open_streams import OpenStreams
from serve_app.page import add_page
from serve_app.problems import unavailable
from serve_app.question import Question
from serve_app.rate_limit import RateLimiter
from serve_app.responses import (
    BarsBody,
    ForecastBody,
    ForecastsBody,
    Health,
    HistoryBody,
    KeySetBody,
    ModelBody,
    SignalsBody,
    SkillBody,
    StatusBody,
    documented,
)

API_VERSION = "0.1.0"
HEARTBEAT_SECONDS = 15.0
TICK_SECONDS = 1.0
COMMON = (401, 404, 422, 429, 503)
CALLER_MEMORY = "private, no-cache"  # keep it, but ask with If-None-Match every time


class Clock(Protocol):
    """Market time, see `market.market_clock.MarketClock`."""

    def now(self) -> datetime: ...


@dataclass(frozen=True)
class Lookups:
    """What the board does not hold. `history(symbol, timeframe, limit)` -> past forecasts, newest first, with outcomes."""

    history: Callable[[str, str, int], Awaitable[list[dict[str, Any]]]]


def make_api(
    settings: Settings,
    board: Board,
    limiter: RateLimiter,
    clock: Clock,
    lookups: Lookups,
    *,
    verifier: TokenVerifier | None = None,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
) -> FastAPI:
    """The whole HTTP side as one FastAPI app. ConfigError when there is nothing to check tokens with."""
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
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.admission = admission
    problems.install(app)
    _add_health(app, board)
    _add_forecasts(app, question, guard(admission, "read"))
    _add_signals(app, question, guard(admission, "signals"))
    _add_background(app, question, guard(admission, "read"), lookups)
    _add_status(app, question, clock, guard(admission, "read"))
    streams = OpenStreams(settings.streams_per_subject)
    _add_stream(app, board, streams, verifier, guard(admission, "read"), heartbeat_seconds)
    _add_key_set(app, verifier)
    add_page(app, settings.market)
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


def _reply(request: Request, visit: Visit, answer: Answer) -> Response:
    """The answer, or 304 when the caller has it already."""
    headers = {"ETag": answer.etag, "Cache-Control": CALLER_MEMORY} | visit.budget.headers()
    if answer.etag in [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]:
        return Response(None, 304, headers)
    return Response(answer.body, 200, headers, "application/json")


def _render(board: Board, said: dict[str, Any]) -> Answer:
    body = orjson.dumps(said)
    return Answer(body[:-1] + b',"served_at":"%s"}' % board.served_at().encode(), etag_of(body))


Timeframe = Annotated[str | None, Query(description="as H1; the first served one when left out", examples=["H1"])]


def _add_health(app: FastAPI, board: Board) -> None:
    @app.get("/healthz", tags=["health"], responses=documented(Health))
    async def healthz() -> Response:
        """Is the process alive? Always 200 when it can answer at all."""
        return Response(b'{"status":"alive"}', media_type="application/json", headers={"Cache-Control": "no-store"})

    @app.get("/readyz", tags=["health"], responses=documented(Health, 503))
    async def readyz() -> Response:
        """Are there forecasts to serve? 503 with the reason until then."""
        if not board.ready:
            reason = "There is no forecast yet." if board.filled else "The forecaster has not reported yet."
            raise unavailable(
                "starting",
                "Still starting",
                reason,
                hint="History is loaded first; /api/v1/status shows how far it is.",
            )
        return Response(b'{"status":"ready"}', media_type="application/json", headers={"Cache-Control": "no-store"})


def _add_forecasts(app: FastAPI, question: Question, allowed: Any) -> None:
    board = question.board

    @app.get(
        "/api/v1/predictions/{symbol}",
        tags=["forecasts"],
        response_model=None,
        responses=documented(ForecastBody, *COMMON),
    )
    async def prediction(
        request: Request, symbol: str, timeframe: Timeframe = None, visit: Visit = allowed
    ) -> Response:
        """The newest forecast of one symbol: volatility and return quantiles per horizon, with their skill."""
        code, frame = question.symbol(symbol), question.timeframe(timeframe)
        answer = board.forecast(key_of(code, frame))
        if answer is None:
            raise question.not_yet(code, frame)
        return _reply(request, visit, answer)

    @app.get(
        "/api/v1/forex/all",
        tags=["forecasts"],
        response_model=None,
        responses=documented(ForecastsBody, 401, 422, 429, 503),
    )
    async def all_predictions(request: Request, timeframe: Timeframe = None, visit: Visit = allowed) -> Response:
        """The newest forecasts of all served symbols; those without one stand under `missing` with the reason."""
        frame = question.timeframe(timeframe)
        if not any(board.has(key_of(code, frame)) for code in question.settings.symbols):
            raise question.not_yet(question.settings.symbols[0], frame)
        answer = board.forecasts(frame, question.settings.symbols, lambda code: question.why_missing(code, frame))
        return _reply(request, visit, answer)

    @app.get("/api/v1/bars/{symbol}", tags=["market"], response_model=None, responses=documented(BarsBody, *COMMON))
    async def bars(
        request: Request,
        symbol: str,
        timeframe: Timeframe = None,
        limit: Annotated[int, Query(ge=1, le=5000, description="newest bars; the board holds a few hundred")] = 240,
        visit: Visit = allowed,
    ) -> Response:
        """The newest closed bars of one symbol, oldest first."""
        code, frame = question.symbol(symbol), question.timeframe(timeframe)
        rows = board.bars(key_of(code, frame), limit)
        if not rows:
            raise unavailable(
                "no-bars",
                "No bars yet",
                f"There are no bars of {code} {frame} yet.",
                hint="History is being loaded: watch /api/v1/status.",
            )
        said = {
            "symbol": code,
            "timeframe": frame,
            "market": question.settings.market,
            "columns": BAR_COLUMNS,
            "bars": rows,
        }
        return _reply(request, visit, _render(board, said))


def _add_signals(app: FastAPI, question: Question, allowed: Any) -> None:
    board = question.board

    @app.get(
        "/api/v1/signals",
        tags=["forecasts"],
        response_model=None,
        responses=documented(SignalsBody, 401, 403, 422, 429, 503),
    )
    async def signals(request: Request, timeframe: Timeframe = None, visit: Visit = allowed) -> Response:
        """Buy, sell or none per symbol, size-free. None is the rule: a side needs a passed gate and an edge net of spread."""
        frame = question.timeframe(timeframe)
        found = [board.signal_fields(key_of(code, frame)) for code in question.settings.symbols]
        said = [signal for signal in found if signal is not None]
        if not said:
            raise question.not_yet(question.settings.symbols[0], frame)
        skill = [card for card in board.skill_cards(frame) if str(card["target"]).startswith("sign")]
        body = {"timeframe": frame, "market": question.settings.market, "signals": said, "skill": skill}
        return _reply(request, visit, _render(board, body))


def _add_background(app: FastAPI, question: Question, allowed: Any, lookups: Lookups) -> None:
    board, market = question.board, question.settings.market

    def champion(frame: str) -> dict[str, Any]:
        model = board.update.models.get(frame)
        if model is None:
            raise question.not_yet("", frame)
        return model

    @app.get("/api/v1/skill", tags=["skill"], response_model=None, responses=documented(SkillBody, 401, 422, 429, 503))
    async def skill(request: Request, timeframe: Timeframe = None, visit: Visit = allowed) -> Response:
        """How good the champion's forecasts have been out of sample, against named baselines, and live."""
        frame = question.timeframe(timeframe)
        said = {
            "timeframe": frame,
            "market": market,
            "model_id": champion(frame)["id"],
            "skill": board.skill_cards(frame),
        }
        return _reply(request, visit, _render(board, said))

    @app.get("/api/v1/models/{symbol}", tags=["skill"], response_model=None, responses=documented(ModelBody, *COMMON))
    async def model(request: Request, symbol: str, timeframe: Timeframe = None, visit: Visit = allowed) -> Response:
        """The model behind the forecasts of one symbol: what it is, what it saw, what the gate said."""
        code, frame = question.symbol(symbol), question.timeframe(timeframe)
        return _reply(
            request,
            visit,
            _render(board, {"symbol": code, "timeframe": frame, "market": market, "model": champion(frame)}),
        )

    @app.get(
        "/api/v1/predictions/{symbol}/history",
        tags=["forecasts"],
        response_model=None,
        responses=documented(HistoryBody, *COMMON),
    )
    async def history(
        request: Request,
        symbol: str,
        timeframe: Timeframe = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        visit: Visit = allowed,
    ) -> Response:
        """Past forecasts of one symbol out of the ledger, newest first, beside what really happened."""
        code, frame = question.symbol(symbol), question.timeframe(timeframe)
        rows = jsonable(await lookups.history(code, frame, limit))
        said = {"symbol": code, "timeframe": frame, "market": market, "count": len(rows), "forecasts": rows}
        return _reply(request, visit, _render(board, said))


def _add_status(app: FastAPI, question: Question, clock: Clock, allowed: Any) -> None:
    settings, board = question.settings, question.board

    @app.get("/api/v1/status", tags=["health"], response_model=None, responses=documented(StatusBody, 401, 429))
    async def status(visit: Visit = allowed) -> Response:
        """What is running, on which market, and how far it is."""
        board.tick()
        said = {
            "version": API_VERSION,
            "market": settings.market,
            "simulated": settings.market == "simulated" or _source_is_simulated(board),
            "speed": settings.speed,
            "market_time": iso_utc(clock.now()),
            "symbols": settings.symbols,
            "timeframes": settings.timeframes,
            "ready": board.ready,
            "reason": "" if board.ready else question.why_missing(settings.symbols[0], settings.timeframes[0]),
            "board_version": board.update.version,
            "forecasts": board.count,
            "stale": board.stale_keys,
            "models": {frame: model["id"] for frame, model in board.update.models.items()},
            "listeners": board.subscriber_count,
            "source": jsonable(board.update.status),
            "served_at": board.served_at(),
        }
        headers = {"Cache-Control": "no-store"} | visit.budget.headers()
        return Response(orjson.dumps(said), 200, headers, "application/json")


def _source_is_simulated(board: Board) -> bool:
    """A data API can stand before a simulated terminal, too; it says so."""
    return bool((board.update.status.get("source") or {}).get("simulated"))


def _add_key_set(app: FastAPI, verifier: TokenVerifier) -> None:
    @app.get("/.well-known/jwks.json", tags=["health"], response_model=None, responses=documented(KeySetBody))
    async def key_set(request: Request) -> Response:
        """The public keys that tokens are signed with (RFC 7517), for whoever wants to check one. No token needed."""
        body = verifier.trust.jwks
        headers = {"ETag": etag_of(body), "Cache-Control": "public, max-age=300"}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(None, 304, headers)
        return Response(body, 200, headers, "application/json")


def _add_stream(
    app: FastAPI,
    board: Board,
    streams: OpenStreams,
    verifier: TokenVerifier,
    allowed: Any,
    heartbeat_seconds: float,
) -> None:
    described: dict[int | str, dict[str, Any]] = {
        200: {"content": {"text/event-stream": {"example": 'id: 5f0c-17\nevent: update\ndata: {"version": 17, …}\n\n'}}}
    }

    @app.get("/api/v1/stream", tags=["forecasts"], response_model=None, responses=described)
    async def stream(request: Request, visit: Visit = allowed) -> StreamingResponse:
        """Server-sent events. First a `snapshot` (or what was missed after Last-Event-ID), then an `update` whenever a bar
        closes or a forecast turns stale: changed forecasts and new bars. `heartbeat` in between. Ends with the token."""
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"} | visit.budget.headers()
        last_seen, token = request.headers.get("last-event-id", ""), request.headers.get("authorization")
        body = events(board, visit.caller, last_seen, heartbeat_seconds, lambda: verifier.admits(token))
        return streams.open(visit.caller.subject, body, headers)


async def events(
    board: Board,
    caller: Caller,
    last_event_id: str,
    heartbeat_seconds: float,
    admitted: Callable[[], bool] = lambda: True,
) -> AsyncIterator[bytes]:
    """The endless body of the stream; ends when the caller's token does, or is `admitted` no more."""
    subscription = board.subscribe(signals="signals" in caller.scopes, last_event_id=last_event_id)
    try:
        yield b"retry: 2000\n\n"
        while board.wall() < caller.expires_at and admitted():
            if subscription.lagged:
                subscription.restart()
                yield subscription.body(board.snapshot_event())
            while event := subscription.take():
                yield subscription.body(event)
            if not await subscription.wait(heartbeat_seconds):
                yield board.heartbeat()
    finally:
        board.unsubscribe(subscription)
