"""Sixty a minute per subject, neither 59 nor 61, and the headers say where one stands."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from serve_app.problems import Problem
from serve_app.rate_limit import RateLimiter


def test_the_61st_request_is_refused(desk: Any) -> None:
    headers = desk.bearer(subject="busy")
    answers = [desk.client.get("/api/v1/skill", headers=headers) for _ in range(61)]
    assert [a.status_code for a in answers] == [200] * 60 + [429]
    assert [int(a.headers["ratelimit-remaining"]) for a in answers[:60]] == list(range(59, -1, -1))
    refused = answers[-1]
    assert (refused.headers["content-type"], refused.headers["ratelimit-limit"]) == ("application/problem+json", "60")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["retry-after"] == refused.headers["ratelimit-reset"]
    assert desk.client.get("/api/v1/skill", headers=desk.bearer(subject="calm")).status_code == 200


def test_another_token_of_the_same_subject_has_no_new_minute(desk: Any) -> None:
    for _ in range(60):
        desk.client.get("/api/v1/skill", headers=desk.bearer(subject="busy"))
    assert desk.client.get("/api/v1/skill", headers=desk.bearer(subject="busy")).status_code == 429


def test_health_never_counts(desk: Any) -> None:
    headers = desk.bearer(subject="probe")
    assert {desk.client.get("/healthz", headers=headers).status_code for _ in range(80)} == {200}
    assert desk.client.get("/api/v1/skill", headers=headers).headers["ratelimit-remaining"] == "59"


def test_the_window_moves() -> None:
    now = [1_000_000.0]
    limiter = RateLimiter(2, now=lambda: now[0])

    async def take() -> int:
        return (await limiter.take("a")).remaining

    assert asyncio.run(take()) == 1
    now[0] += 30
    assert asyncio.run(take()) == 0
    with pytest.raises(Problem) as refused:
        asyncio.run(take())
    assert refused.value.headers["Retry-After"] == "30"
    now[0] += 31
    assert asyncio.run(take()) == 0  # the first has left, the second has not


def test_the_limit_is_a_setting(make_desk: Any) -> None:
    desk = make_desk(requests_per_minute=3).fill()
    assert [desk.get("/api/v1/skill").status_code for _ in range(4)] == [200, 200, 200, 429]
