"""Every change of clocks in New York and the EU from 2012 to 2027, and the weeks in which only one side has changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from market.broker_clock import BrokerClock, detect
from market.calendar import expected_opens
from market.timeframes import Timeframe

NEW_YORK, ATHENS = ZoneInfo("America/New_York"), ZoneInfo("Europe/Athens")


def sunday(year: int, month: int, nth: int) -> datetime:
    """The nth Sunday of a month, the last for 0."""
    days = [datetime(year, month, day, tzinfo=UTC) for day in range(1, 32 if month in (3, 10) else 31)]
    sundays = [day for day in days if day.weekday() == 6]
    return sundays[nth - 1]


# By law: US second Sunday of March and first of November, 2:00; EU last Sundays of March and October, 01:00 UTC.
CHANGES = [
    (year, zone, sunday(year, month, nth))
    for year in range(2012, 2028)
    for zone, month, nth in (("us", 3, 2), ("us", 11, 1), ("eu", 3, 0), ("eu", 10, 0))
]


def wall(moment: datetime, rule: str) -> np.datetime64:
    local = moment.astimezone(ATHENS) if rule == "eu" else moment.astimezone(NEW_YORK) + timedelta(hours=7)
    return np.datetime64(local.replace(tzinfo=None), "s")


@pytest.mark.parametrize("rule", ["new_york", "eu"])
@pytest.mark.parametrize(("year", "zone", "day"), CHANGES)
def test_every_open_hour_around_a_change(year: int, zone: str, day: datetime, rule: str) -> None:
    """Four weeks hour by hour, against plain zone arithmetic: they reach into the weeks when only one side has changed."""
    opens = expected_opens(Timeframe.H1, day - timedelta(days=14), day + timedelta(days=14))
    moments = [moment.astype(datetime).replace(tzinfo=UTC) for moment in opens]
    server = np.array([wall(moment, rule) for moment in moments])
    clock = BrokerClock(rule)
    assert (clock.to_server(opens) == server).all()
    assert (clock.to_utc(server) == opens).all()
    assert [clock.server_epoch(moment) for moment in moments[::40]] == server[::40].astype(np.int64).tolist()


@pytest.mark.parametrize("year", range(2012, 2028))
def test_weeks_that_only_one_side_has_changed(year: int) -> None:
    """New York's summer is the longer one: server clocks of the two rules differ by an hour just there, and nowhere else."""
    opens = expected_opens(Timeframe.H1, datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC))
    differ = BrokerClock("new_york").to_server(opens) - BrokerClock("eu").to_server(opens)
    spans = [(sunday(year, 3, 2), sunday(year, 3, 0)), (sunday(year, 10, 0), sunday(year, 11, 1))]
    apart = np.zeros(len(opens), bool)
    for begin, end in spans:
        apart |= (opens >= np.datetime64(begin.replace(tzinfo=None))) & (
            opens < np.datetime64(end.replace(tzinfo=None))
        )
    assert (differ == np.where(apart, np.timedelta64(3600, "s"), np.timedelta64(0, "s"))).all()
    assert {int(((end - begin).days) / 7) for begin, end in spans} <= {1, 2, 3}


@pytest.mark.parametrize("year", range(2012, 2028))
@pytest.mark.parametrize("rule", ["new_york", "eu", "utc", "utc+2"])
def test_the_rule_is_found_from_the_year_alone(year: int, rule: str) -> None:
    opens = expected_opens(Timeframe.H1, datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC))
    findings = detect(BrokerClock(rule).to_server(opens), Timeframe.H1)
    assert (findings.rule, findings.slips) == (rule, ())
