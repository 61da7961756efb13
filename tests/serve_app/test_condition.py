"""Every bad state has its code and its reason, and none of them is a side to take."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from market.forecasts import iso_utc
from market.market_clock import add_open_time, holiday_at, is_open
from serve_app.board import SILENCE_SECONDS, Board
from tests.serve_app.made_board import NOON, MadeMarket, SetClock, random_walk

FRIDAY = datetime(2026, 3, 6, 22, tzinfo=UTC)  # the last close of a week in winter
SUNDAY = datetime(2026, 3, 8, 21, tzinfo=UTC)  # DST has begun
CHRISTMAS_EVE = datetime(2025, 12, 24, 18, tzinfo=UTC)  # 13:00 New York
AWAY = {"connected": False, "reason": "The mt5 node is down."}
REFUSED = {"code": "data_refused", "reason": "The source's newest bar was refused (price_jump) and is in quarantine."}
UNKNOWN = {"code": "model_missing", "reason": "h1-b was not trained on GBPUSD: run `lstmc train`."}
SIDE = "GBPUSD/H1"  # whose made-up signal is a side


class Desk:
    """A board whose two clocks a test moves."""

    def __init__(self, as_of: datetime = NOON, seconds: float = 20) -> None:
        self.market, self.clock, self.wall = MadeMarket(as_of=as_of), SetClock(as_of + timedelta(seconds=seconds)), 1e9
        self.board = Board(self.clock.now, self.market.symbols, ("H1", "M15"), wall=lambda: self.wall)
        self.board.apply(self.market.update())

    def says(self, key: str = SIDE) -> tuple[str, bool, str]:
        answer = self.board.forecast(key)
        assert answer is not None
        body = json.loads(answer.body)
        signal = self.board.signal_fields(key)
        assert signal is not None
        assert bool(body["reason"]) == bool(body["reason_code"])
        assert (body["next_open"] is None) == body["market_open"]
        return body["reason_code"], body["stale"], f"{signal['side']} {signal['reason_code']}".strip()

    def reason(self, key: str = SIDE) -> str:
        answer = self.board.forecast(key)
        assert answer is not None
        return str(json.loads(answer.body)["reason"])


def test_all_is_well() -> None:
    assert Desk().says() == ("", False, "buy")


def test_a_late_bar() -> None:
    desk = Desk()
    desk.clock.advance(hours=2)
    assert desk.says() == ("late_bar", True, "none stale")


def test_a_source_that_is_away_is_said_before_a_bar_is_late() -> None:
    desk = Desk()
    desk.board.apply(desk.market.update(source=AWAY))
    assert desk.says() == ("source_away", False, "none stale")
    desk.clock.advance(hours=2)
    assert desk.says() == ("source_away", True, "none stale")
    assert "No bar has closed since" in desk.reason()
    assert "The mt5 node is down." in desk.reason()


def test_a_weekend_is_not_stale_and_says_when_it_ends() -> None:
    desk = Desk(FRIDAY, -20)
    assert desk.says() == ("", False, "buy")
    desk.clock.advance(seconds=20)
    assert desk.says() == ("market_closed", False, "none market_closed")
    desk.clock.moment = SUNDAY - timedelta(seconds=1)
    assert desk.says() == ("market_closed", False, "none market_closed")
    assert desk.reason() == "The market is closed; it opens at 2026-03-08T21:00:00Z."
    desk.clock.moment = SUNDAY
    assert desk.says() == ("", False, "buy")
    desk.clock.advance(hours=1, minutes=2)
    assert desk.says() == ("late_bar", True, "none stale")


def test_what_was_stale_before_the_weekend_is_stale_in_it() -> None:
    desk = Desk(FRIDAY - timedelta(hours=5))
    desk.clock.moment = FRIDAY + timedelta(hours=1)
    assert desk.says() == ("late_bar", True, "none stale")
    assert "it opens at 2026-03-08T21:00:00Z" in desk.reason()


def test_a_holiday_is_believed_when_nothing_trades() -> None:
    desk = Desk(CHRISTMAS_EVE)
    desk.clock.advance(hours=10)
    desk.board.tick()
    assert desk.says() == ("market_closed", False, "none market_closed")
    assert desk.reason() == "The market is closed; it opens at 2025-12-26T08:00:00Z."
    desk.board.apply(desk.market.update(source=AWAY))
    assert desk.says() == ("source_away", True, "none stale"), "nobody can tell that nothing trades"
    desk.clock.moment = datetime(2025, 12, 26, 8, tzinfo=UTC)
    desk.board.apply(desk.market.update())
    assert desk.says() == ("late_bar", True, "none stale")


def test_a_holiday_in_which_others_trade_is_none() -> None:
    desk = Desk(CHRISTMAS_EVE)
    newer = desk.market.close_a_bar()
    for key in (SIDE, "USDJPY/H1"):
        newer.forecasts.pop(key), newer.signals.pop(key)
    desk.board.apply(newer)
    desk.clock.moment = CHRISTMAS_EVE + timedelta(hours=1, minutes=30)
    desk.board.tick()
    assert desk.says() == ("late_bar", True, "none stale")
    assert desk.says("EURUSD/H1")[:2] == ("", False)


def test_one_series_of_which_bars_are_refused_and_one_without_a_model() -> None:
    desk = Desk()
    desk.board.apply(desk.market.update(series={SIDE: REFUSED}))
    assert desk.says() == ("data_refused", False, "none stale")
    assert desk.reason() == REFUSED["reason"]
    assert desk.says("EURUSD/H1")[:2] == ("", False)
    desk.board.apply(desk.market.update(series={SIDE: UNKNOWN}))
    assert desk.says() == ("model_missing", False, "none no_model")
    assert desk.board.conditions == {SIDE: "model_missing"} | {f"{s}/M15": "model_missing" for s in desk.market.symbols}


def test_a_forecaster_that_has_gone_silent() -> None:
    desk = Desk()
    desk.wall += 1e6
    assert desk.says()[0] == "", "nobody follows it here"
    desk.board.heard()
    desk.wall += SILENCE_SECONDS
    assert desk.says()[0] == ""
    desk.wall += 1
    assert desk.says() == ("forecaster_away", False, "none stale")
    first = desk.board.forecast(SIDE)
    desk.wall += 60
    later = desk.board.forecast(SIDE)
    assert first is not None
    assert later is not None
    assert first.etag == later.etag
    assert desk.board.why_missing("EURUSD", "M15")[0] == "forecaster_away"
    desk.board.heard()
    assert desk.says() == ("", False, "buy")


def test_what_is_missing_has_a_code() -> None:
    desk = Desk()
    update = desk.market.update(series={SIDE: REFUSED})
    desk.board = Board(desk.clock.now, desk.market.symbols, ("H1", "M15"))
    assert desk.board.missing("H1", ["EURUSD"])["missing_codes"] == {"EURUSD": "forecaster_away"}
    for key in (SIDE, "USDJPY/H1"):
        update.forecasts.pop(key)
    desk.board.apply(update)
    answer = json.loads(desk.board.forecasts("H1", desk.market.symbols).body)
    assert answer["missing_codes"] == {"GBPUSD": "data_refused", "USDJPY": "forecast_failed"}
    assert answer["missing"]["GBPUSD"] == REFUSED["reason"]
    assert desk.board.missing("M15", ["EURUSD"])["missing_codes"] == {"EURUSD": "model_missing"}


SOURCES = st.sampled_from(
    [{"connected": True, "reason": ""}, AWAY, {}, {"connected": True, "reason": "played to its end"}]
)
SERIES = st.sampled_from([{}, {SIDE: REFUSED}, {SIDE: UNKNOWN}, {SIDE: {"code": "forecast_failed", "reason": "died"}}])
AS_OF = st.integers(0, 24 * 400).map(lambda hours: NOON + timedelta(hours=hours)).filter(lambda at: is_open(at))


ONE = MadeMarket(symbols=("GBPUSD",), bars={"GBPUSD": random_walk("GBPUSD", NOON, 1)})
UPDATE = ONE.update()  # made once: it is the judging that is tried here


@settings(max_examples=200, deadline=None)
@given(
    as_of=AS_OF, since=st.one_of(st.integers(0, 7200), st.integers(0, 10**6)), silence=st.integers(0, 100),
    flagged=st.booleans(), source=SOURCES, series=SERIES,
)  # fmt: skip
def test_a_side_is_given_only_while_all_is_well(
    as_of: datetime, since: int, silence: int, flagged: bool, source: dict[str, Any], series: dict[str, Any]
) -> None:
    now, wall = as_of + timedelta(seconds=since), 1e9
    clocks = [as_of, wall]
    board = Board(lambda: clocks[0], ("GBPUSD",), ("H1",), wall=lambda: clocks[1])
    forecast = UPDATE.forecasts[SIDE] | {"as_of": iso_utc(as_of), "stale": flagged}
    status = UPDATE.status | {"source": source, "series": series}
    board.heard()
    board.apply(replace(UPDATE, forecasts={SIDE: forecast}, status=status))
    clocks[:] = now, wall + silence
    answer, signal = board.forecast(SIDE), board.signal_fields(SIDE)
    assert answer is not None
    assert signal is not None
    fields = json.loads(answer.body)
    overdue = now > add_open_time(as_of, timedelta(hours=1)) + timedelta(seconds=75)
    well = not (overdue or flagged or series or silence > SILENCE_SECONDS) and is_open(now) and source != AWAY
    assert signal["side"] == ("buy" if well else "none")
    assert (fields["reason_code"] == "") == (fields["reason"] == "") == (signal["reason_code"] == "") == well
    if holiday_at(now) is None:
        assert fields["stale"] == (flagged or overdue)
        assert fields["market_open"] == is_open(now)
