"""Who is asking: tokens, made by `issue_token`, checked by `TokenVerifier`. Bearer header only, never a query.

Signed with Ed25519; in the local profile, until it has such a key, with HS256 and its generated secret.
Knows nothing about routes; a failed check is a `Problem` that says what is wrong with the token.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import jwt
import orjson
import structlog

from configs.secret_files import stamp
from configs.settings import Settings
from market.errors import ConfigError
from serve_app import token_keys
from serve_app.problems import Problem, forbidden, unauthorized, unavailable
from serve_app.revocations import read_revocations, revocations_path

AUDIENCE = "lstmc-api"
ISSUER = "lstmc"
LOCAL_ALGORITHM = "HS256"
LEEWAY_SECONDS = 60
MINIMUM_SECRET_BYTES = 32  # HS256, RFC 7518 section 3.2
SCOPES = ("read", "signals", "admin")
USUAL_SCOPES = ("read", "signals")
MAX_DAYS = 3650
MAX_TOKEN_BYTES = 4096
LOOK_SECONDS = 1.0  # how soon a rotated, retired or revoked one is noticed
SOONER_SECONDS = 0.1  # an unknown kid asks for a look at once, yet no more often than this
_LONGEST_NAME = 128  # letters of a subject or a jti
_REQUIRED = ("exp", "iat", "aud", "iss", "sub", "scope", "jti")
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_HEADER_MEMBERS = {
    "alg",
    "typ",
    "kid",
}  # no jku, jwk, x5u, x5c, crit, b64: a token brings no key and no rule of its own
_NOT_OURS = "The token was not signed by this installation."
_MALFORMED = "The token is malformed."
_log = structlog.get_logger("lstmc.api")


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


# Issuing


@dataclass(frozen=True)
class IssuedToken:
    """`token_id`: what revokes it (its `jti`). `expires_at`: epoch seconds."""

    token: str
    token_id: str
    expires_at: int


def issue_token(
    settings: Settings,
    subject: str = "trader",
    days: float = 30,
    scopes: Sequence[str] = USUAL_SCOPES,
    *,
    now: float | None = None,
) -> str:
    """A signed token for `subject`, valid for `days`. ConfigError as `make_token`."""
    return make_token(settings, subject, days, scopes, now=now).token


def make_token(
    settings: Settings,
    subject: str = "trader",
    days: float = 30,
    scopes: Sequence[str] = USUAL_SCOPES,
    *,
    now: float | None = None,
) -> IssuedToken:
    """ConfigError on an unknown scope, an empty or endless subject, a weak secret, or when there is no key to sign with."""
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise ConfigError(f"Unknown scope {', '.join(unknown) or '(none)'}.", hint=f"Scopes: {', '.join(SCOPES)}.")
    if not subject.strip() or len(subject) > _LONGEST_NAME or not 0 < days <= MAX_DAYS:  # not a number is refused, too
        raise ConfigError(
            f"A token needs a subject of at most {_LONGEST_NAME} letters and a positive number of days, at most {MAX_DAYS}.",
            hint="Example: --subject desk-7 --days 30.",
        )
    issued = int(time.time() if now is None else now)
    claims = {
        "sub": subject,
        "aud": AUDIENCE,
        "iss": ISSUER,
        "iat": issued,
        "exp": issued + max(1, int(days * 86400)),
        "scope": " ".join(scopes),
        "jti": uuid.uuid4().hex,
    }
    return IssuedToken(_sign(settings, claims), str(claims["jti"]), int(str(claims["exp"])))


def _sign(settings: Settings, claims: dict[str, Any]) -> str:
    key = token_keys.active_key(settings.home_path)
    if key is not None:
        return jwt.encode(claims, key.private, algorithm=token_keys.ALGORITHM, headers={"kid": key.kid})
    if settings.profile != "local":
        raise token_keys.no_key()
    return jwt.encode(claims, _local_secret(settings), algorithm=LOCAL_ALGORITHM)


def _local_secret(settings: Settings) -> str:
    secret = settings.secret("jwt_secret").get_secret_value()
    if len(secret.encode()) < MINIMUM_SECRET_BYTES:
        raise ConfigError(
            f"The secret jwt_secret is shorter than {MINIMUM_SECRET_BYTES} bytes.",
            hint="Remove it and run `lstmc up`; it makes a good one.",
        )
    return secret


# What a token may rest on


@dataclass(frozen=True)
class VerifyingKey:
    """A key and the one algorithm it is used with, whatever a token says."""

    algorithm: str
    key: Any


class Trust:
    """Keys by kid (None: the local secret, whose tokens name none) and revoked ids, as the files in `secrets` say.

    ConfigError at first when nothing could ever be verified; later a key that is gone is trusted no more.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self._home = settings, settings.home_path
        self._local = settings.profile == "local"
        self.revoked: frozenset[str] = frozenset()
        self.broken = False  # the revocations cannot be read, so that no token can be trusted
        if self._local:
            _local_secret(settings)
        elif not token_keys.read_keys(self._home):
            raise token_keys.no_key()
        self._stamps = self._stamps_now()
        self._read()

    def refresh(self) -> bool:
        """Look at the files and read them again when they changed; whether they did. One `stat` per file."""
        now = self._stamps_now()
        if now == self._stamps:
            return False
        self._stamps = now
        self._read()
        return True

    def _stamps_now(self) -> tuple[Any, ...]:
        secret = stamp(self._home / "secrets" / "jwt_secret") if self._local else None
        return token_keys.key_stamps(self._home), stamp(revocations_path(self._home)), secret

    def _read(self) -> None:
        signing = token_keys.read_keys(self._home)
        self.keys: dict[str | None, VerifyingKey] = {
            key.kid: VerifyingKey(token_keys.ALGORITHM, key.public) for key in signing
        }
        self.jwks = orjson.dumps({"keys": [key.jwk() for key in reversed(signing)]})
        if self._local:
            try:
                self.keys[None] = VerifyingKey(LOCAL_ALGORITHM, _local_secret(self._settings))
            except ConfigError as error:
                _log.error("tokens of the local secret are refused", reason=error.message)
        try:
            self.revoked, self.broken = frozenset(entry.jti for entry in read_revocations(self._home)), False
        except (ConfigError, OSError) as error:
            self.broken = True
            _log.error("all tokens are refused", reason=str(error))


