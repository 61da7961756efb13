"""The event stream: one endless answer per listener."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from serve_app.admission import Visit
from serve_app.auth import Caller, TokenVerifier
from serve_app.board import Board
from serve_app.open_streams import OpenStreams
from serve_app.openapi import READ, refused
from serve_app.reply import NOT_KEPT

HEARTBEAT_SECONDS = 15.0
EVENT_STREAM = "text/event-stream"
_EXAMPLE = 'id: 5f0c-17\nevent: update\ndata: {"version": 17, …}\n\n'


def add_stream(
    app: FastAPI,
    board: Board,
    streams: OpenStreams,
    verifier: TokenVerifier,
    allowed: Any,
    heartbeat_seconds: float,
) -> None:
    described: dict[int | str, dict[str, Any]] = {
        200: {"content": {EVENT_STREAM: {"schema": {"type": "string"}, "example": _EXAMPLE}}}
    }

    @app.get(
        "/api/v1/stream",
        tags=["forecasts"],
        response_model=None,
        response_class=StreamingResponse,
        responses=described | refused(*READ),
    )
    async def stream(request: Request, visit: Visit = allowed) -> Response:
        """Server-sent events. First a `snapshot` (or what was missed after Last-Event-ID), then an `update` whenever a bar
        closes or a forecast turns stale: changed forecasts and new bars. `heartbeat` in between. Ends with the token."""
        headers = NOT_KEPT | {"X-Accel-Buffering": "no"} | visit.budget.headers()
        if request.scope.get("head"):
            return Response(None, 200, headers, EVENT_STREAM)
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
    """The endless body of the stream; ends when the caller's token does, or is `admitted` no more, or the
    board's streams end."""
    subscription = board.subscribe(signals="signals" in caller.scopes, last_event_id=last_event_id)
    try:
        yield b"retry: 2000\n\n"
        while not board.streams_end and board.wall() < caller.expires_at and admitted():
            if subscription.lagged:
                subscription.restart()
                yield subscription.body(board.snapshot_event())
            while event := subscription.take():
                yield subscription.body(event)
            if not await subscription.wait(heartbeat_seconds):
                yield board.heartbeat()
    finally:
        board.unsubscribe(subscription)
