"""The yardsticks of `bench serve`: the same bytes for everybody, by FastAPI and as a plain ASGI class."""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import FastAPI, Response
from starlette.types import Receive, Scope, Send

BODY = "LSTMC_BENCH_BODY"  # environment: a file with the bytes


def bare_app() -> FastAPI:
    """A FastAPI app with one route, for `uvicorn --factory`."""
    app, body = FastAPI(), Path(os.environ[BODY]).read_bytes()

    @app.get("/constant")
    async def constant() -> Response:
        return Response(body, media_type="application/json")

    return app


class Constant:
    """The least that a Serve replica can do."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for said in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{said}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._body})
