"""What a request may bring: everything here is a GET, so nearly nothing, and that as text. Does not know what is asked."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers
from starlette.types import Scope

from serve_app.problems import Problem

MAX_URL = 2048  # bytes of path and query
MAX_BODY = 1024  # bytes; nothing here reads a body


def check_size(scope: Scope) -> None:
    """Problem 413 for a body that is too long, 411 for one of unknown length, 414 for a long address, 400 for no text."""
    path = scope.get("raw_path") or scope["path"].encode()
    length = len(path) + len(scope["query_string"])
    if length > MAX_URL:
        raise Problem(
            414,
            "address-too-long",
            "The address is too long",
            f"The address has {length} bytes.",
            hint=f"At most {MAX_URL} are read; /openapi.json describes every parameter.",
        )
    if b"%" in path or b"%" in scope["query_string"]:
        _check_text(path + b"?" + scope["query_string"])
    headers = Headers(scope=scope)
    if "transfer-encoding" in headers:
        raise Problem(
            411,
            "length-required",
            "A body of unknown length",
            "The request brings a body and does not say how long it is.",
            hint="Send no body: everything is read with GET.",
        )
    declared = headers.get("content-length", "0")
    if not declared.isdecimal() or len(declared) > 9 or int(declared) > MAX_BODY:
        raise Problem(
            413,
            "body-too-large",
            "The body is too large",
            f"A request may bring at most {MAX_BODY} bytes.",
            hint="Send no body: everything is read with GET.",
        )


def _check_text(address: bytes) -> None:
    try:
        unquote_to_bytes(address).decode()
    except UnicodeDecodeError:
        raise Problem(
            400,
            "malformed-address",
            "The address is malformed",
            "The address holds bytes that are not UTF-8.",
            hint="Percent-encode it as UTF-8; /openapi.json describes every parameter.",
        ) from None
