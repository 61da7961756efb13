"""What stands behind the forecasts: their skill, their model, the state of the whole, and the keys of the tokens."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import FastAPI, Request, Response

from market.forecasts import iso_utc, jsonable
from serve_app.admission import Visit
from serve_app.auth import TokenVerifier
from serve_app.board import Answer, Board, etag_of
from serve_app.openapi import OF_A_SYMBOL, OF_A_TIMEFRAME, READ, documented
from serve_app.problems import unavailable
from serve_app.question import Question, TimeframeName
from serve_app.reply import JSON, NOT_KEPT, conditional, rendered, reply
from serve_app.responses import Health, KeySetBody, ModelBody, SkillBody, StatusBody

API_VERSION = "0.1.0"


def add_skill(app: FastAPI, question: Question, allowed: Any) -> None:
    board, market = question.board, question.settings.market

    def champion(frame: str) -> dict[str, Any]:
        model = board.update.models.get(frame)
        if model is None:
            raise question.not_yet("", frame)
        return model

    @app.get("/api/v1/skill", tags=["skill"], response_model=None, responses=documented(SkillBody, *OF_A_TIMEFRAME))
    async def skill(request: Request, timeframe: TimeframeName = None, visit: Visit = allowed) -> Response:
        """How good the champion's forecasts have been out of sample, against named baselines, and live."""
        frame = question.timeframe(timeframe)
        said = {
            "timeframe": frame,
            "market": market,
            "model_id": champion(frame)["id"],
            "skill": board.skill_cards(frame),
        }
        return reply(request, visit, rendered(board, said))

    @app.get(
        "/api/v1/models/{symbol}", tags=["skill"], response_model=None, responses=documented(ModelBody, *OF_A_SYMBOL)
    )
    async def model(request: Request, symbol: str, timeframe: TimeframeName = None, visit: Visit = allowed) -> Response:
        """The model behind the forecasts of one symbol: what it is, what it saw, what the gate said."""
        code, frame = question.symbol(symbol), question.timeframe(timeframe)
        said = {"symbol": code, "timeframe": frame, "market": market, "model": champion(frame)}
        return reply(request, visit, rendered(board, said))


def add_status(app: FastAPI, question: Question, clock: Any, allowed: Any) -> None:
    settings, board = question.settings, question.board

    @app.get(
        "/api/v1/status", tags=["health"], response_model=None, responses=documented(StatusBody, *READ, tagged=False)
    )
    async def status(visit: Visit = allowed) -> Response:
        """What is running, on which market, and how far it is."""
        board.tick()
        said = {
            "version": API_VERSION,
            "market": settings.market,
            "simulated": settings.market == "simulated" or _source_is_simulated(board),
            "speed": settings.speed,
            "market_time": iso_utc(clock.now()),
            "market_open": board.hours.is_open,
            "next_open": iso_utc(board.hours.next_open),
            "symbols": settings.symbols,
            "timeframes": settings.timeframes,
            "ready": board.ready,
            "reason": "" if board.ready else board.why_missing(settings.symbols[0], settings.timeframes[0])[1],
            "board_version": board.update.version,
            "forecasts": board.count,
            "stale": board.stale_keys,
            "conditions": board.conditions,
            "models": {frame: model["id"] for frame, model in board.update.models.items()},
            "listeners": board.subscriber_count,
            "source": jsonable(board.update.status),
            "served_at": board.served_at(),
        }
        return Response(orjson.dumps(said), 200, NOT_KEPT | visit.budget.headers(), JSON)


def _source_is_simulated(board: Board) -> bool:
    """A data API can stand before a simulated terminal, too; it says so."""
    return bool((board.update.status.get("source") or {}).get("simulated"))


def add_health(app: FastAPI, board: Board) -> None:
    @app.get("/healthz", tags=["health"], response_model=None, responses=documented(Health, tagged=False))
    async def healthz() -> Response:
        """Is the process alive? Always 200 when it can answer at all."""
        return Response(b'{"status":"alive"}', 200, NOT_KEPT, JSON)

    @app.get("/readyz", tags=["health"], response_model=None, responses=documented(Health, 503, tagged=False))
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
        return Response(b'{"status":"ready"}', 200, NOT_KEPT, JSON)


def add_key_set(app: FastAPI, verifier: TokenVerifier) -> None:
    @app.get("/.well-known/jwks.json", tags=["health"], response_model=None, responses=documented(KeySetBody))
    async def key_set(request: Request) -> Response:
        """The public keys that tokens are signed with (RFC 7517), for whoever wants to check one. No token needed."""
        body = verifier.trust.jwks
        return conditional(request, Answer(body, etag_of(body)), JSON, {"Cache-Control": "public, max-age=300"})
