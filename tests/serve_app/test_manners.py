"""How answers are put on the wire: HEAD and OPTIONS, tags, forms, compression, what every problem carries."""

from __future__ import annotations

import gzip
import json
from typing import Any

import httpx
import pyarrow as pa
import pytest

from serve_app.reply import COMPRESSED_FROM, compressed, is_known
from serve_app.representation import Representation

READS = (
    "/api/v1/predictions/EURUSD",
    "/api/v1/predictions/EURUSD/history",
    "/api/v1/forex/all",
    "/api/v1/signals",
    "/api/v1/bars/EURUSD",
    "/api/v1/skill",
    "/api/v1/models/EURUSD",
    "/openapi.json",
    "/api/v1/openapi.json",
    "/.well-known/jwks.json",
    "/docs",
)
ARROW, CSV = Representation.ARROW.value, Representation.CSV.value


def ask(desk: Any, method: str, path: str, **headers: str) -> httpx.Response:
    answer: httpx.Response = desk.client.request(method, path, desk.bearer() | headers)
    return answer


@pytest.fixture
def desk(make_desk: Any) -> Any:
    return make_desk(requests_per_minute=600).fill()


def test_head_says_what_get_would_say(desk: Any) -> None:
    own = {"x-request-id", "ratelimit-remaining", "ratelimit-reset"}
    for path in (*READS, "/api/v1/status", "/healthz", "/readyz", "/", "/static/page.js", "/nothing"):
        got, head = ask(desk, "GET", path), ask(desk, "HEAD", path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        said = ({k: v for k, v in answer.headers.items() if k not in own} for answer in (got, head))
        assert next(said) == next(said), path


def test_head_of_the_stream_ends(desk: Any) -> None:
    head = ask(desk, "HEAD", "/api/v1/stream")
    assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert desk.board.subscriber_count == 0


def test_options_names_the_methods_without_a_token(desk: Any) -> None:
    for path in (*READS, "/api/v1/stream", "/healthz", "/", "/static/page.js"):
        answer = desk.client.request("OPTIONS", path, {})
        assert (answer.status_code, answer.headers["allow"], answer.content) == (204, "GET, HEAD, OPTIONS", b""), path
        for method in ("POST", "PUT", "PATCH", "DELETE", "TRACE"):
            refused = ask(desk, method, path)
            assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS"), path
            assert refused.json()["type"] == "urn:lstmc:problem:method-not-allowed"
    assert desk.client.request("OPTIONS", "/nothing", {}).status_code == 404


def test_every_read_has_a_tag_and_knows_it(desk: Any) -> None:
    for path in READS:
        tag = desk.get(path).headers["etag"]
        for known in (tag, tag.removeprefix("W/"), f'"a", {tag}', f'{tag},"b"', "*"):
            answer = desk.get(path, **{"If-None-Match": known})
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag), (path, known)
            assert {"cache-control", "vary"} <= answer.headers.keys(), path
        for other in ('"a"', tag[:-2] + '"', ""):
            assert desk.get(path, **{"If-None-Match": other}).status_code == 200, (path, other)


def test_tags_in_several_header_lines() -> None:
    assert is_known('W/"a"', ['"b"', '"c", "a"'])
    assert not is_known('W/"a"', [])


WISHES = [
    (None, "", "application/json"),
    ("", "", "application/json"),
    ("*/*", "", "application/json"),
    ("text/html,application/xhtml+xml,*/*;q=0.8", "", "application/json"),
    ("application/*", "", "application/json"),
    ("text/csv", "", CSV),
    ("text/*", "", CSV),
    (ARROW, "", ARROW),
    (f"application/json;q=0.5, {ARROW}", "", ARROW),
    (f"text/csv;q=0.9, {ARROW};q=0.1", "", CSV),
    ("*/*;q=0.1, text/csv;q=0", "", "application/json"),
    ("text/csv", "format=arrow", ARROW),
    ("image/png", "format=csv", CSV),
]


@pytest.mark.parametrize("path", ["/api/v1/bars/EURUSD", "/api/v1/predictions/EURUSD/history"])
def test_the_form_is_negotiated(desk: Any, path: str) -> None:
    desk.market.write_history(desk.settings, 2)
    for accept, query, media_type in WISHES:
        answer = desk.get(f"{path}?{query}", **({} if accept is None else {"Accept": accept}))
        assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, media_type), accept
        assert answer.headers["vary"] == "Accept, Accept-Encoding"


