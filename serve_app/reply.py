"""An answer on its way out: 304 when the caller has it, compressed where that pays, with the headers of every read.

Knows nothing about routes. `docs/api.md` names the benchmark that chose the compression.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping

import orjson
import pyarrow as pa
from fastapi import Request, Response
from werkzeug.http import parse_accept_header

from serve_app.admission import Visit
from serve_app.board import Answer, Board, etag_of

JSON = "application/json"
CALLER_MEMORY = "private, no-cache"  # keep it, but ask with If-None-Match every time
NOT_KEPT = {"Cache-Control": "no-store"}
# One forecast, some 10 KB, fits TCP's first flight as it is (ten segments), and it is what is asked for most.
COMPRESSED_FROM = 14_000


def reply(
    request: Request, visit: Visit, answer: Answer, media_type: str = JSON, more: Mapping[str, str] | None = None
) -> Response:
    """The answer to somebody who was let in, or 304. `more`: further headers."""
    headers = {"Cache-Control": CALLER_MEMORY} | visit.budget.headers() | dict(more or {})
    return conditional(request, answer, media_type, headers)


def conditional(request: Request, answer: Answer, media_type: str, headers: Mapping[str, str]) -> Response:
    varies = ", ".join(filter(None, (headers.get("Vary"), "Accept-Encoding")))
    sent = dict(headers) | {"ETag": answer.etag, "Vary": varies}
    if is_known(answer.etag, request.headers.getlist("if-none-match")):
        return Response(None, 304, sent)
    body, coding = compressed(answer.body, request.headers.getlist("accept-encoding"))
    return Response(body, 200, sent | ({"Content-Encoding": coding} if coding else {}), media_type)


def rendered(board: Board, said: Mapping[str, object]) -> Answer:
    """`said` as JSON with the time of serving behind it, which the tag leaves out."""
    body = orjson.dumps(said)
    return Answer(body[:-1] + b',"served_at":"%s"}' % board.served_at().encode(), etag_of(body))


def is_known(etag: str, if_none_match: list[str]) -> bool:
    """Weak comparison (RFC 9110, 13.1.2): nothing here promises equal bytes."""
    given = {tag.strip().removeprefix("W/") for tag in ",".join(if_none_match).split(",")}
    return bool(given & {etag.removeprefix("W/"), "*"})


def compressed(body: bytes, accept_encoding: list[str], at_least: int = COMPRESSED_FROM) -> tuple[bytes, str]:
    """(`body`, "") as it is, or in the coding that the caller likes best; zstd before gzip where it likes both."""
    if len(body) < at_least or not accept_encoding:
        return body, ""
    accepted = parse_accept_header(",".join(accept_encoding))
    liked = {coding: accepted[coding] for coding in ("zstd", "gzip") if accepted[coding] > 0}
    coding = max(liked, key=lambda name: liked[name], default="")
    if coding == "zstd":
        return pa.Codec("zstd", compression_level=1).compress(body, asbytes=True), coding
    return (gzip.compress(body, 1, mtime=0) if coding else body), coding
