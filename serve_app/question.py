"""What a request asks for: its symbol and timeframe, and the problems when there is no answer to that (yet).

Knows the board and the settings; knows nothing about routes.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Query

from configs.settings import Settings
from market.errors import InputError
from market.symbols import symbol as parse_symbol
from serve_app.board import Board
from serve_app.problems import Problem, unavailable

TimeframeName = Annotated[str | None, Query(description="the first served one when left out", examples=["H1"])]
Moment = Annotated[str | None, Query(json_schema_extra={"format": "date-time"}, examples=["2026-03-02T14:00:00Z"])]
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+ -]\d\d:\d\d)", re.ASCII)


def moment(name: str, text: str | None) -> datetime | None:
    """`"2020-03-02T14:00:00+01:00"` -> aware UTC, rounded up to a second, which is how bars close.

    A `+` that was not escaped arrives as a space and is taken back.
    """
    if text is None:
        return None
    try:
        if not _RFC3339.fullmatch(text):
            raise ValueError
        found = datetime.fromisoformat(text[:-6] + text[-6:].replace(" ", "+").upper())
    except ValueError:
        raise Problem(
            422,
            "bad-time",
            "Not a time",
            f"{name}={text[:40]!r} is not a time with its zone.",
            hint="Write it like 2026-03-02T14:00:00Z (RFC 3339).",
        ) from None
    try:
        return found.astimezone(UTC) + timedelta(microseconds=-found.microsecond % 1_000_000)
    except OverflowError:  # in the first or last hours of the calendar
        return found.replace(tzinfo=UTC, microsecond=0)


class Question:
    """Which symbol and timeframe a request means, and the problems when those cannot be answered."""

    def __init__(self, settings: Settings, board: Board) -> None:
        self.settings = settings
        self.board = board

    def symbol(self, text: str) -> str:
        served = self.settings.symbols
        try:
            code = parse_symbol(text).code
        except InputError:
            code = ""
        if code not in served:
            raise Problem(
                404,
                "unknown-symbol",
                "Unknown symbol",
                f"{text[:20]!r} is not served here.",
                hint=f"Served: {', '.join(served)}.",
                more={"served": served},
            )
        return code

    def timeframe(self, text: str | None) -> str:
        served = self.settings.timeframes
        name = served[0] if text is None else text.strip().upper()
        if name not in served:
            raise Problem(
                422,
                "unknown-timeframe",
                "Unknown timeframe",
                f"{str(text)[:20]!r} is not served here.",
                hint=f"Served: {', '.join(served)}.",
                more={"served": served},
            )
        return name

    def not_yet(self, symbol: str, timeframe: str) -> Problem:
        _, detail = self.board.why_missing(symbol, timeframe)
        if not self.board.filled:
            return unavailable("starting", "Still starting", detail, hint="Watch /readyz or /api/v1/status.")
        if timeframe not in self.board.update.models:
            return unavailable(
                "no-champion",
                "No model yet",
                detail,
                hint="The first one follows as soon as history is loaded: watch /api/v1/status.",
                retry_after=10,
            )
        return unavailable(
            "no-forecast",
            "No forecast yet",
            detail,
            hint="It is made when the next bar closes: watch /api/v1/status.",
            retry_after=10,
        )
