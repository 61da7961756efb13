"""Only tokens this installation made are believed, only until they expire, only for their scopes."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from configs.settings import Settings
from market.errors import ConfigError
from serve_app.auth import LEEWAY_SECONDS, TokenVerifier, Trust, issue_token
from serve_app.problems import Problem
from tests.serve_app.made_board import make_test_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_test_settings(tmp_path)


def secret_of(settings: Settings) -> str:
    return settings.secret("jwt_secret").get_secret_value()


def forged(
    settings: Settings, *, key: str | None = None, algorithm: str = "HS256", drop: str = "", **claims: Any
) -> str:
    now = int(time.time())
    whole = {
        "sub": "t",
        "aud": "lstmc-api",
        "iss": "lstmc",
        "iat": now,
        "exp": now + 600,
        "scope": "read",
        "jti": "1",
    } | claims
    whole.pop(drop, None)
    return jwt.encode(whole, key or secret_of(settings), algorithm=algorithm)


def unsigned(settings: Settings) -> str:
    claims = forged(settings).split(".")[1]
    header = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "JWT"}).encode()).rstrip(b"=").decode()
    return f"{header}.{claims}."


def test_an_issued_token_is_believed(settings: Settings) -> None:
    caller = TokenVerifier(Trust(settings)).verify(issue_token(settings, "desk-7", days=1))
    assert (caller.subject, caller.scopes) == ("desk-7", {"read", "signals"})


@pytest.mark.parametrize(
    ("forge", "why"),
    [
        (lambda s: unsigned(s), "not signed by this installation"),
        (lambda s: forged(s, key="k" * 64), "not signed by this installation"),
        (lambda s: forged(s, algorithm="HS512"), "not signed by this installation"),
        (lambda s: forged(s, exp=int(time.time()) - 61), "expired"),
        (lambda s: forged(s, aud="another"), "another service"),
        (lambda s: forged(s, iss="another"), "another service"),
        (lambda s: forged(s, iat=int(time.time()) + 600), "not valid yet"),
        (lambda s: forged(s, sub=7), "malformed"),
        (lambda s: forged(s, sub=""), "no subject"),
        (lambda s: forged(s, scope=["read"]), "no subject or scope"),
        (lambda s: "a.b.c", "malformed"),
        (lambda s: forged(s)[:-4] + "AAAA", "not signed by this installation"),
        *[
            (lambda s, c=c: forged(s, drop=c), f"lacks the claim {c}")
            for c in ("exp", "iat", "aud", "iss", "sub", "scope", "jti")
        ],
    ],
)
def test_a_forged_token_is_refused_with_the_reason(settings: Settings, forge: Any, why: str) -> None:
    with pytest.raises(Problem) as refused:
        TokenVerifier(Trust(settings)).verify(forge(settings))
    assert refused.value.status == 401
    assert why in refused.value.detail


def test_a_short_secret_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSTMC_SECRET_JWT_SECRET", "k" * 31)
    with pytest.raises(ConfigError, match="32 bytes"):
        Trust(settings)
    with pytest.raises(ConfigError, match="32 bytes"):
        issue_token(settings)


def test_the_cache_honours_expiry(settings: Settings) -> None:
    now = time.time()
    clock = [now]
    verifier = TokenVerifier(Trust(settings), now=lambda: clock[0])
    token = forged(settings, exp=int(now) + 30)
    verifier.verify(token)
    clock[0] = int(now) + 30 + LEEWAY_SECONDS - 1
    verifier.verify(token)
    clock[0] += 1
    with pytest.raises(Problem, match="expired"):
        verifier.verify(token)


def test_the_cache_is_bounded(settings: Settings) -> None:
    verifier = TokenVerifier(Trust(settings), cache_size=3)
    for n in range(10):
        verifier.verify(issue_token(settings, f"s{n}"))
    assert len(verifier._verified) == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scopes": ("trade",)}, "trade"),
        ({"scopes": ()}, "none"),
        ({"subject": " "}, "subject"),
        ({"days": 0}, "days"),
        ({"days": float("nan")}, "days"),
        ({"days": float("inf")}, "days"),
    ],
)
def test_a_senseless_token_is_not_issued(settings: Settings, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        issue_token(settings, **given)


def test_no_secret_says_how_to_make_one(tmp_path: Path) -> None:
    bare = Settings(home=tmp_path / "bare")
    with pytest.raises(ConfigError, match="lstmc up"):
        issue_token(bare)


PROTECTED = [
    "predictions/EURUSD",
    "predictions/EURUSD/history",
    "forex/all",
    "signals",
    "bars/EURUSD",
    "skill",
    "models/EURUSD",
    "stream",
    "status",
]


@pytest.mark.parametrize("path", PROTECTED)
@pytest.mark.parametrize("header", [None, "Basic dTpw", "Bearer", "Bearer not-a-token"])
def test_every_route_wants_a_token(desk: Any, path: str, header: str | None) -> None:
    answer = desk.client.get(f"/api/v1/{path}", headers={"Authorization": header} if header else {})
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
    assert answer.headers["www-authenticate"].startswith('Bearer realm="lstmc"')
    assert "lstmc token issue" in answer.json()["hint"]


def test_a_token_in_the_query_is_not_a_token(desk: Any) -> None:
    token = desk.bearer()["Authorization"].removeprefix("Bearer ")
    for name in ("token", "access_token", "authorization"):
        assert desk.client.get(f"/api/v1/skill?{name}={token}").status_code == 401


def test_signals_need_their_scope(desk: Any) -> None:
    reader = desk.bearer(scopes=("read",))
    answer = desk.client.get("/api/v1/signals", headers=reader)
    assert answer.status_code == 403
    assert 'error="insufficient_scope", scope="signals"' in answer.headers["www-authenticate"]
    assert desk.client.get("/api/v1/skill", headers=reader).status_code == 200
    assert desk.client.get("/api/v1/skill", headers=desk.bearer(scopes=("signals",))).status_code == 403


def test_health_and_the_page_need_none(desk: Any) -> None:
    for path in ("/healthz", "/readyz", "/", "/openapi.json"):
        assert desk.client.get(path).status_code == 200, path