# Checking


class TokenVerifier:
    """Checks tokens against `trust`. Remembers up to `cache_size` verified ones, until they expire or `trust` changes.

    `now`: wall seconds since 1970. `generation` grows with every change of what is trusted.
    """

    def __init__(self, trust: Trust, *, now: Callable[[], float] = time.time, cache_size: int = 1024) -> None:
        self.trust = trust
        self.generation = 0
        self._now = now
        self._cache_size = cache_size
        self._verified: OrderedDict[str, Caller] = OrderedDict()
        self._looked_at = now()
        self._signatures = jwt.PyJWS(options={"enforce_minimum_key_length": True})

    def look(self, every: float = LOOK_SECONDS) -> None:
        """See what was rotated, retired or revoked, unless that was done less than `every` seconds ago."""
        now = self._now()
        if not 0 <= now - self._looked_at < every:  # a clock that was set back is no reason to wait
            self._look(now)

    def from_header(self, authorization: str | None) -> Caller:
        """The value of the Authorization header -> Caller; Problem 401, or 503 while the revocations cannot be read."""
        return self.recall(authorization) or self._verify(_bearer(authorization))

    def recall(self, authorization: str | None) -> Caller | None:
        """The Caller if this very token was verified before and is still good: no cryptography, no parsing."""
        now = self._now()
        if not 0 <= now - self._looked_at < LOOK_SECONDS:  # as `look`; a call costs a tenth of the whole
            self._look(now)
        token = _token_of(authorization)
        caller = self._verified.get(token)
        if caller is None:
            return None
        if caller.expires_at + LEEWAY_SECONDS <= now:
            del self._verified[token]
            return None
        self._verified.move_to_end(token)
        return caller

    def verify(self, token: str) -> Caller:
        """A token -> Caller; Problems as `from_header`."""
        return self.from_header(f"Bearer {token}")

    def admits(self, authorization: str | None) -> bool:
        """Whether the token that was good a while ago still is."""
        try:
            self.from_header(authorization)
        except Problem:
            return False
        return True

    def _look(self, now: float) -> None:
        self._looked_at = now
        if self.trust.refresh():
            self._verified.clear()
            self.generation += 1

    def _verify(self, token: str) -> Caller:
        if self.trust.broken:
            raise unavailable(
                "revocations-unreadable",
                "No token can be checked",
                "The list of revoked tokens cannot be read, so nobody is let in.",
                hint="Whoever runs this: restore secrets/revoked_tokens.json; the log says what is wrong.",
            )
        caller = self._decode(token)
        self._verified[token] = caller
        while len(self._verified) > self._cache_size:
            self._verified.popitem(last=False)
        return caller

    def _decode(self, token: str) -> Caller:
        header = _header(token)
        key = self._key(header.get("kid"))
        if header.get("alg") != key.algorithm:
            raise unauthorized(_NOT_OURS)
        try:
            payload = self._signatures.decode(token, key.key, algorithms=[key.algorithm])
        except jwt.InvalidSignatureError:
            raise unauthorized(_NOT_OURS) from None
        except jwt.InvalidTokenError:
            raise unauthorized(_MALFORMED) from None
        claims = _strict_json(payload)
        caller = _caller(claims, self._now())
        if claims["jti"] in self.trust.revoked:
            raise unauthorized("The token has been revoked.", reason_code="token_revoked")
        return caller

    def _key(self, kid: Any) -> VerifyingKey:
        if kid is not None and not isinstance(kid, str):
            raise unauthorized(_MALFORMED)
        if kid not in self.trust.keys:
            self.look(SOONER_SECONDS)
        found = self.trust.keys.get(kid)
        if found is None:
            raise unauthorized(f"{_NOT_OURS} Its key is not known here, or no longer.")
        return found


