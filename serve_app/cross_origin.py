"""Which pages of other origins may read the API: those that are named, without cookies. Everybody else sees no CORS header.

Starlette's middleware alone would send some of its headers to strangers, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PREFLIGHT_SECONDS = 600
_SENT = ("Authorization", "If-None-Match", "Last-Event-ID", "X-Request-Id")
_SHOWN = ("ETag", "Link", "Retry-After", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "X-Request-Id")


class NamedOrigins:
    """ASGI middleware. `origins`: as browsers send them, compared whole."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self.app = app
        self._origins = frozenset(origins)
        self._cors = CORSMiddleware(
            app,
            allow_origins=list(origins),
            allow_methods=["GET"],
            allow_headers=_SENT,
            expose_headers=_SHOWN,
            max_age=PREFLIGHT_SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_by_origin(message: Message) -> None:
            if message["type"] == "http.response.start":  # or a cache gives one origin's answer to another
                MutableHeaders(scope=message).add_vary_header("Origin")
            await send(message)

        named = Headers(scope=scope).get("origin") in self._origins
        await (self._cors if named else self.app)(scope, receive, send_by_origin)
