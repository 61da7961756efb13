"""What a request may bring, who may read across origins, what stands on every answer, and what no log may hold."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import structlog

from serve_app.headers import CONTENT_SECURITY_POLICY, SECURITY_HEADERS, Envelope, without_tokens
from serve_app.problems import Problem
from serve_app.request_size import MAX_BODY, MAX_URL, check_size

DESK, EVIL = "https://desk.example", "https://evil.example"


# Sizes


def sized(path: str = "/", query: str = "", **headers: str) -> dict[str, Any]:
    lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "path": path, "raw_path": path.encode(), "query_string": query.encode(), "headers": lines}


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({}, None),
        ({"content_length": "0"}, None),
        ({"content_length": str(MAX_BODY)}, None),
        ({"content_length": str(MAX_BODY + 1)}, 413),
        ({"content_length": "9" * 5000}, 413),
        ({"content_length": "-1"}, 413),
        ({"content_length": "1e3"}, 413),
        ({"transfer_encoding": "chunked"}, 411),
        ({"path": "/" + "a" * (MAX_URL - 1)}, None),
        ({"path": "/" + "a" * MAX_URL}, 414),
        ({"query": "a" * MAX_URL}, 414),
    ],
)
def test_a_request_brings_little(given: dict[str, str], status: int | None) -> None:
    if status is None:
        check_size(sized(**given))
        return
    with pytest.raises(Problem) as refused:
        check_size(sized(**given))
    assert refused.value.status == status
    assert refused.value.hint


@pytest.mark.parametrize("path", ["/api/v1/skill", "/healthz", "/", "/nothing"])
def test_a_large_body_is_a_413_before_anything_else(desk: Any, path: str) -> None:
    for method in ("GET", "POST", "PUT"):
        answer = desk.client.request(method, path, {"Content-Length": "1025"})
        assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")
        assert answer.headers["x-request-id"] == answer.json()["request_id"]


def test_a_long_address_is_a_414(desk: Any) -> None:
    answer = desk.get("/api/v1/predictions/" + "A" * 3000)
    assert (answer.status_code, answer.json()["type"]) == (414, "urn:lstmc:problem:address-too-long")
    assert desk.get("/api/v1/skill?x=" + "A" * 3000).status_code == 414


@pytest.mark.parametrize(
    ("path", "most"), [("/api/v1/bars/EURUSD", 5000), ("/api/v1/predictions/EURUSD/history", 1000)]
)
def test_a_page_has_bounds(desk: Any, path: str, most: int) -> None:
    assert desk.get(f"{path}?limit={most}").status_code == 200
    for limit in (0, -1, most + 1, 10**30, "NaN", "1e3", "0x10", "", "%00"):
        assert desk.get(f"{path}?limit={limit}").status_code == 422, limit


# Other origins


@pytest.fixture
def shared(make_desk: Any) -> Any:
    return make_desk(cors_origins=(DESK,)).fill()


def cors_headers(answer: Any) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


def test_a_named_origin_may_read_without_cookies(shared: Any) -> None:
    answer = shared.get("/api/v1/skill", Origin=DESK)
    assert answer.headers["access-control-allow-origin"] == DESK
    assert "RateLimit-Remaining" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in answer.headers
    assert "Origin" in answer.headers["vary"]
    refused = shared.client.get("/api/v1/skill", headers={"Origin": DESK})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, DESK)


@pytest.mark.parametrize(
    "origin",
    [EVIL, "null", "*", "", DESK + ".evil.example", "http://desk.example", DESK + ":443", DESK.upper(), "file://"],
)
def test_a_stranger_sees_no_cors_header(shared: Any, origin: str) -> None:
    for answer in (
        shared.get("/api/v1/skill", Origin=origin),
        shared.client.get("/healthz", headers={"Origin": origin}),
        preflight(shared, origin),
    ):
        assert cors_headers(answer) == {}
        assert "Origin" in answer.headers["vary"]


def preflight(desk: Any, origin: str, method: str = "GET", header: str = "authorization") -> Any:
    asks = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": header}
    return desk.client.request("OPTIONS", "/api/v1/skill", {"Origin": origin} | asks)


def test_a_preflight_is_answered_without_a_token_and_kept(shared: Any) -> None:
    answer = preflight(shared, DESK)
    assert answer.status_code == 200
    assert cors_headers(answer)["access-control-max-age"] == "600"
    assert cors_headers(answer)["access-control-allow-methods"] == "GET"
    assert preflight(shared, DESK, method="DELETE").status_code == 400
    assert preflight(shared, DESK, header="x-anything").status_code == 400
    assert preflight(shared, EVIL).status_code == 204  # and without a CORS header, so a browser stops there


def test_without_named_origins_there_is_no_cors_at_all(desk: Any) -> None:
    for answer in (desk.get("/api/v1/skill", Origin=DESK), preflight(desk, DESK)):
        assert cors_headers(answer) == {}


# Headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/healthz", 200),
        ("GET", "/.well-known/jwks.json", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/static/page.js", 200),
        ("GET", "/api/v1/skill", 401),
        ("GET", "/nothing", 404),
        ("POST", "/", 405),
        ("GET", "/" + "a" * 3000, 414),
    ],
)
def test_security_headers_stand_on_every_answer(desk: Any, method: str, path: str, status: int) -> None:
    answer = desk.client.request(method, path, {})
    assert answer.status_code == status
    assert {name: answer.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS


def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere() -> None:
    rules = dict(rule.split(" ", 1) for rule in CONTENT_SECURITY_POLICY.split("; "))
    assert (rules["default-src"], rules["script-src"], rules["style-src"]) == ("'none'", "'self'", "'self'")
    assert (rules["frame-ancestors"], rules["base-uri"], rules["form-action"]) == ("'none'",) * 3
    for word in ("unsafe", "http:", "https:", "*", "blob:"):
        assert word not in CONTENT_SECURITY_POLICY


# Logs


def test_a_fault_writes_no_token_into_the_log(
    desk: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the renderer that shows local variables, among them the request's headers, and a fault that names a token."""
    structlog.reset_defaults()
    bearer = desk.bearer()
    token = bearer["Authorization"].removeprefix("Bearer ")

    def fail(*_: Any) -> None:
        authorization = bearer["Authorization"]
        raise RuntimeError(f"cannot use {authorization!r} or {{'x': '{token}'}}")

    monkeypatch.setattr(desk.board, "forecast", fail)
    answer = desk.client.get("/api/v1/predictions/EURUSD", headers=bearer)
    log = capsys.readouterr()
    assert answer.status_code == 500
    assert "RuntimeError: cannot use" in log.out
    assert answer.json()["request_id"] in log.out
    for part in token.split("."):
        assert part not in log.out + log.err + answer.text


