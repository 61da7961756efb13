"""What crosses the pipes between a session's process and its owner: a JSON value and, for tables, an Arrow stream.

Nothing that runs code when it is read. Does not know sessions or processes.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Any

import pyarrow as pa

from market import errors
from market.errors import LstmcError, NotConnected, TerminalError

_SIZES = struct.Struct("!II")


@dataclass(frozen=True)
class Frame:
    """One message."""

    value: Any
    payload: bytes = b""


def write_frame(stream: IO[bytes], frame: Frame) -> None:
    text = json.dumps(frame.value, default=_plain).encode()
    stream.write(_SIZES.pack(len(text), len(frame.payload)) + text + frame.payload)
    stream.flush()


def read_frame(stream: IO[bytes]) -> Frame | None:
    """The next message; None when the other side has ended, in the middle of a message or not."""
    sizes = stream.read(_SIZES.size)
    if len(sizes) < _SIZES.size:
        return None
    text_size, payload_size = _SIZES.unpack(sizes)
    text, payload = stream.read(text_size), stream.read(payload_size)
    if len(text) < text_size or len(payload) < payload_size:
        return None
    return Frame(json.loads(text), payload)


def to_arrow(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def from_arrow(content: bytes) -> pa.Table:
    with pa.ipc.open_stream(content) as reader:
        return reader.read_all()


def error_to(error: Exception) -> dict[str, Any]:
    """Our errors as they are; any other as the reason why there is no connection."""
    if not isinstance(error, LstmcError):
        said = f"The session's process failed: {type(error).__name__}: {error}."
        return {"kind": "NotConnected", "message": said, "hint": "This is a fault of the program; please report it."}
    code = {"code": error.code, "text": error.text} if isinstance(error, TerminalError) else {}
    return {"kind": type(error).__name__, "message": error.message, "hint": error.hint} | code


def error_from(said: dict[str, Any]) -> LstmcError:
    if said["kind"] == "TerminalError":
        return TerminalError(int(said["code"]), said["text"], hint=said["hint"])
    kind = getattr(errors, said["kind"], NotConnected)
    error: LstmcError = kind(said["message"], hint=said["hint"])
    return error


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} does not cross the pipe")
