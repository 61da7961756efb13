"""The FX week's expected bars, and the kinds of holes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from market.calendar import Gap, expected_opens, gaps
from market.timeframes import Timeframe

SINCE, UNTIL = datetime(2020, 3, 1, tzinfo=UTC), datetime(2020, 3, 15, tzinfo=UTC)  # US DST begins on the 8th


@pytest.mark.parametrize(
    ("timeframe", "bars"), [(Timeframe.M15, 960), (Timeframe.H1, 240), (Timeframe.H4, 60), (Timeframe.D1, 10)]
)
def test_bars_of_two_weeks(timeframe: Timeframe, bars: int) -> None:
    opens = expected_opens(timeframe, SINCE, UNTIL)
    assert len(opens) == bars
    assert str(opens[0]) == "2020-03-01T22:00:00"
    second_week = opens[opens > np.datetime64("2020-03-07")]
    assert str(second_week[0]) == "2020-03-08T21:00:00"


def test_kinds_of_holes() -> None:
    opens = expected_opens(Timeframe.H1, SINCE, UNTIL)
    lacks = [np.datetime64("2020-03-03T05"), np.datetime64("2020-03-03T06"), np.datetime64("2020-03-04T10")]
    have = opens[~np.isin(opens, lacks) & (opens < np.datetime64("2020-03-13T15"))]

    def kinds(absent: np.ndarray) -> np.ndarray:
        early = np.where(absent.astype("datetime64[D]") == np.datetime64("2020-03-04"), "no_tick", "missing")
        return np.where(absent < np.datetime64("2020-03-13T15"), early, "unfetched")

    found = gaps(have, Timeframe.H1, SINCE, UNTIL, kinds=kinds)
    assert found == [
        Gap(datetime(2020, 3, 3, 5, tzinfo=UTC), datetime(2020, 3, 3, 7, tzinfo=UTC), "missing", 2),
        Gap(datetime(2020, 3, 4, 10, tzinfo=UTC), datetime(2020, 3, 4, 11, tzinfo=UTC), "no_tick", 1),
        Gap(datetime(2020, 3, 13, 15, tzinfo=UTC), datetime(2020, 3, 13, 21, tzinfo=UTC), "unfetched", 6),
    ]


def test_weekends_are_closed_not_missing() -> None:
    opens = expected_opens(Timeframe.H1, SINCE, UNTIL)
    assert gaps(opens, Timeframe.H1, SINCE, UNTIL) == []
    kinds = [(gap.kind, gap.end - gap.start) for gap in gaps(opens, Timeframe.H1, SINCE, UNTIL, with_closed=True)]
    assert kinds == [("closed", timedelta(hours=22)), ("closed", timedelta(hours=47)), ("closed", timedelta(hours=27))]


def test_holes_on_both_sides_of_a_weekend_are_two() -> None:
    opens = expected_opens(Timeframe.H1, SINCE, UNTIL)
    have = opens[~np.isin(opens, [np.datetime64("2020-03-06T21"), np.datetime64("2020-03-08T21")])]
    assert [gap.bars for gap in gaps(have, Timeframe.H1, SINCE, UNTIL)] == [1, 1]
