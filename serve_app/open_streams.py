"""How many streams a subject has open in this replica. Does not know what they carry."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from serve_app.problems import Problem


class OpenStreams:
    """At most `per_subject` at a time. Counted from the moment of admission, so that many at once are none too many."""

    def __init__(self, per_subject: int) -> None:
        self._per_subject = per_subject
        self._open: Counter[str] = Counter()

    def open(self, subject: str, body: AsyncIterator[bytes], headers: dict[str, str]) -> StreamingResponse:
        """The answer that streams `body`; Problem 429 when the subject has as many already."""
        if self._open[subject] >= self._per_subject:
            raise Problem(
                429,
                "too-many-streams",
                "Too many streams",
                f"This subject has {self._per_subject} streams open, which is as many as it may.",
                hint="Close one; a single stream carries every symbol.",
                headers={"Retry-After": "5"},
            )
        self._open[subject] += 1
        return _Counted(self, subject, body, headers)

    def close(self, subject: str) -> None:
        self._open[subject] -= 1
        if not self._open[subject]:
            del self._open[subject]

    @property
    def count(self) -> int:
        return self._open.total()


class _Counted(StreamingResponse):
    def __init__(self, streams: OpenStreams, subject: str, body: AsyncIterator[bytes], headers: dict[str, str]) -> None:
        super().__init__(body, 200, headers, "text/event-stream")
        self._streams, self._subject = streams, subject

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._streams.close(self._subject)
