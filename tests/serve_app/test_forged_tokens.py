"""No forged token is accepted, whatever it tries; each is told what to do, and none is a fault of the server."""

from __future__ import annotations

import string
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serve_app.auth import TokenVerifier, Trust
from serve_app.problems import Problem
from tests.serve_app.forged_tokens import Forger, hs, written
from tests.serve_app.made_board import make_test_settings

PROFILES = ("local", "production")


@pytest.fixture(params=PROFILES)
def attacked(request: pytest.FixtureRequest, make_desk: Any, tmp_path: Path) -> tuple[Any, Forger, dict[str, bytes]]:
    """A desk that signs with EdDSA, somebody who wants in, and what they send. What is revoked is so from the start."""
    profile = {"profile": request.param, "symbols": ("EURUSD",), "market": "simulated"}
    forger = Forger(make_test_settings(tmp_path / "home", **profile))
    forgeries = forger.all()
    return make_desk(**profile).fill(), forger, forgeries


def ask(desk: Any, authorization: bytes) -> httpx.Response:
    return desk.client.request("GET", "/api/v1/skill", {"Authorization": authorization})


def test_no_forged_token_is_accepted(attacked: tuple[Any, Forger, dict[str, bytes]]) -> None:
    desk, forger, forgeries = attacked
    assert len(forgeries) > 150
    assert ask(desk, b"Bearer " + forger.genuine().encode()).status_code == 200, "the writer itself is good"
    for name, authorization in forgeries.items():
        answer = ask(desk, authorization)
        assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json"), name
        assert "lstmc token issue" in answer.json()["hint"], name
        assert answer.headers["www-authenticate"].startswith('Bearer realm="lstmc"'), name
        assert answer.headers["www-authenticate"].isprintable(), name


def test_forgeries_leave_nothing_behind(attacked: tuple[Any, Forger, dict[str, bytes]]) -> None:
    """A forgery that was refused once is refused again, and the good token before and after it is not."""
    _, forger, forgeries = attacked
    verifier = TokenVerifier(Trust(forger.settings))
    good = f"Bearer {forger.genuine()}"
    for name, authorization in forgeries.items():
        assert verifier.from_header(good).subject == "t"
        for _ in range(2):
            assert verifier.recall(authorization.decode("latin-1")) is None, name
            assert not verifier.admits(authorization.decode("latin-1")), name


@pytest.mark.parametrize(("profile", "status"), [("local", 200), ("production", 401)])
def test_the_local_secret_counts_in_the_local_profile_only(
    make_desk: Any, tmp_path: Path, profile: str, status: int
) -> None:
    given = {"profile": profile, "symbols": ("EURUSD",), "market": "simulated"}
    forger = Forger(make_test_settings(tmp_path / "home", **given))
    desk = make_desk(**given).fill()
    token = written({"alg": "HS256", "typ": "JWT"}, forger.claims(), hs(forger.secret))
    assert ask(desk, b"Bearer " + token.encode()).status_code == status


def test_a_token_in_the_address_opens_nothing(attacked: tuple[Any, Forger, dict[str, bytes]]) -> None:
    desk, forger, _ = attacked
    token = forger.genuine()
    for name in ("token", "access_token", "authorization", "bearer", "jwt"):
        assert desk.client.get(f"/api/v1/skill?{name}={token}").status_code == 401
    for header in ("X-Authorization", "Cookie", "Proxy-Authorization", "X-Forwarded-Authorization"):
        assert desk.client.get("/api/v1/skill", headers={header: f"Bearer {token}"}).status_code == 401


def test_two_authorization_headers_are_none(attacked: tuple[Any, Forger, dict[str, bytes]]) -> None:
    desk, forger, _ = attacked
    good = f"Bearer {forger.genuine()}"
    assert desk.client.get("/api/v1/skill", headers={"Authorization": good}).status_code == 200
    for second in (good, "Bearer x"):
        both: Any = [("Authorization", good), ("Authorization", second)]
        answer = desk.client.request("GET", "/api/v1/skill", both)
        assert (answer.status_code, "more than once" in answer.json()["detail"]) == (401, True)


@pytest.fixture(scope="module")
def forger(tmp_path_factory: pytest.TempPathFactory) -> Forger:
    return Forger(make_test_settings(tmp_path_factory.mktemp("fuzz")))


@pytest.fixture(scope="module")
def verifier(forger: Forger) -> TokenVerifier:
    return TokenVerifier(Trust(forger.settings))


ANY_HEADER = st.one_of(
    st.binary(max_size=300).map(lambda b: b.decode("latin-1")),
    st.text(max_size=200),
    st.text(string.ascii_letters + string.digits + "._-= ", max_size=300).map("Bearer {}".format),
    st.lists(st.binary(max_size=60), min_size=1, max_size=6).map(
        lambda parts: "Bearer " + ".".join(written(p, p, lambda _: b"").split(".")[0] for p in parts)
    ),
)


@given(ANY_HEADER)
@example("Bearer eyJhbGciOiJub25lIn0.e30.")
@settings(max_examples=400, deadline=None)
def test_whatever_stands_in_the_header_is_refused_politely(verifier: TokenVerifier, header: str) -> None:
    with pytest.raises(Problem) as refused:
        verifier.from_header(header)
    assert refused.value.status == 401
    refused.value.headers["WWW-Authenticate"].encode("latin-1")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(name=st.sampled_from(["sub", "aud", "iss", "iat", "exp", "nbf", "scope", "jti"]), value=JSON)
@settings(max_examples=300, deadline=None)
def test_a_signed_claim_of_any_kind_is_a_caller_or_a_401(
    forger: Forger, verifier: TokenVerifier, name: str, value: Any
) -> None:
    token = written(forger.header(), forger.claims(**{name: value}), forger.key.private.sign)
    status, caller = 200, None
    try:
        caller = verifier.verify(token)
    except Problem as problem:
        status = problem.status
    assert (status == 401) == (caller is None)
    if caller is not None:
        assert isinstance(caller.subject, str)
        assert caller.scopes <= {"read", "signals", "admin"}
        assert caller.expires_at > time.time()


@given(place=st.floats(0, 0.9999), letter=st.sampled_from(string.ascii_letters + string.digits + "-_.=+/ \n\0é"))
@settings(max_examples=400, deadline=None)
def test_one_other_letter_anywhere_is_refused(
    forger: Forger, verifier: TokenVerifier, place: float, letter: str
) -> None:
    token = forger.genuine()
    index = int(place * len(token))
    changed = token[:index] + letter + token[index + 1 :]
    if changed.strip(" ") != token:
        with pytest.raises(Problem):
            verifier.verify(changed)
