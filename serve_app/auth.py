"""Who is asking: HS256 tokens, made by `issue_token`, checked by `TokenVerifier`. Bearer header only, never a query.

Knows nothing about routes; a failed check is a `Problem` that says what is wrong with the token.
"""

from __future__ import annotations

import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from configs.settings import Settings
from market.errors import ConfigError
from serve_app.problems import forbidden, unauthorized

AUDIENCE = "lstmc-api"
ISSUER = "lstmc"
ALGORITHM = "HS256"
LEEWAY_SECONDS = 60
MINIMUM_SECRET_BYTES = 32  # HS256, RFC 7518 section 3.2
SCOPES = ("read", "signals")
MAX_DAYS = 3650
_REQUIRED = ["exp", "iat", "aud", "iss", "sub", "scope", "jti"]


@dataclass(frozen=True)
class Caller:
    """A verified token: its subject, scopes and expiry (epoch seconds)."""

    subject: str
    scopes: frozenset[str]
    expires_at: float

    def require(self, scope: str) -> Caller:
        if scope not in self.scopes:
            raise forbidden(scope)
        return self


def issue_token(
    settings: Settings,
    subject: str = "trader",
    days: float = 30,
    scopes: Sequence[str] = SCOPES,
    *,
    now: float | None = None,
) -> str:
    """A signed token for `subject`, valid for `days`. ConfigError on an unknown scope, an empty subject or a weak secret."""
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise ConfigError(f"Unknown scope {', '.join(unknown) or '(none)'}.", hint=f"Scopes: {', '.join(SCOPES)}.")
    if not subject.strip() or not 0 < days <= MAX_DAYS:  # not a number is refused, too
        raise ConfigError(
            f"A token needs a subject and a positive number of days, at most {MAX_DAYS}.",
            hint="Example: --subject desk-7 --days 30.",
        )
    issued = int(time.time() if now is None else now)
    claims = {
        "sub": subject,
        "aud": AUDIENCE,
        "iss": ISSUER,
        "iat": issued,
        "exp": issued + int(days * 86400),
        "scope": " ".join(scopes),
        "jti": uuid.uuid4().hex,
    }
    secret = _long_enough(settings.secret("jwt_secret").get_secret_value())
    return jwt.encode(claims, secret, algorithm=ALGORITHM)


def _long_enough(secret: str) -> str:
    if len(secret.encode()) < MINIMUM_SECRET_BYTES:
        raise ConfigError(
            f"The secret jwt_secret is shorter than {MINIMUM_SECRET_BYTES} bytes.",
            hint="Remove it and run `lstmc up`; it makes a good one.",
        )
    return secret


class TokenVerifier:
    """Checks tokens against one secret. Remembers up to `cache_size` verified ones, each until it expires."""

    def __init__(self, secret: str, *, now: Callable[[], float] = time.time, cache_size: int = 1024) -> None:
        self._secret = _long_enough(secret)
        self._now = now
        self._cache_size = cache_size
        self._verified: OrderedDict[str, Caller] = OrderedDict()
        self._jwt = jwt.PyJWT(options={"enforce_minimum_key_length": True})

    def from_header(self, authorization: str | None) -> Caller:
        """The value of the Authorization header -> Caller; Problem 401."""
        if not authorization:
            raise unauthorized("No token was sent.", error="")
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise unauthorized("The Authorization header is not a bearer token.", error="invalid_request")
        return self.verify(token.strip())

    def verify(self, token: str) -> Caller:
        """A token -> Caller; Problem 401 names what is wrong with it."""
        caller = self._verified.get(token)
        if caller is None:
            caller = self._decode(token)
        if caller.expires_at + LEEWAY_SECONDS <= self._now():
            self._verified.pop(token, None)
            raise unauthorized("The token has expired.")
        self._remember(token, caller)
        return caller

    def _remember(self, token: str, caller: Caller) -> None:
        self._verified[token] = caller
        self._verified.move_to_end(token)
        while len(self._verified) > self._cache_size:
            self._verified.popitem(last=False)

    def _decode(self, token: str) -> Caller:
        try:
            claims: dict[str, Any] = self._jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                leeway=LEEWAY_SECONDS,
                options={"require": _REQUIRED},
            )
        except jwt.InvalidTokenError as error:
            raise unauthorized(_why(error)) from None
        return _caller(claims)


def _caller(claims: dict[str, Any]) -> Caller:
    subject, scope = claims["sub"], claims["scope"]
    if not isinstance(scope, str) or not subject:
        raise unauthorized("The token names no subject or scope.")
    return Caller(subject, frozenset(scope.split()), float(claims["exp"]))


def _why(error: jwt.InvalidTokenError) -> str:
    if isinstance(error, jwt.ExpiredSignatureError):
        return "The token has expired."
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"The token lacks the claim {error.claim}."
    if isinstance(error, jwt.InvalidAudienceError | jwt.InvalidIssuerError):
        return "The token was made for another service."
    if isinstance(error, jwt.ImmatureSignatureError):
        return "The token is not valid yet; compare the clocks."
    if isinstance(error, jwt.InvalidSignatureError | jwt.InvalidAlgorithmError):
        return "The token was not signed by this installation."
    return "The token is malformed."