def test_a_token_in_the_path_of_a_fault_is_left_out(desk: Any, capsys: pytest.CaptureFixture[str]) -> None:
    token = desk.bearer()["Authorization"].removeprefix("Bearer ")

    async def app(*_: Any) -> None:
        raise RuntimeError("broken")

    type(desk.client)(Envelope(app)).get(f"/api/v1/{token}")
    out = capsys.readouterr().out
    assert "/api/v1/[token]" in out
    assert token.split(".")[2] not in out


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Bearer abc", "[token]"),
        ("authorization: bearer   a.b.c, more", "authorization: [token] more"),
        ("(b'authorization', b'Bearer eyJhb.eyJz.Sig')", "(b'authorization', b'[token]')"),
        ("eyJhbGciOiJub25lIn0.e30.", "[token]"),
        ("eyJhbGciOiJub25lIn0.e30", "[token]"),
        ('File "serve_app/api.py", line 7, in starlette.middleware.cors', None),
    ],
)
def test_what_looks_like_a_token_is_left_out(text: str, left: str | None) -> None:
    assert without_tokens(text) == (text if left is None else left)


def test_refused_tokens_stay_out_of_the_log_too(
    desk: Any, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        for token in (desk.bearer()["Authorization"][7:] + "x", "eyJhbGciOiJub25lIn0.e30."):
            desk.client.get("/api/v1/skill", headers={"Authorization": f"Bearer {token}"})
    said = capsys.readouterr()
    assert "eyJ" not in said.out + said.err
    assert "eyJ" not in "".join(str(record.__dict__) for record in caplog.records if record.name.startswith("lstmc"))
