"""What the reliability benchmark makes of answers, without a cluster."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from benchmarks.http_load import kind_of
from benchmarks.nodes import BEGIN
from benchmarks.private_installation import chosen
from benchmarks.reliability import judge, page
from benchmarks.reliability_faults import FAULTS
from market.errors import InputError

PROBLEM = {"content-type": "application/problem+json"}


def answer(at: float, kind: str = "ok", seconds: float = 0.1) -> dict[str, Any]:
    return {"at": at, "kind": kind, "seconds": seconds}


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (200, {}, "ok"),
        (503, PROBLEM | {"retry-after": "2"}, "clean 503"),
        (503, PROBLEM, "503 application/problem+json"),
        (503, {"content-type": "text/plain", "retry-after": "2"}, "503 text/plain"),
        (500, {"content-type": "text/plain; charset=utf-8"}, "500 text/plain"),
        (429, PROBLEM | {"retry-after": "2"}, "429 application/problem+json"),
    ],
)
def test_an_answer_is_good_clean_or_a_failure(status: int, headers: dict[str, str], kind: str) -> None:
    assert kind_of(httpx.Response(status, headers=headers)) == kind


@pytest.mark.parametrize(
    ("fault", "answers", "ok"),
    [
        ("replica", [answer(9), answer(11)], True),
        ("replica", [answer(9), answer(11, "clean 503")], False),  # none may fail
        ("proxy", [answer(9), answer(11, "clean 503"), answer(20)], True),
        ("proxy", [answer(9), answer(17.9, "clean 503", 0.2), answer(20)], False),  # 8 s, to the failure's end
        ("proxy", [answer(9), answer(11, "500 text/plain"), answer(20)], False),
        ("proxy", [answer(11, "clean 503")], False),  # nothing but failures proves nothing
        ("replica", [], False),
    ],
)
def test_what_is_as_expected(fault: str, answers: list[dict[str, Any]], ok: bool) -> None:
    [found] = chosen(FAULTS, fault)
    assert judge(found, answers, 10.0, "pid 1 gone", True, 1.0, 30.0).ok is ok
    assert judge(found, answers, 10.0, "not so", False, 1.0, 30.0).ok is False


def test_the_figures_and_the_page() -> None:
    [fault] = chosen(FAULTS, "proxy")
    seen = judge(
        fault, [answer(9, seconds=0.3), answer(11, "clean 503", 0.5), answer(12)], 10.0, "pid 1 gone", True, 1.0, 30.2
    )
    assert (seen.requests, seen.failed, seen.out_s, seen.worst_s) == (3, {"clean 503": 1}, 1.5, 0.3)
    when = datetime(2026, 11, 25, tzinfo=UTC)
    said = page([seen], "lstmc bench reliability --seconds 30", 20, when)
    row = "| kill -9 of the only proxy | back within 8 s, clean 503 until then | 30 s | 3 | 1 x clean 503 | 1.5 s | 0.3 s | pid 1 gone | 1 |"
    assert row in said
    assert "`lstmc bench reliability --seconds 30`, 2026-11-25" in said
    [other] = chosen(FAULTS, "replica")
    later = judge(other, [answer(9), answer(11)], 10.0, "pid 2 gone", True, 1.0, 30.0)
    both = page([later], "lstmc bench reliability --seconds 30", 20, when, f"{said}\n{BEGIN} the other table")
    assert both.index("pid 2 gone") < both.index(row), "in the order of the faults"
    assert both.endswith(f"\n\n{BEGIN} the other table")


def test_an_unknown_fault_is_named() -> None:
    with pytest.raises(InputError, match="no fault 'flood'"):
        chosen(FAULTS, "flood")