def _token_of(authorization: str | None) -> str:
    """What follows the scheme, "" when it is no bearer's. RFC 9110: the scheme in any case, then spaces."""
    if not authorization:
        return ""
    if authorization[:7] == "Bearer ":
        return authorization[7:].strip(" ")
    scheme, _, token = authorization.partition(" ")
    return token.strip(" ") if scheme.lower() == "bearer" else ""


def _bearer(authorization: str | None) -> str:
    if not authorization:
        raise unauthorized("No token was sent.", error="")
    token = _token_of(authorization)
    if not token:
        raise unauthorized("The Authorization header is not a bearer token.", error="invalid_request")
    return token


def _header(token: str) -> dict[str, Any]:
    """The unverified header. Its size and form are checked before anything in it is read."""
    if len(token) > MAX_TOKEN_BYTES:
        raise unauthorized(f"The token is longer than {MAX_TOKEN_BYTES} bytes.")
    if not _COMPACT.fullmatch(token):
        raise unauthorized(_MALFORMED)
    encoded = token.partition(".")[0]
    try:
        content = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    except ValueError:
        raise unauthorized(_MALFORMED) from None
    header = _strict_json(content)
    if header.get("typ", "JWT") != "JWT":
        raise unauthorized("The token is of another kind.")
    if not header.keys() <= _HEADER_MEMBERS:
        raise unauthorized("The token's header may hold alg, typ and kid only.")
    return header


def _strict_json(content: bytes) -> dict[str, Any]:
    """An object in which no name stands twice and every number is one; Problem 401."""
    try:
        found = json.loads(content.decode(), object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise unauthorized(_MALFORMED) from None
    if not isinstance(found, dict):
        raise unauthorized(_MALFORMED)
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _caller(claims: dict[str, Any], now: float) -> Caller:
    """The claims of a token whose signature is good -> Caller; Problem 401 names what is wrong. `now`: epoch seconds."""
    for name in _REQUIRED:
        if claims.get(name) is None:
            raise unauthorized(f"The token lacks the claim {name}.")
    begins = [claims["iat"], claims.get("nbf", claims["iat"])]
    expires = claims["exp"]
    if not all(type(moment) is int for moment in (expires, *begins)):  # whole seconds; True is none
        raise unauthorized(f"{_MALFORMED} Its times are whole seconds.")
    if claims["aud"] != AUDIENCE or claims["iss"] != ISSUER:
        raise unauthorized("The token was made for another service.")
    if max(begins) > now + LEEWAY_SECONDS:
        raise unauthorized("The token is not valid yet; compare the clocks.")
    if expires + LEEWAY_SECONDS <= now:
        raise unauthorized("The token has expired.", reason_code="token_expired")
    if min(begins) < 0 or not 0 < expires - claims["iat"] <= MAX_DAYS * 86400:
        raise unauthorized(f"{_MALFORMED} It lives longer than any that is issued, or ends before it begins.")
    if not all(isinstance(claims[name], str) for name in ("sub", "scope", "jti")):
        raise unauthorized(f"{_MALFORMED} It names no subject or scope as text.")
    subject, scopes = claims["sub"], frozenset(claims["scope"].split(" ")) & set(SCOPES)
    if not subject.strip() or not scopes or not claims["jti"]:
        raise unauthorized("The token names no subject or scope.")
    if max(len(subject), len(claims["jti"])) > _LONGEST_NAME:
        raise unauthorized(_MALFORMED)
    return Caller(subject, scopes, float(expires))
