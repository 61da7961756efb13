"""Where the clock starts: at the wall, at the last stored bar, or inside a recording."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cluster.market_start import start_market
from configs.settings import Settings, make_settings
from market.bar_files import folder_contents
from market.errors import BadBars, BadTime, ConfigError

WALL = datetime(2026, 11, 25, 12, 0, 0, 700_000, tzinfo=UTC).timestamp()  # a Wednesday
Span = tuple[datetime, datetime]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


LONG: Span = (at("2012-11-16"), at("2020-03-04 22:00"))
CONTENTS: dict[tuple[str, str], Span] = {
    ("AUDUSD", "H1"): LONG,
    ("GBPUSD", "H1"): LONG,
    ("USDJPY", "H1"): (at("2012-11-17"), at("2020-03-04 21:00")),
    ("EURUSD", "H1"): (at("2017-04-19"), at("2018-02-07 16:00")),
    ("GBPUSD", "M15"): (at("2012-02-01"), at("2012-03-01")),
}


def recorded(tmp_path: Path, **given: Any) -> Settings:
    return make_settings(home=tmp_path, market="recorded", bars_dir=tmp_path, **{"speed": 600} | given)


def test_the_first_simulated_clock_starts_at_the_wall(tmp_path: Path) -> None:
    clock = start_market(make_settings(home=tmp_path, speed=60), wall=WALL, last_closes={}).settings.market_clock
    assert clock.now(WALL).replace(microsecond=0) == at("2026-11-25 12:00:42")
    assert clock.now(int(WALL)) == at("2026-11-25 12:00:00")


def test_at_speed_one_it_is_real_time(tmp_path: Path) -> None:
    clock = start_market(make_settings(home=tmp_path, speed=1), wall=WALL, last_closes={}).settings.market_clock
    assert clock.is_real


def test_a_second_start_goes_on_from_the_newest_stored_bar(tmp_path: Path) -> None:
    closes = {"EURUSD/H1": at("2026-12-01 05:00"), "GBPUSD/H1": at("2026-12-01 06:00")}
    clock = start_market(make_settings(home=tmp_path), wall=WALL, last_closes=closes).settings.market_clock
    assert clock.now(int(WALL)) == at("2026-12-01 06:00")


def test_a_live_market_has_the_real_clock(tmp_path: Path) -> None:
    settings = make_settings("production", home=tmp_path)
    assert start_market(settings, wall=WALL, last_closes={"EURUSD/H1": LONG[1]}).settings.market_clock.is_real


def test_recorded_bars_start_a_month_before_their_common_end(tmp_path: Path) -> None:
    start = start_market(recorded(tmp_path), wall=WALL, last_closes={}, contents=CONTENTS)
    assert start.settings.symbols == ("AUDUSD", "GBPUSD", "USDJPY")
    assert start.settings.market_clock.now(WALL) == at("2020-03-04 21:00") - timedelta(days=30)
    assert start.settings.market_clock.now(WALL + 1e4) > LONG[1], "time goes on after the end: forecasts turn stale"
    assert start.notes == ("EURUSD is left out: it has no H1 bars at 2020-02-03T21:00:00Z.",)


def test_all_the_history_before_the_start_is_loaded(tmp_path: Path) -> None:
    settings = start_market(recorded(tmp_path), wall=WALL, last_closes={}, contents=CONTENTS).settings
    assert settings.market_clock.now(WALL) - timedelta(days=settings.history_days) <= LONG[0]


def test_recorded_bars_go_on_where_they_stopped(tmp_path: Path) -> None:
    start = start_market(recorded(tmp_path), wall=WALL, last_closes={"x": at("2020-02-20 10:00")}, contents=CONTENTS)
    assert start.settings.market_clock.now(WALL) == at("2020-02-20 10:00")


def test_a_recording_that_was_played_to_its_end_says_so(tmp_path: Path) -> None:
    start = start_market(recorded(tmp_path), wall=WALL, last_closes={"x": LONG[1]}, contents=CONTENTS)
    assert "played to their end" in start.notes[-1]


def test_a_given_start_is_taken(tmp_path: Path) -> None:
    start = start_market(recorded(tmp_path, start="2018-01-10"), wall=WALL, last_closes={}, contents=CONTENTS)
    assert start.settings.market_clock.now(WALL) == at("2018-01-10")
    assert "EURUSD" in start.settings.symbols


def test_a_short_recording_keeps_a_fifth_to_play(tmp_path: Path) -> None:
    start = start_market(recorded(tmp_path, timeframes="M15"), wall=WALL, last_closes={}, contents=CONTENTS)
    assert start.settings.market_clock.now(WALL) == at("2012-03-01") - timedelta(days=29) * 0.2


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"timeframes": "D1"}, BadBars, "no bars of timeframe D1"),
        ({"symbols": "NZDUSD"}, BadBars, "no bars of timeframe H1"),
        ({"start": "last spring"}, BadTime, "is not a time"),
        ({"start": "2025-01-01"}, ConfigError, "No symbol"),
    ],
)
def test_a_folder_that_cannot_be_played(tmp_path: Path, given: dict[str, Any], error: type, says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        start_market(
            recorded(tmp_path, **given), wall=WALL, last_closes={}, contents=CONTENTS, symbols_given="symbols" in given
        )
    assert caught.value.hint


def test_the_development_recordings(tmp_path: Path, recorded_bars: Path) -> None:
    settings = make_settings(home=tmp_path, market="recorded", bars_dir=recorded_bars, timeframes="H1", speed=600)
    start = start_market(settings, wall=WALL, last_closes={}, contents=folder_contents(recorded_bars))
    assert start.settings.symbols == ("AUDUSD", "EURGBP", "GBPUSD", "USDCAD", "USDCHF", "USDJPY", "XAUUSD")
    assert start.settings.market_clock.now(WALL) == at("2020-02-03 22:00")
