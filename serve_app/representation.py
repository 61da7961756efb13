"""In which form a table leaves: JSON, an Arrow stream or CSV, by `format=` or else by the Accept header.

Knows nothing about what is in the table.
"""

from __future__ import annotations

import csv
import io
from enum import Enum
from typing import Annotated, Literal

import pyarrow as pa
from fastapi import Query, Request
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from market.forecasts import jsonable
from mt5_actor_windows.session_wire import to_arrow
from serve_app.board import Answer, etag_of
from serve_app.problems import Problem

FormatName = Annotated[
    Literal["json", "arrow", "csv"] | None, Query(alias="format", description="instead of an `Accept` header")
]


class Representation(Enum):
    """Its value is the media type."""

    JSON = "application/json"
    ARROW = "application/vnd.apache.arrow.stream"
    CSV = "text/csv"

    @property
    def header(self) -> str:
        return "text/csv; charset=utf-8; header=present" if self is Representation.CSV else self.value


def negotiate(request: Request, name: str | None) -> Representation:
    """Problem 406 when nothing that we have is acceptable. Without a wish it is JSON."""
    if name is not None:
        return Representation[name.upper()]
    wishes = parse_accept_header(",".join(request.headers.getlist("accept")), MIMEAccept)
    best = wishes.best_match([form.value for form in Representation]) if wishes else Representation.JSON.value
    if best is None:
        there_is = [form.value for form in Representation]
        raise Problem(
            406,
            "not-acceptable",
            "Not available in that form",
            f"There is no {wishes.to_header()[:80]} of this.",
            hint=f"Accept one of {', '.join(there_is)}, or ask with format=json, arrow or csv.",
            more={"available": there_is},
        )
    return Representation(best)


def written(table: pa.Table, as_: Representation) -> Answer:
    """The table as Arrow or CSV. In CSV times end in Z and a missing value is empty."""
    body = to_arrow(table) if as_ is Representation.ARROW else _csv(table)
    return Answer(body, etag_of(body))


def _csv(table: pa.Table) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(table.column_names)
    writer.writerows(zip(*(jsonable(column.to_pylist()) for column in table.columns), strict=True))
    return text.getvalue().encode()
