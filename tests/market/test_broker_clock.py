"""Server clock to UTC across DST, and the rule that a feed's own weeks speak for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from market.broker_clock import BrokerClock, detect, rule_of_claim
from market.calendar import expected_opens
from market.errors import ConfigError
from market.timeframes import Timeframe


@pytest.mark.parametrize(
    ("rule", "server", "utc"),
    [
        ("new_york", "2020-01-06T00:00", "2020-01-05T22:00"),  # winter: GMT+2
        ("new_york", "2020-07-06T00:00", "2020-07-05T21:00"),  # summer: GMT+3
        ("new_york", "2020-03-16T00:00", "2020-03-15T21:00"),  # US DST has begun, the EU's not yet
        ("eu", "2020-03-16T00:00", "2020-03-15T22:00"),
        ("eu", "2020-10-26T00:00", "2020-10-25T22:00"),  # the EU's has ended, the US' not yet
        ("new_york", "2020-10-26T00:00", "2020-10-25T21:00"),
        ("utc", "2020-03-16T00:00", "2020-03-16T00:00"),
        ("utc+3", "2020-01-06T00:00", "2020-01-05T21:00"),
        ("utc-5", "2020-01-06T00:00", "2020-01-06T05:00"),
    ],
)
def test_server_to_utc(rule: str, server: str, utc: str) -> None:
    clock = BrokerClock(rule)
    assert clock.to_utc(np.array([server], "datetime64[s]")) == np.array([utc], "datetime64[s]")
    assert clock.to_server(np.array([utc], "datetime64[s]")) == np.array([server], "datetime64[s]")


@pytest.mark.parametrize("rule", ["new_york", "eu", "utc", "utc+2"])
def test_every_trading_hour_comes_back_the_same(rule: str) -> None:
    opens = expected_opens(Timeframe.H1, datetime(2015, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC))
    clock = BrokerClock(rule)
    assert (clock.to_utc(clock.to_server(opens)) == opens).all()
    assert (np.diff(clock.to_server(opens)) > np.timedelta64(0)).all()


def test_a_series_across_the_change_is_converted_row_by_row() -> None:
    server = np.array(["2020-03-06T23:00", "2020-03-09T00:00"], "datetime64[s]")
    assert list(BrokerClock("new_york").to_utc(server)) == list(
        np.array(["2020-03-06T21:00", "2020-03-08T21:00"], "datetime64[s]")
    )


def test_unknown_rule_says_what_exists() -> None:
    with pytest.raises(ConfigError, match="new_york"):
        BrokerClock("mars")


@pytest.mark.parametrize("rule", ["new_york", "utc", "eu", "utc+3", "utc-5"])
@pytest.mark.parametrize("timeframe", [Timeframe.M15, Timeframe.H1])
def test_detect_finds_the_rule_that_wrote_the_series(rule: str, timeframe: Timeframe) -> None:
    since, until = datetime(2019, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)
    server = BrokerClock(rule).to_server(expected_opens(timeframe, since, until))
    findings = detect(server, timeframe, claim="UTC")
    assert findings.rule == rule
    assert findings.consistent_weeks == findings.weeks >= 50
    assert findings.slips == ()
    assert findings.claim_agrees is (rule == "utc")
    if rule != "utc":
        assert "not believed" in findings.message


def test_metals_that_open_an_hour_later_are_no_slip() -> None:
    since, until = datetime(2019, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)
    opens = expected_opens(Timeframe.H1, since, until)
    first_of_week = np.r_[True, np.diff(opens) > np.timedelta64(40, "h")]
    findings = detect(BrokerClock("new_york").to_server(opens[~first_of_week]), Timeframe.H1)
    assert (findings.rule, findings.slips) == ("new_york", ())


def test_a_week_that_slips_one_hour_is_named() -> None:
    since, until = datetime(2019, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)
    server = expected_opens(Timeframe.H1, since, until).copy()
    slipped = (server >= np.datetime64("2019-06-05T12")) & (server < np.datetime64("2019-06-09"))
    server[slipped] += np.timedelta64(1, "h")
    findings = detect(server, Timeframe.H1)
    assert findings.rule == "utc"
    assert [moment.date().isoformat() for moment in findings.slips] == ["2019-06-07"]


def test_too_few_weeks_say_so_and_take_the_claim() -> None:
    since, until = datetime(2019, 1, 1, tzinfo=UTC), datetime(2019, 1, 20, tzinfo=UTC)
    server = BrokerClock("new_york").to_server(expected_opens(Timeframe.M15, since, until))
    right, unsaid = detect(server, Timeframe.M15, claim="EET, New York DST"), detect(server, Timeframe.M15)
    wrong = detect(server, Timeframe.M15, claim="UTC")
    assert (right.rule, right.claim_agrees, right.enough) == ("new_york", True, False)
    assert (wrong.rule, wrong.claim_agrees, wrong.consistent_weeks) == ("utc", False, 0)
    assert (unsaid.rule, unsaid.claim_agrees) == ("new_york", None)
    assert "Only 2 weekly opens" in wrong.message
    assert detect(server[:5], Timeframe.M15).rule == "utc"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("UTC", "utc"),
        ("UTC (weekly open Sun 21:00 summer / 22:00 winter)", "utc"),
        ("EET-like GMT+2/+3, New-York (US) DST", "new_york"),
        ("EET", "eu"),
        ("GMT+3", "utc+3"),
        ("", None),
        ("the broker's", None),
    ],
)
def test_claims_are_read(text: str, rule: str | None) -> None:
    assert rule_of_claim(text) == rule


@pytest.mark.parametrize(
    ("name", "rule"),
    [("GBPUSD_H1", "new_york"), ("XAUUSD_H1", "new_york"), ("EURUSD_H4", "new_york"), ("EURUSD_H1", "utc")],
)
def test_recorded_feeds(recorded_bars: Path, name: str, rule: str) -> None:
    times = pyarrow.parquet.read_table(recorded_bars / f"{name}.parquet", columns=["time"])["time"].to_numpy()
    findings = detect(times, Timeframe.parse(name.split("_")[1]), claim="UTC")
    assert findings.rule == rule
    assert findings.consistent_weeks >= 0.95 * findings.weeks
