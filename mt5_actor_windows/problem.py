"""The data API's errors: one shape, RFC 9457 `application/problem+json`, always with what to do. Knows no routes."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import JSONResponse, Response

from market.errors import InputError, LstmcError, MarketUnavailable, UnknownSymbol

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, detail: str, hint: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.hint, self.headers = status, detail, hint, dict(headers or {})


def of_error(error: LstmcError) -> Problem:
    """Our error -> the answer: an unknown symbol is 404, other bad input 400, a market that is away 503."""
    status = 404 if isinstance(error, UnknownSymbol) else 400 if isinstance(error, InputError) else 500
    status = 503 if isinstance(error, MarketUnavailable) else status
    return Problem(status, error.message, error.hint)


def respond(problem: Problem, request_id: str) -> Response:
    body = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "hint": problem.hint,
        "request_id": request_id,
    }
    return JSONResponse(body, problem.status, problem.headers, MEDIA_TYPE)
