"""What can go wrong between a program and the API. Each error says what happened and, in `hint`, what to do.

LstmcClientError
├── Unreachable          no answer at all
└── ApiError             an answer that is a problem (RFC 9457)
    ├── BadRequest       400, 404, 406 and other 4xx: ask differently
    ├── NotAuthenticated 401
    ├── NotAllowed       403: the token lacks the scope
    ├── TooManyRequests  429, and waiting longer was not allowed
    ├── NotReady         503, and waiting longer was not allowed
    └── ServerFault      any other 5xx
"""

from __future__ import annotations

import json

import httpx


class LstmcClientError(Exception):
    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message} {hint}".strip())
        self.hint = hint


class Unreachable(LstmcClientError): ...


class ApiError(LstmcClientError):
    """`kind` is the end of the problem's type ("unknown-symbol"); `more` holds further members, such as `served`.

    `retry_after`: seconds after which asking again may help; None: it does not help.
    """

    def __init__(self, status: int, problem: dict[str, object], retry_after: float | None = None) -> None:
        self.status, self.retry_after = status, retry_after
        self.kind = str(problem.get("type", "")).rpartition(":")[2]
        self.title, self.detail = str(problem.get("title", "")), str(problem.get("detail", ""))
        self.request_id = str(problem.get("request_id", ""))
        named = {"type", "title", "status", "detail", "hint", "instance", "request_id"}
        self.more = {name: value for name, value in problem.items() if name not in named}
        super().__init__(f"{status} {self.title}: {self.detail}", hint=str(problem.get("hint", "")))


class BadRequest(ApiError): ...


class NotAuthenticated(ApiError): ...


class NotAllowed(ApiError): ...


class TooManyRequests(ApiError): ...


class NotReady(ApiError): ...


class ServerFault(ApiError): ...


_KINDS = {401: NotAuthenticated, 403: NotAllowed, 429: TooManyRequests, 503: NotReady}


def error_of(answer: httpx.Response) -> ApiError:
    """Also of an answer that is no problem of ours, such as a proxy's page."""
    status, told = answer.status_code, answer.headers.get("retry-after", "")
    try:
        problem = json.loads(answer.content)
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"title": "No problem of the API's own", "detail": answer.text[:200]}
    kind = _KINDS.get(status, BadRequest if status < 500 else ServerFault)
    return kind(status, problem, float(told) if status in (429, 503) and told.isdecimal() else None)
