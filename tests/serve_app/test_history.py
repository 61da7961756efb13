"""Past forecasts page by page, out of a real ledger."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from serve_app.paging import cursor_of, place_of
from serve_app.problems import Problem
from serve_app.question import moment
from serve_app.responses import HistoryBody

PATH = "/api/v1/predictions/EURUSD/history"


@pytest.fixture
def written(desk: Any) -> Any:
    desk.market.write_history(desk.settings, 30)
    return desk


def as_ofs(body: dict[str, Any]) -> list[str]:
    return [row["as_of"][5:13] for row in body["forecasts"]]


def test_a_page_is_as_described_and_joined_with_what_happened(written: Any) -> None:
    body = written.get(f"{PATH}?limit=30").json()
    HistoryBody.model_validate(body)
    assert (body["count"], body["next"], body["reason"]) == (30, None, "")
    newest, oldest = body["forecasts"][0], body["forecasts"][-1]
    assert (newest["as_of"], newest["outcomes"]) == ("2026-03-04T12:00:00Z", {})
    assert (oldest["seq"], set(oldest["outcomes"])) == (1, {"1", "24"})
    closes = {row[0]: row[4] for row in written.market.bars["EURUSD"]}
    assert oldest["outcomes"]["24"]["close"] == closes["2026-03-04T07:00:00Z"]


def test_pages_follow_each_other_while_forecasts_arrive(written: Any) -> None:
    whole = as_ofs(written.get(f"{PATH}?limit=1000").json())
    seen, address = [], f"{PATH}?limit=7"
    while address:
        answer = written.get(address)
        body = answer.json()
        assert answer.headers.get("link") == (f'<{body["next"]}>; rel="next"' if body["next"] else None)
        seen += as_ofs(body)
        address = body["next"]
        written.board.apply(written.market.close_a_bar())
        written.market.write_history(written.settings, 1)
    assert seen == whole
    assert len(as_ofs(written.get(f"{PATH}?limit=1000").json())) == len(whole) + 5


def test_a_range_is_half_open_and_stays_in_the_next_address(written: Any) -> None:
    asked = f"{PATH}?limit=2&from=2026-03-04T08:00:00Z&to=2026-03-04T13:00:00%2B01:00"
    first = written.get(asked).json()
    assert as_ofs(first) == ["03-04T11", "03-04T10"]
    second = written.get(first["next"]).json()
    assert (as_ofs(second), second["next"]) == (["03-04T09", "03-04T08"], None)
    empty = written.get(f"{PATH}?to=2020-01-01T00:00:00Z").json()
    assert (empty["count"], empty["reason"]) == (0, "No forecast of EURUSD H1 is on record here.")


def test_as_a_table_it_has_a_row_per_horizon(written: Any) -> None:
    answer = written.get(f"{PATH}?limit=27&format=arrow")
    assert "cursor=" in answer.headers["link"]
    assert "format=arrow" in answer.headers["link"]
    table = pa.ipc.open_stream(answer.content).read_all()
    said = written.get(f"{PATH}?limit=27").json()["forecasts"]
    assert table["bars"].to_pylist() == [1, 24] * 27
    last = table.slice(53).to_pylist()[0]
    assert last["as_of"] == datetime(2026, 3, 3, 10, tzinfo=UTC)
    assert last["return_q10"] == said[-1]["horizons"][1]["quantiles"]["0.1"]
    assert last["outcome_return"] == said[-1]["outcomes"]["24"]["return"]
    assert table["outcome_return"].null_count == 1 + 24
    lines = written.get(f"{PATH}?limit=27&format=csv").text.splitlines()
    assert len(lines) == 1 + 54
    assert lines[1].startswith("EURUSD,H1,simulated,30,2026-03-04T12:00:00Z,")
    assert ",,,,," in lines[1]  # no outcome yet


def test_an_empty_table_still_has_its_columns(desk: Any) -> None:
    table = pa.ipc.open_stream(desk.get(f"{PATH}?format=arrow").content).read_all()
    assert (table.num_rows, "outcome_return" in table.column_names) == (0, True)
    assert len(desk.get(f"{PATH}?format=csv").text.splitlines()) == 1


def test_a_cursor_that_is_none_is_a_422(desk: Any) -> None:
    for cursor in ("", "x", "1", "1.", ".1", "-1.1", "1.1.1", "99999999999.1", "1.9999999999", "1.1%0A"):
        answer = desk.get(f"{PATH}?cursor={cursor}")
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:lstmc:problem:bad-input"), cursor
    for nowhere in ("0.0", "9999999999.999999999", "0000000001.0"):
        assert desk.get(f"{PATH}?cursor={nowhere}").status_code == 200, nowhere


def test_a_cursor_is_a_place() -> None:
    row = {"as_of": "2026-03-04T12:00:00Z", "seq": 17}
    assert place_of(cursor_of(row)) == (datetime(2026, 3, 4, 12, tzinfo=UTC), 17)


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2026-03-04T12:00:00Z", 12),
        ("2026-03-04t12:00:00z", 12),
        ("2026-03-04 11:59:59.5Z", 12),
        ("0001-01-01T00:00:00+05:00", 0),
        ("9999-12-31T23:59:59.9Z", 23),
        ("2026-03-04T12:00:00+02:00", 10),
        ("2026-03-04T12:00:00 02:00", 10),  # a + that was not escaped
        ("2026-03-04T12:00:00-02:00", 14),
    ],
)
def test_a_moment_has_a_zone(text: str, hour: int) -> None:
    found = moment("from", text)
    assert found is not None
    assert (found.hour, found.tzinfo) == (hour, UTC)


@pytest.mark.parametrize(
    "text",
    ["", "now", "2026-03-04", "2026-03-04T12:00:00", "2026-02-30T12:00:00Z", "1772625600", "٢026-03-04T12:00:00Z"],
)
def test_what_has_none_is_a_422(text: str) -> None:
    with pytest.raises(Problem, match="is not a time with its zone"):
        moment("from", text)
