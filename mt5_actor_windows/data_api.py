"""The terminal's reads over HTTP, for when Ray cannot reach the Windows host: JSON for people, Arrow for programs.

Serves any BarSource that also has `ticks`. Does not know terminals, Ray, storage, keys or sockets.
`python -m mt5_actor_windows.data_api` serves a terminal on a host that is no node of a cluster.
"""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Protocol

import pyarrow as pa
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from market.bars import BarSource
from market.errors import BadTime, InputError, LstmcError
from market.forecasts import jsonable
from market.symbols import symbol as known_symbol
from market.timeframes import Timeframe
from mt5_actor_windows.admission import Admission, Gate
from mt5_actor_windows.problem import Problem, of_error, respond

ARROW = "application/vnd.apache.arrow.stream"
MAX_BARS = 50_000  # per answer; the client asks in pieces
MAX_TICKS = 100_000
MAX_SYMBOLS = 50
DEFAULT_BARS = 500
EARLIEST, LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
_ISO = re.compile(r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})$")


class TickSource(BarSource, Protocol):
    """A BarSource that can also show ticks."""

    def ticks(self, symbol: str, since: datetime, until: datetime | None = None, limit: int = 10_000) -> pa.Table: ...


def create_app(source: TickSource, admission: Admission) -> FastAPI:
    """The routes over `source`. Every request needs the header X-API-Key with a key that `admission` lets in."""
    app = FastAPI(title="LSTMC market data", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_middleware(Gate, admission=admission)
    app.add_exception_handler(LstmcError, _on_error)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)

    @app.get("/mt5/health")
    def health() -> Response:
        return JSONResponse(jsonable(source.health()))

    @app.get("/mt5/prices")
    def prices(symbols: str) -> Response:
        names = symbols.split(",")
        if len(names) > MAX_SYMBOLS:
            raise InputError(f"{len(names)} symbols are too many.", hint=f"Ask for at most {MAX_SYMBOLS} at a time.")
        codes = list(dict.fromkeys(known_symbol(name).code for name in names))
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
    found = {name: jsonable(table.to_pylist()), "count": table.num_rows, "reason": _reason(name, table)}
    return JSONResponse(found)


def _reason(name: str, table: pa.Table) -> str:
    """Why the answer is empty, or what in it is null; "" when nothing is missing."""
    if table.num_rows == 0:
        return f"The source has no {name} in this range."
    absent = [column for column in table.column_names if table[column].null_count]
    return f"null where the source does not know it: {', '.join(absent)}." if absent else ""


def to_arrow(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _answer(problem: Problem, request: Request) -> Response:
    return respond(problem, request.scope["request_id"])


def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, LstmcError)
    return _answer(of_error(error), request)


def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    hint = "See /mt5/health, /mt5/prices/{symbol}, /mt5/history/{symbol}/{tf} and /mt5/ticks/{symbol}."
    if error.status_code == 405:
        hint = "Everything here is read with GET."
    return _answer(Problem(error.status_code, f"{request.url.path}: {error.detail}.", hint, error.headers), request)


def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    problem = Problem(400, f"The parameter {first['loc'][-1]}: {first['msg']}.", "Correct it and ask again.")
    return _answer(problem, request)


if __name__ == "__main__":
    from mt5_actor_windows.standalone import main

    sys.exit(main())
