"""Wrong clocks are told from feeds that stand still, from revisions, and from late openings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from market.bars import bars_from_columns
from market.calendar import expected_opens
from market.clock_watch import TickWatch, contradicts, slipped_hours, slipped_weeks
from market.timeframes import Timeframe

WEDNESDAY = datetime(2024, 3, 13, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def bars(opens: np.ndarray, shift: int = 0, seed: int = 1) -> pa.Table:
    rng = np.random.default_rng(seed)
    close = 1.1 + rng.normal(0, 1e-3, len(opens))
    told = opens + np.timedelta64(shift * 3600, "s")
    return bars_from_columns(
        "EURUSD", Timeframe.H1, told, close, close + 0.01, close - 0.01, close, received_at=WEDNESDAY
    )


OPENS = expected_opens(Timeframe.H1, WEDNESDAY - timedelta(days=12), WEDNESDAY)


@pytest.mark.parametrize("hours", [-3, -1, 1, 2])
def test_a_new_tick_that_is_whole_hours_off(hours: int) -> None:
    watch = TickWatch()
    assert watch.look(WEDNESDAY + hours * HOUR - timedelta(seconds=5), WEDNESDAY) == hours
    assert watch.look(WEDNESDAY + timedelta(seconds=20), WEDNESDAY + timedelta(seconds=30)) is None, "it was put right"


def test_a_feed_that_stands_still_is_no_wrong_clock() -> None:
    watch = TickWatch()
    assert watch.look(WEDNESDAY, WEDNESDAY + timedelta(minutes=1)) is None
    assert watch.look(WEDNESDAY, WEDNESDAY + HOUR) is None
    assert watch.look(WEDNESDAY, WEDNESDAY + 5 * HOUR) is None


def test_at_the_weekend_only_the_future_is_wrong() -> None:
    saturday = datetime(2024, 3, 16, 12, tzinfo=UTC)
    assert TickWatch().look(saturday - 15 * HOUR, saturday) is None
    assert TickWatch().look(saturday - 3 * HOUR, saturday) is None
    assert TickWatch().look(saturday + HOUR, saturday) == 1
    assert TickWatch().look(None, saturday) is None


@pytest.mark.parametrize("hours", [-2, -1, 1, 7])
def test_bars_we_hold_that_come_at_another_hour(hours: int) -> None:
    stored = bars(OPENS)
    assert slipped_hours(stored, bars(OPENS, hours).slice(150)) == hours
    assert slipped_hours(stored, stored.slice(150)) is None
    assert slipped_hours(stored, bars(OPENS, seed=2).slice(150)) is None, "revised, not shifted"


def test_other_bars_altogether() -> None:
    stored = bars(OPENS)
    assert contradicts(stored, bars(OPENS, seed=2).slice(150))
    one_revised = pa.concat_tables([bars(OPENS, seed=2).slice(150, 1), stored.slice(151)])
    assert not contradicts(stored, one_revised)
    assert not contradicts(stored, bars(OPENS, seed=2).slice(len(OPENS) - 1)), "one bar proves nothing"


@pytest.mark.parametrize("hours", [-1, 1, 2])
def test_weeks_that_open_and_close_off(hours: int) -> None:
    assert slipped_weeks(bars(OPENS, hours)) == hours
    assert slipped_weeks(bars(OPENS)) is None
    first_of_week = np.r_[False, np.diff(OPENS) > np.timedelta64(40 * 3600, "s")]
    assert slipped_weeks(bars(OPENS[~first_of_week])) is None, "metals open an hour later"
