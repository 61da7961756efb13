"""When a champion's live record asks for a retrain."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from actors.drift_watch import DriftWatch
from actors.ledger_reading import Settled
from tests.actors.test_forecaster import version
from tuning.drift import RECENT_BARS, VOLATILITY_LIMIT

VERSION = replace(version("h1-0123456789ab"), symbols=("EURUSD",), horizons=(1, 24), timeframe="H1")
NOW = datetime(2024, 3, 5, tzinfo=UTC)


def rows(ratio: float, count: int, first: int = 1) -> list[Settled]:
    """`count` outcomes whose volatility was `ratio` times the forecast one."""
    horizon: dict[str, Any] = {"bars": 24, "volatility": 0.01}
    outcome = {"volatility": 0.01 * ratio}
    return [Settled(first + k, "EURUSD", NOW, NOW, VERSION.id, horizon, outcome) for k in range(count)]


class Record:
    def __init__(self, settled: list[Settled]) -> None:
        self.settled = settled

    def read(self, timeframe: str, after: int) -> list[Settled]:
        return [row for row in self.settled if row.seq > after][:100]


@pytest.mark.parametrize(("ratio", "asks"), [(1.0, False), (1.1, False), (3.0, True), (0.3, True)])
def test_realised_against_forecast_volatility(ratio: float, asks: bool) -> None:
    reason = DriftWatch(Record(rows(ratio, RECENT_BARS)).read).reason(VERSION, [])
    assert bool(reason) is asks
    assert not asks or f"{ratio**2:.2f} times" in reason


def test_a_short_record_says_nothing_and_an_old_one_is_forgotten() -> None:
    record = Record(rows(3.0, RECENT_BARS - 1))
    watch = DriftWatch(record.read)
    assert watch.reason(VERSION, []) == ""
    record.settled += rows(1.0, RECENT_BARS, first=RECENT_BARS)
    assert watch.reason(VERSION, []) == ""
    record.settled += rows(3.0, RECENT_BARS, first=2 * RECENT_BARS)
    assert "9.00 times" in watch.reason(VERSION, [])
    assert 0.0 < VOLATILITY_LIMIT < 2.0


def test_the_live_judge_is_listened_to() -> None:
    verdict = {"target": "rv24", "metric": "qlike", "baseline": "har_how", "worse": True}
    watch = DriftWatch(Record([]).read)
    assert watch.reason(VERSION, [verdict | {"worse": False}]) == ""
    assert watch.reason(VERSION, [verdict]) == "H1: live qlike of rv24 worse than har_how"
