"""Who may ask the data API, and how often: in front of every route. Knows neither routes nor terminals.

Everyone with a live key has a moving window of a minute; strangers have one per network, so that guessing is slow and
cannot use up what belongs to a key.
"""

from __future__ import annotations

import ipaddress
import re
import traceback
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mt5_actor_windows.api_keys import KeyRing
from mt5_actor_windows.problem import Problem, respond
from mt5_actor_windows.request_budget import Budget, MinuteWindow

FAILURES_PER_MINUTE = 30
MAX_URL = 2048  # bytes of path and query
_REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{1,64}$")
log = structlog.get_logger("lstmc.data_api")


class Admission:
    """At most `per_minute` requests per key, and `failures_per_minute` wrong keys per network, in any 60 wall seconds."""

    def __init__(self, keys: KeyRing, per_minute: int, failures_per_minute: int = FAILURES_PER_MINUTE) -> None:
        self._keys = keys
        self._per_key, self._per_network = MinuteWindow(per_minute), MinuteWindow(failures_per_minute)
        self._greeted: set[str] = set()

    def admit(self, presented: bytes, address: str) -> Budget:
        """Count one request; Problem 401 or 429. A live key is let in whatever else came from its address."""
        key_id = self._keys.verify(presented)
        if key_id is None:
            raise self._refusal(network_of(address))
        if key_id not in self._greeted:  # once per key and process: shows whether an old key is still in use
            self._greeted.add(key_id)
            log.info("a key is in use", key=key_id, address=address)
        allowed, budget = self._per_key.take(key_id)
        if not allowed:
            raise _too_many(budget, f"This key may ask {budget.limit} times a minute.")
        return budget

    def _refusal(self, network: str) -> Problem:
        allowed, budget = self._per_network.take(network)
        if not allowed:
            return _too_many(budget, f"More than {budget.limit} wrong keys a minute came from your address.")
        detail, hint = self._keys.trouble()
        log.warning("refused", address=network, reason=detail)
        return Problem(401, detail, hint, {"WWW-Authenticate": 'X-API-Key realm="lstmc"'})


def network_of(address: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 one, whose holder has all of its addresses to try from."""
    try:
        found = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return address
    if found.version == 6 and found.ipv4_mapped:  # how a socket for both kinds shows IPv4: all of it is in one /64
        found = found.ipv4_mapped
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else str(found)


def _too_many(budget: Budget, detail: str) -> Problem:
    headers = budget.headers() | {"Retry-After": str(budget.reset_seconds)}
    return Problem(429, detail, "Wait as long as Retry-After says.", headers)


class Gate:
    """ASGI middleware: admission, then the route. Every answer carries a request id and is not to be stored."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self.app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope["request_id"] = identity = _request_id(scope)
        more, started = {"X-Request-Id": identity, "Cache-Control": "no-store"}, False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in more.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            more |= self._admission.admit(_presented(scope), (scope.get("client") or ("unknown",))[0]).headers()
            _check_length(scope)
            await self.app(scope, receive, send_with_headers)
        except Problem as problem:
            await respond(problem, identity)(scope, receive, send_with_headers)
        except Exception:
            # Not log.exception: it may print local variables, and among them the request's headers with the key.
            log.error("request failed", request_id=identity, path=scope["path"], traceback=traceback.format_exc())
            if started:
                raise  # half an answer is out: only breaking the connection is honest
            hint = "Try again; if it stays, give the request_id to whoever runs this host."
            failed = Problem(500, "The request could not be answered because of a fault in the server.", hint)
            await respond(failed, identity)(scope, receive, send_with_headers)


def _presented(scope: Scope) -> bytes:
    return next((value for name, value in scope["headers"] if name == b"x-api-key"), b"")


def _request_id(scope: Scope) -> str:
    """The caller's X-Request-Id when it is harmless to log, else a new one."""
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _REQUEST_ID.match(given) else uuid.uuid4().hex


def _check_length(scope: Scope) -> None:
    length = len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"])
    if length > MAX_URL:
        raise Problem(414, f"The address has {length} bytes.", f"At most {MAX_URL} are read: ask for less at a time.")
