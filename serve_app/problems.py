"""Errors over HTTP: one shape, RFC 9457 `application/problem+json`, always with what to do next.

Knows status codes and headers; knows neither routes nor forecasts. No traceback ever leaves through here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from market.errors import InputError, LedgerError, LstmcError, MarketUnavailable, ModelError, UnknownSymbol

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An answer that is an error. `code` names the kind ("unknown-symbol"); `more` are extra members of the body."""

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str,
        *,
        hint: str = "",
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.title, self.detail = status, code, title, detail
        self.hint, self.headers, self.more = hint, dict(headers or {}), dict(more or {})


def unauthorized(detail: str, *, error: str = "invalid_token", reason_code: str = "token_refused") -> Problem:
    """401 with the challenge of RFC 6750. `error` is "" when no token was sent at all; `reason_code` is for programs."""
    challenge = 'Bearer realm="lstmc"' + (f', error="{error}", error_description="{detail}"' if error else "")
    hint = "Send the header `Authorization: Bearer TOKEN`; `lstmc token issue` prints a token."
    headers, more = {"WWW-Authenticate": challenge}, {"reason_code": reason_code}
    return Problem(401, "unauthorized", "Not authenticated", detail, hint=hint, headers=headers, more=more)


def forbidden(scope: str) -> Problem:
    challenge = f'Bearer realm="lstmc", error="insufficient_scope", scope="{scope}"'
    return Problem(
        403,
        "insufficient-scope",
        "The token does not allow this",
        f"The token lacks the scope {scope!r}.",
        hint=f"Issue one that has it: `lstmc token issue --scopes {scope if scope == 'read' else f'read,{scope}'}`.",
        headers={"WWW-Authenticate": challenge},
    )


def unavailable(code: str, title: str, detail: str, *, hint: str, retry_after: int = 5) -> Problem:
    """503: the question is right, the answer is not there yet. `retry_after` in wall seconds."""
    return Problem(503, code, title, detail, hint=hint, headers={"Retry-After": str(retry_after)})


def respond(problem: Problem, request: Request) -> Response:
    body = {
        "type": f"urn:lstmc:problem:{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "hint": problem.hint,
        "instance": request.url.path,
        "request_id": request.scope.get("request_id", ""),
    } | problem.more
    budget = request.scope.get("budget")  # left there by `admission`; a 429 says its own
    headers = {"Cache-Control": "no-store"} | (budget.headers() if budget else {}) | problem.headers
    return Response(orjson.dumps(body), problem.status, headers, MEDIA_TYPE)


def from_lstmc_error(error: LstmcError) -> Problem:
    if isinstance(error, UnknownSymbol):
        return Problem(404, "unknown-symbol", "Unknown symbol", error.message, hint=error.hint)
    if isinstance(error, InputError):
        return Problem(422, "bad-input", "The request cannot be understood", error.message, hint=error.hint)
    if isinstance(error, MarketUnavailable | LedgerError | ModelError):
        return unavailable("unavailable", "Not available right now", error.message, hint=error.hint)
    return Problem(500, "internal", "Something failed inside", error.message, hint=error.hint)


def internal() -> Problem:
    return Problem(
        500,
        "internal",
        "Something failed inside",
        "The request could not be answered because of a fault in the server.",
        hint="Try again; if it stays, give the request_id to whoever runs this and see `lstmc doctor`.",
    )


def _from_http_exception(error: HTTPException) -> Problem:
    if error.status_code == 404:
        return Problem(
            404,
            "not-found",
            "Not found",
            "There is nothing at this address.",
            hint="/openapi.json lists all addresses.",
        )
    return Problem(error.status_code, "http", str(error.detail), str(error.detail), headers=error.headers)


def _wrong_method(method: str, allowed: dict[str, str]) -> Problem:
    return Problem(
        405,
        "method-not-allowed",
        "Method not allowed",
        f"This address does not take {method[:20]}.",
        hint=f"Allowed here: {allowed['Allow']}.",
        headers=allowed,
    )


def _from_validation(error: RequestValidationError) -> Problem:
    wrong = [{"where": ".".join(str(part) for part in e["loc"]), "what": e["msg"]} for e in error.errors()]
    detail = "; ".join(f"{w['where']}: {w['what']}" for w in wrong)
    return Problem(
        422,
        "bad-input",
        "The request cannot be understood",
        detail,
        hint="/openapi.json describes every parameter.",
        more={"errors": wrong},
    )


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem. Faults nobody foresaw are caught in `serve_app.headers`."""

    async def on_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        if error.status == 429:
            request.app.state.limited[error.code] += 1
        return respond(error, request)

    async def on_lstmc(request: Request, error: Exception) -> Response:
        assert isinstance(error, LstmcError)
        return respond(from_lstmc_error(error), request)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            allowed = {"Allow": "GET, HEAD, OPTIONS"}  # all there is here is read
            if request.method == "OPTIONS":
                return Response(None, 204, allowed | {"Cache-Control": "no-store"})
            return respond(_wrong_method(request.method, allowed), request)
        return respond(_from_http_exception(error), request)

    async def on_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return respond(_from_validation(error), request)

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(LstmcError, on_lstmc)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_validation)
