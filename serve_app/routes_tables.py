"""What people calculate with, bars and past forecasts: as JSON, Arrow or CSV, and the past page by page."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response

from serve_app.admission import Visit
from serve_app.board import BAR_COLUMNS, key_of
from serve_app.lookups import HistoryAsk, Lookups
from serve_app.openapi import OF_A_SYMBOL, documented
from serve_app.paging import CURSOR, cut, next_page, place_of
from serve_app.problems import unavailable
from serve_app.question import Moment, Question, TimeframeName, moment
from serve_app.reply import rendered, reply
from serve_app.representation import FormatName, Representation, negotiate, written
from serve_app.responses import BarsBody, HistoryBody
from serve_app.tables import bars_table, history_table

VARIES = {"Vary": "Accept"}


def add_bars(app: FastAPI, question: Question, allowed: Any) -> None:
    board, market = question.board, question.settings.market

    @app.get(
        "/api/v1/bars/{symbol}", tags=["market"], response_model=None, responses=documented(BarsBody, *OF_A_SYMBOL, 406)
    )
    async def bars(
        request: Request,
        symbol: str,
        timeframe: TimeframeName = None,
        limit: Annotated[int, Query(ge=1, le=5000, description="newest bars; the board holds a few hundred")] = 240,
        format: FormatName = None,
        visit: Visit = allowed,
    ) -> Response:
        """The newest closed bars of one symbol, oldest first."""
        code, frame, representation = question.symbol(symbol), question.timeframe(timeframe), negotiate(request, format)
        rows = board.bars(key_of(code, frame), limit)
        if not rows:
            raise unavailable(
                "no-bars",
                "No bars yet",
                f"There are no bars of {code} {frame} yet.",
                hint="History is being loaded: watch /api/v1/status.",
            )
        if representation is Representation.JSON:
            said = {"symbol": code, "timeframe": frame, "market": market, "columns": BAR_COLUMNS, "bars": rows}
            return reply(request, visit, rendered(board, said), more=VARIES)
        answer = written(bars_table(code, frame, market, rows), representation)
        return reply(request, visit, answer, representation.header, VARIES)


def add_history(app: FastAPI, question: Question, allowed: Any, lookups: Lookups) -> None:
    board, market = question.board, question.settings.market

    @app.get(
        "/api/v1/predictions/{symbol}/history",
        tags=["forecasts"],
        response_model=None,
        responses=documented(HistoryBody, *OF_A_SYMBOL, 406, paged=True),
    )
    async def history(
        request: Request,
        symbol: str,
        timeframe: TimeframeName = None,
        limit: Annotated[int, Query(ge=1, le=1000, description="forecasts a page")] = 100,
        since: Annotated[Moment, Query(alias="from", description="as of this moment or later")] = None,
        before: Annotated[Moment, Query(alias="to", description="as of before this moment")] = None,
        cursor: Annotated[
            str | None, Query(pattern=CURSOR, description="opaque: where `next` of the page before goes on")
        ] = None,
        format: FormatName = None,
        visit: Visit = allowed,
    ) -> Response:
        """Past forecasts of one symbol out of the ledger, newest first, beside what really happened.

        Pages stay as they are while new forecasts arrive. Arrow and CSV have a row per forecast and horizon, and the next
        page stands in the `Link` header only."""
        code, frame, representation = question.symbol(symbol), question.timeframe(timeframe), negotiate(request, format)
        ask = HistoryAsk(
            code,
            frame,
            limit + 1,
            moment("from", since),
            moment("to", before),
            place_of(cursor) if cursor else None,
        )
        rows, further = cut(await lookups.history(ask), limit)
        asked = {"timeframe": frame, "limit": str(limit)}
        asked |= {name: text for name in ("from", "to", "format") if (text := request.query_params.get(name))}
        following = next_page(f"/api/v1/predictions/{code}/history", asked, further)
        more = VARIES | ({"Link": f'<{following}>; rel="next"'} if following else {})

        def render() -> Response:
            if representation is not Representation.JSON:
                answer = written(history_table(rows), representation)
                return reply(request, visit, answer, representation.header, more)
            reason = "" if rows else f"No forecast of {code} {frame} is on record here."
            said = {"symbol": code, "timeframe": frame, "market": market, "count": len(rows), "reason": reason}
            return reply(request, visit, rendered(board, said | {"forecasts": rows, "next": following}), more=more)

        return await asyncio.to_thread(render)  # up to 3 MB
