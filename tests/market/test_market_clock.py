"""The FX week and the accelerated clock, across both DST changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.market_clock import MarketClock, add_open_time, is_open, next_week_open, open_time_between, week_open


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "opens"),
    [
        ("2026-11-22T21:59", "2026-11-15T22:00"),  # winter: Sunday 22:00 UTC
        ("2026-11-22T22:00", "2026-11-22T22:00"),
        ("2026-07-15T12:00", "2026-07-12T21:00"),  # summer: Sunday 21:00 UTC
        ("2026-03-08T21:00", "2026-03-08T21:00"),  # the Sunday on which New York springs forward
        ("2026-11-01T22:00", "2026-11-01T22:00"),  # the Sunday on which it falls back
    ],
)
def test_the_week_opens_at_five_in_new_york(moment: str, opens: str) -> None:
    assert week_open(utc(moment)) == utc(opens)


@pytest.mark.parametrize(
    ("moment", "expected"),
    [("2026-11-20T21:59", True), ("2026-11-20T22:00", False), ("2026-11-22T22:00", True), ("2026-07-17T21:00", False)],
)
def test_the_market_is_closed_from_friday_to_sunday(moment: str, expected: bool) -> None:
    assert is_open(utc(moment)) is expected


@pytest.mark.parametrize(
    ("start", "hours", "end"),
    [
        ("2026-11-18T12:00", 24, "2026-11-19T12:00"),
        ("2026-11-20T21:00", 2, "2026-11-22T23:00"),  # over a weekend
        ("2026-11-21T12:00", 1, "2026-11-22T23:00"),  # from inside one
        ("2026-03-06T21:00", 2, "2026-03-08T22:00"),  # over the spring change: the week opens an hour earlier in UTC
        ("2026-11-16T00:00", 240, "2026-11-30T00:00"),
    ],
)
def test_open_time_steps_over_weekends(start: str, hours: float, end: str) -> None:
    assert add_open_time(utc(start), timedelta(hours=hours)) == utc(end)


@given(
    start=st.datetimes(datetime(2012, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    hours=st.floats(0, 2000),
)
def test_adding_open_time_and_measuring_it_agree(start: datetime, hours: float) -> None:
    span = timedelta(hours=hours)
    opened = start if is_open(start) else next_week_open(start)
    assert open_time_between(opened, add_open_time(start, span)) == span
    assert is_open(add_open_time(start, span))


def test_an_accelerated_clock_skips_the_weekend_and_never_goes_back() -> None:
    friday = utc("2026-11-20T21:00")
    clock = MarketClock(wall_start=1000.0, market_start=friday.timestamp(), speed=60.0)
    assert clock.now(1000.0) == friday
    assert clock.now(1000.0 + 120.0) == utc("2026-11-22T23:00")
    times = [clock.now(1000.0 + second) for second in range(0, 600, 7)]
    assert times == sorted(times)


def test_real_time_is_the_wall_clock() -> None:
    assert MarketClock.real().now(0.0) == datetime(1970, 1, 1, tzinfo=UTC)
    assert MarketClock.from_dict(MarketClock.real().to_dict()) == MarketClock.real()
