"""Where a page of past forecasts ends and the next one begins. Pure.

A cursor is a row's place in the ledger, as-of in epoch seconds and row number; callers are told that it is opaque.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from market.forecasts import parse_utc

CURSOR = r"^[0-9]{1,10}\.[0-9]{1,9}$"


def cursor_of(row: Mapping[str, Any]) -> str:
    return f"{int(parse_utc(row['as_of']).timestamp())}.{row['seq']}"


def place_of(cursor: str) -> tuple[datetime, int]:
    """The (as_of, seq) of a cursor that matches CURSOR."""
    seconds, _, seq = cursor.partition(".")
    return datetime.fromtimestamp(int(seconds), UTC), int(seq)


def cut(rows: Sequence[dict[str, Any]], limit: int) -> tuple[Sequence[dict[str, Any]], str]:
    """One page out of up to `limit` + 1 rows, and the cursor of the next; "" when this is the last one."""
    page = rows[:limit]
    return page, cursor_of(page[-1]) if len(rows) > limit else ""


def next_page(path: str, asked: Mapping[str, str], cursor: str) -> str | None:
    """The address of the next page: the same question, further on."""
    return f"{path}?{urlencode(dict(asked) | {'cursor': cursor})}" if cursor else None
