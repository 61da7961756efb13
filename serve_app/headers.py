"""What surrounds every answer: a request id, security headers, and a net under faults nobody foresaw.

Plain ASGI, since it also wraps the endless event stream. Knows nothing about what is inside.
"""

from __future__ import annotations

import re
import traceback
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app import problems
from serve_app.request_size import check_size

# The page may load only what this server sends: no inline script, no other host, no frame around it.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
}
_TOKEN = re.compile(r"eyJ[\w-]+\.[\w.-]*|(?i:bearer)\s+[^\s'\"]+")  # a token's header always begins so
_REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{1,64}$")
_log = structlog.get_logger("lstmc.api")


def request_id(headers: Headers) -> str:
    """The caller's X-Request-Id when it is harmless to log, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.match(given) else uuid.uuid4().hex


def without_tokens(text: str) -> str:
    """`text` as it may stand in a log: what looks like a token or follows "Bearer" is left out."""
    return _TOKEN.sub("[token]", text)


class Envelope:
    """ASGI middleware: headers on every answer, sizes checked, HEAD answered as GET without a body; an unforeseen exception
    becomes a 500 and one log line."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope["request_id"] = identity = request_id(Headers(scope=scope))
        started, head = False, scope["method"] == "HEAD"
        if head:  # what GET would say, without its body; the server goes by its own scope
            scope = dict(scope) | {"method": "GET", "head": True}

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = identity
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            elif head:
                message = dict(message) | {"body": b""}
            await send(message)

        try:
            check_size(scope)
        except problems.Problem as problem:
            await problems.respond(problem, Request(scope))(scope, receive, send_with_headers)
            return
        try:
            await self.app(scope, receive, send_with_headers)
        except Exception:
            # Not log.exception: it may print local variables, and among them the request's headers with the token.
            fault, path = without_tokens(traceback.format_exc()), without_tokens(scope["path"])
            _log.error("request failed", request_id=identity, path=path, traceback=fault)
            if started:
                raise  # half an answer is out: only breaking the connection is honest
            await problems.respond(problems.internal(), Request(scope))(scope, receive, send_with_headers)
