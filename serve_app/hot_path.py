"""The newest forecast of one symbol, which is asked for most, answered without FastAPI.

It knows only the usual question: a GET of a served symbol in its canonical spelling, with a token that was good before and
a slot that is here. Everything else goes on to the app inside, which gives the same answer; a test compares the two.
"""

from __future__ import annotations

import re
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from configs.settings import Settings
from serve_app.admission import Admission
from serve_app.board import Board, key_of
from serve_app.headers import SECURITY_HEADERS
from serve_app.reply import CALLER_MEMORY, COMPRESSED_FROM

PREFIX = "/api/v1/predictions/"
_ONE_TAG = re.compile(rb'(W/)?"[^",]*"')
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")  # as `headers.request_id`
_UNUSUAL = frozenset((b"origin", b"transfer-encoding", b"content-length"))
_SECURITY = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


class HotPath:
    """ASGI middleware around the whole app. Raises nothing of its own: where it fails, the app inside is asked."""

    def __init__(self, app: ASGIApp, settings: Settings, board: Board, admission: Admission) -> None:
        self.app = app
        self._board, self._admission = board, admission
        first, vary = settings.timeframes[0], b"Accept-Encoding" + (b", Origin" if settings.cors_origins else b"")
        self._after = [(b"vary", vary), *_SECURITY]
        # What is asked, exactly as clients write it -> the board's key.
        self._keys = {(PREFIX + code, b""): key_of(code, first) for code in settings.symbols} | {
            (PREFIX + code, f"timeframe={frame}".encode()): key_of(code, frame)
            for code in settings.symbols
            for frame in settings.timeframes
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET":
            key = self._keys.get((scope["path"], scope["query_string"]))
            if key is not None and not scope.get("root_path") and (ready := self._ready(scope, key)):
                start, body = ready
                await send(start)
                await send(body)
                return
        await self.app(scope, receive, send)

    def _ready(self, scope: Scope, key: str) -> tuple[Message, Message] | None:
        """The two messages of the answer; None when the question is not of the usual kind."""
        authorization = held = identity = codings = b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                if authorization:
                    return None
                authorization = value
            elif name == b"if-none-match":
                if held or not _ONE_TAG.fullmatch(value):
                    return None
                held = value
            elif name == b"x-request-id":
                identity = identity or value
            elif name == b"accept-encoding":
                codings = value
            elif name in _UNUSUAL:
                return None
        try:
            answer = self._board.forecast(key)
        except Exception:
            return None  # the app inside meets the same, and knows how to say so
        if answer is None or not authorization or (codings and len(answer.body) >= COMPRESSED_FROM):
            return None
        visit = self._admission.admit_known(authorization, "read")
        if visit is None:
            return None
        tag, budget = answer.etag.encode(), visit.budget
        if not _REQUEST_ID.fullmatch(identity):
            identity = uuid.uuid4().hex.encode()
        headers = [
            (b"etag", tag),
            (b"cache-control", CALLER_MEMORY.encode()),
            *((name.lower().encode(), value.encode()) for name, value in budget.headers().items()),
        ]
        modified = held != tag
        if modified:
            headers += [(b"content-length", b"%d" % len(answer.body)), (b"content-type", b"application/json")]
        headers += [(b"x-request-id", identity), *self._after]
        start: Message = {"type": "http.response.start", "status": 200 if modified else 304, "headers": headers}
        return start, {"type": "http.response.body", "body": answer.body if modified else b""}
