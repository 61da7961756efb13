"""The terminal's reads over HTTP, for when Ray cannot reach the Windows host: JSON for people, Arrow for programs.

Serves any BarSource that also has `ticks`, behind one API key. Does not know terminals, Ray or storage.
"""

from __future__ import annotations

import hmac
import re
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import pyarrow as pa
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from market.bars import BarSource
from market.errors import BadTime, InputError, LstmcError, MarketUnavailable, PortInUse, UnknownSymbol
from market.forecasts import jsonable
from market.symbols import symbol as known_symbol
from market.timeframes import Timeframe

ARROW = "application/vnd.apache.arrow.stream"
MAX_BARS = 50_000  # per answer; the client asks in pieces
MAX_TICKS = 100_000
DEFAULT_BARS = 500
EARLIEST, LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
_ISO = re.compile(r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})$")


class TickSource(BarSource, Protocol):
    """A BarSource that can also show ticks."""

    def ticks(self, symbol: str, since: datetime, until: datetime | None = None, limit: int = 10_000) -> pa.Table: ...


def create_app(source: TickSource, api_key: str) -> FastAPI:
    """The routes over `source`. Every request needs the header X-API-Key."""
    app = FastAPI(title="LSTMC market data", docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def check_key(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        given = request.headers.get("x-api-key", "")
        if not hmac.compare_digest(given.encode(), api_key.encode()):
            hint = "Send the header X-API-Key; the key is in <home>/secrets/data_api_key on the cluster's head."
            return _problem(401, "The API key is missing or wrong.", hint)
        return await call_next(request)

    app.add_exception_handler(LstmcError, _on_error)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)

    @app.get("/mt5/health")
    def health() -> Response:
        return JSONResponse(jsonable(source.health()))

    @app.get("/mt5/prices")
    def prices(symbols: str) -> Response:
        codes = [known_symbol(code).code for code in symbols.split(",")]
        return JSONResponse(jsonable({"prices": source.prices(codes)}))

    @app.get("/mt5/prices/{symbol}")
    def price(symbol: str) -> Response:
        return JSONResponse(jsonable(source.prices([known_symbol(symbol).code])[0]))

    @app.get("/mt5/history/{symbol}/{tf}")
    def history(request: Request, symbol: str, tf: str, to: str | None = None, format: str | None = None) -> Response:
        code, frame = known_symbol(symbol).code, Timeframe.parse(tf)
        until = _moment("to", to)
        since = _moment("from", request.query_params.get("from"))
        since = since or (until or source.health()["now"]) - frame.delta * DEFAULT_BARS
        until = until or since + frame.delta * MAX_BARS  # the market's now may be far from ours: a replay, a simulation
        _check_range(since, until, frame)
        return _table(request, format, "bars", source.closed_bars(code, frame.value, since, until))

    @app.get("/mt5/ticks/{symbol}")
    def ticks(
        request: Request, symbol: str, to: str | None = None, limit: int = 1000, format: str | None = None
    ) -> Response:
        code, until = known_symbol(symbol).code, _moment("to", to)
        since = _moment("from", request.query_params.get("from"))
        if since is None:
            raise BadTime("The parameter from is missing.", hint=_FORM)
        if until is not None and until < since:
            raise BadTime("The parameter to lies before from.", hint="Swap them.")
        if not 1 <= limit <= MAX_TICKS:
            raise InputError(f"limit={limit} is out of range.", hint=f"Ask for 1 to {MAX_TICKS} ticks.")
        return _table(request, format, "ticks", source.ticks(code, since, until, limit))

    return app


_FORM = "Use ISO 8601 with a zone, such as 2020-03-02T14:00:00Z."


def _moment(name: str, text: str | None) -> datetime | None:
    """`"2020-03-02T14:00:00Z"` -> aware UTC. A `+` that was not escaped arrives as a space: taken back."""
    if text is None:
        return None
    text = re.sub(r" (\d{2}:?\d{2})$", r"+\1", text) if re.search(r":\d{2}(\.\d+)? \d{2}:?\d{2}$", text) else text
    try:
        if not _ISO.match(text):
            raise ValueError
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadTime(f"The parameter {name}={text!r} is not a time.", hint=_FORM) from None
    if not EARLIEST <= moment < LATEST:
        raise BadTime(f"The parameter {name}={text!r} is out of range.", hint="Ask for times from 1900 to 2199.")
    return moment


def _check_range(since: datetime, until: datetime, frame: Timeframe) -> None:
    if until < since:
        raise BadTime("The parameter to lies before from.", hint="Swap them.")
    longest = frame.delta * MAX_BARS
    if until - since > longest:
        most = (
            f"at most {longest.days or longest} days of {frame.value}" if longest >= timedelta(days=1) else str(longest)
        )
        raise InputError("The range is too long for one answer.", hint=f"Ask for {most} at a time, with from and to.")


def _table(request: Request, form: str | None, name: str, table: pa.Table) -> Response:
    """The table as Arrow when asked for by `format=arrow` or the Accept header, else as JSON rows."""
    if form not in (None, "json", "arrow"):
        raise InputError(f"format={form!r} is unknown.", hint="Use json or arrow.")
    if form == "arrow" or (form is None and ARROW in request.headers.get("accept", "")):
        return Response(to_arrow(table), media_type=ARROW)
    return JSONResponse({name: jsonable(table.to_pylist()), "count": table.num_rows})


def to_arrow(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _problem(status: int, detail: str, hint: str) -> Response:
    titles = {400: "Bad request", 401: "Not authorised", 404: "Not found", 503: "Market unavailable"}
    body = {
        "type": "about:blank",
        "title": titles.get(status, "Error"),
        "status": status,
        "detail": detail,
        "hint": hint,
    }
    return JSONResponse(body, status_code=status, media_type="application/problem+json")


def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, LstmcError)
    status = 404 if isinstance(error, UnknownSymbol) else 400 if isinstance(error, InputError) else 500
    status = 503 if isinstance(error, MarketUnavailable) else status
    return _problem(status, error.message, error.hint)


def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    hint = "See /mt5/health, /mt5/prices/{symbol}, /mt5/history/{symbol}/{tf} and /mt5/ticks/{symbol}."
    return _problem(error.status_code, f"{request.url.path}: {error.detail}.", hint)


def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return _problem(400, f"The parameter {first['loc'][-1]}: {first['msg']}.", "Correct it and ask again.")


@dataclass(frozen=True)
class DataApi:
    """A running data API: where it listens, and how to end it."""

    host: str
    port: int
    server: uvicorn.Server
    thread: threading.Thread

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(timeout=10)


def serve_in_thread(source: TickSource, api_key: str, host: str, port: int) -> DataApi:
    """Serve on a daemon thread; returns when it listens. Port 0 takes a free one. PortInUse when it is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if not hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # on Windows reuse would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise PortInUse(
            f"The MT5 data API cannot listen on {host}:{port}: {error.strerror}.", hint="Set another data_api_port."
        ) from None
    config = uvicorn.Config(create_app(source, api_key), log_level="warning", access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="mt5-data-api", daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.005)
    return DataApi(host, listener.getsockname()[1], server, thread)
