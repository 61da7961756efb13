"""The newest forecasts and signals, out of the board's ready bytes."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response

from serve_app.admission import Visit
from serve_app.asks import Asks
from serve_app.board import key_of
from serve_app.openapi import OF_A_SYMBOL, OF_A_TIMEFRAME, documented
from serve_app.question import Question, TimeframeName
from serve_app.reply import rendered, reply
from serve_app.responses import ForecastsBody, PredictionBody, SignalsBody

ModelName = Annotated[
    str | None,
    Query(
        pattern=r"^[a-z0-9]{2,3}-[0-9a-f]{16}$",
        description="any model of the registry; the champion, and what it has recorded, when left out",
        examples=["h1-2f9c64e1aa07b35d"],
    ),
]


def add_forecasts(app: FastAPI, question: Question, allowed: Any, asks: Asks) -> None:
    board = question.board

    @app.get(
        "/api/v1/predictions/{symbol}",
        tags=["forecasts"],
        response_model=None,
        responses=documented(PredictionBody, *OF_A_SYMBOL),
    )
    async def prediction(
        request: Request,
        symbol: str,
        timeframe: TimeframeName = None,
        model: ModelName = None,
        visit: Visit = allowed,
    ) -> Response:
        """The newest forecast of one symbol: volatility and return quantiles per horizon, with their skill.

        With `model`, and without it while a champion's first forecast is awaited, it is made on demand: it says
        `on_demand`, is not recorded and gives no signal."""
        code = question.symbol(symbol)
        if model is not None:
            return reply(request, visit, await asks.by_model(code, timeframe, model))
        frame = question.timeframe(timeframe)
        answer = board.forecast(key_of(code, frame)) or await asks.by_champion(code, frame)
        return reply(request, visit, answer)

    @app.get(
        "/api/v1/forex/all",
        tags=["forecasts"],
        response_model=None,
        responses=documented(ForecastsBody, *OF_A_TIMEFRAME),
    )
    async def all_predictions(request: Request, timeframe: TimeframeName = None, visit: Visit = allowed) -> Response:
        """The newest forecasts of all served symbols; those without one stand under `missing` with the reason."""
        frame = question.timeframe(timeframe)
        if not any(board.has(key_of(code, frame)) for code in question.settings.symbols):
            raise question.not_yet(question.settings.symbols[0], frame)
        answer = board.forecasts(frame, question.settings.symbols)
        return reply(request, visit, answer)


def add_signals(app: FastAPI, question: Question, allowed: Any) -> None:
    board = question.board

    @app.get(
        "/api/v1/signals",
        tags=["forecasts"],
        response_model=None,
        responses=documented(SignalsBody, *OF_A_TIMEFRAME),
    )
    async def signals(request: Request, timeframe: TimeframeName = None, visit: Visit = allowed) -> Response:
        """Buy, sell or none per symbol, size-free. None is the rule: a side needs a passed gate and an edge net of spread."""
        frame = question.timeframe(timeframe)
        found = [board.signal_fields(key_of(code, frame)) for code in question.settings.symbols]
        said = [signal for signal in found if signal is not None]
        if not said:
            raise question.not_yet(question.settings.symbols[0], frame)
        skill = [card for card in board.skill_cards(frame) if str(card["target"]).startswith("sign")]
        body: dict[str, Any] = {"timeframe": frame, "market": question.settings.market, "signals": said, "skill": skill}
        body |= board.missing(frame, question.settings.symbols)
        return reply(request, visit, rendered(board, body))