def test_what_there_is_not_is_a_406_with_what_there_is(desk: Any) -> None:
    for accept in ("image/png", "application/json;q=0", "text/html, image/*;q=0.3"):
        answer = desk.get("/api/v1/bars/EURUSD", Accept=accept)
        assert (answer.status_code, answer.headers["content-type"]) == (406, "application/problem+json")
        assert answer.json()["available"] == ["application/json", ARROW, CSV]
    assert desk.get("/api/v1/bars/EURUSD?format=xml").status_code == 422


def test_bars_are_the_same_in_every_form(desk: Any) -> None:
    said = desk.get("/api/v1/bars/EURUSD?limit=3").json()
    arrow = desk.get("/api/v1/bars/EURUSD?limit=3&format=arrow")
    text = desk.get("/api/v1/bars/EURUSD?limit=3&format=csv")
    table = pa.ipc.open_stream(arrow.content).read_all()
    assert [str(time) for time in table["close_time"].to_pandas()] == [
        row[0].replace("T", " ").replace("Z", "+00:00") for row in said["bars"]
    ]
    assert table.select(said["columns"][1:]).to_pydict() == {
        name: [row[i] for row in said["bars"]] for i, name in enumerate(said["columns"]) if i
    }
    assert set(table["market"].to_pylist()) == {"simulated"}
    first, *rows = text.text.split("\r\n")[:-1]
    assert first == "symbol,timeframe,market,close_time,open,high,low,close"
    assert rows == [f"EURUSD,H1,simulated,{','.join(map(str, row))}" for row in said["bars"]]
    assert len({a.headers["etag"] for a in (arrow, text, desk.get("/api/v1/bars/EURUSD?limit=3"))}) == 3


BODY = json.dumps(list(range(COMPRESSED_FROM))).encode()


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ([], ""),
        (["identity"], ""),
        (["gzip"], "gzip"),
        (["gzip, deflate, br, zstd"], "zstd"),
        (["zstd;q=0.5, gzip"], "gzip"),
        (["zstd;q=0, gzip;q=0"], ""),
        (["br"], ""),
        (["*"], "zstd"),
        (["br", "gzip"], "gzip"),
    ],
)
def test_a_long_body_is_compressed_as_the_caller_likes_it(accepted: list[str], coding: str) -> None:
    body, chosen = compressed(BODY, accepted)
    assert chosen == coding
    if coding == "gzip":
        body = gzip.decompress(body)
    elif coding == "zstd":
        assert body[:4] == b"\x28\xb5\x2f\xfd"  # RFC 8878
        body = pa.Codec("zstd").decompress(body, len(BODY), asbytes=True)
    assert body == BODY


def test_a_short_body_stays_as_it_is(desk: Any) -> None:
    assert compressed(b"x" * (COMPRESSED_FROM - 1), ["gzip"])[1] == ""
    accepts = {"Accept-Encoding": "gzip"}
    short, long = desk.get("/api/v1/skill", **accepts), desk.get("/openapi.json", **accepts)
    assert ("content-encoding" in short.headers, long.headers["content-encoding"]) == (False, "gzip")
    assert long.json()["openapi"].startswith("3.1")  # httpx has unpacked it
    assert {short.headers["vary"], long.headers["vary"]} == {"Accept-Encoding"}


def test_problems_after_the_door_tell_the_budget(desk: Any) -> None:
    left = 600
    for path, status in [
        ("/api/v1/predictions/EURXXX", 404),
        ("/api/v1/bars/EURUSD?limit=0", 422),
        ("/api/v1/skill?timeframe=M15", 503),
        ("/api/v1/bars/EURUSD?format=xml", 422),
    ]:
        answer, left = desk.get(path), left - 1
        assert (answer.status_code, answer.headers["ratelimit-remaining"]) == (status, str(left)), path
    refused = desk.client.get("/api/v1/signals", headers=desk.bearer(scopes=("read",)))
    assert (refused.status_code, "ratelimit-limit" in refused.headers) == (403, True)


def test_what_is_no_text_is_a_400(desk: Any) -> None:
    for path in ("/api/v1/bars/%FF", "/api/v1/skill?timeframe=%C3%28", "/%80"):
        answer = desk.get(path)
        assert (answer.status_code, answer.json()["type"]) == (400, "urn:lstmc:problem:malformed-address"), path


def test_a_slash_too_many_is_a_404_and_no_redirect(desk: Any) -> None:
    assert desk.get("/api/v1/skill/").status_code == 404
