"""Errors, timeframes, symbols, forecasts: the words all rooms share."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from market.errors import ConfigError, InputError, LstmcError, TerminalError, UnknownSymbol, UnknownTimeframe
from market.forecasts import Side, Signal, SkillCard, iso_utc, jsonable, parse_utc
from market.symbols import CATALOGUE, MAJORS, from_broker, symbol, symbols
from market.timeframes import Timeframe


@pytest.mark.parametrize(("text", "expected"), [("H1", Timeframe.H1), (" m15 ", Timeframe.M15), ("d1", Timeframe.D1)])
def test_a_timeframe_is_parsed_in_any_case(text: str, expected: Timeframe) -> None:
    assert Timeframe.parse(text) is expected


def test_an_unknown_timeframe_names_the_known_ones() -> None:
    with pytest.raises(UnknownTimeframe, match="M1, M5, M15, M30, H1, H4, D1"):
        Timeframe.parse("H2")


def test_metatrader_codes_carry_their_unit_bits() -> None:
    assert [t.mt5_code for t in Timeframe] == [1, 5, 15, 30, 0x4001, 0x4004, 0x4018]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("EURUSD", "EURUSD"),
        ("EURUSD.a", "EURUSD"),
        ("eurusdm", "EURUSD"),
        ("#XAUUSD", "XAUUSD"),
        ("GBPJPY_raw", "GBPJPY"),
    ],
)
def test_a_broker_spelling_finds_its_symbol(name: str, code: str) -> None:
    found = from_broker(name)
    assert found is not None
    assert found.code == code


@pytest.mark.parametrize("name", ["US500", "BTCUSD", "EUR", "", "EURUSD;DROP"])
def test_a_foreign_instrument_is_none_of_ours(name: str) -> None:
    assert from_broker(name) is None


def test_the_catalogue_is_consistent() -> None:
    assert len([c for c in CATALOGUE if not c.startswith("X")]) == 28
    assert set(MAJORS) <= set(CATALOGUE)
    assert symbol("usdjpy").digits == 3
    assert symbol("EURUSD").point == 1e-05
    assert [s.code for s in symbols(["EURUSD", "eurusd", "GBPUSD"])] == ["EURUSD", "GBPUSD"]
    with pytest.raises(UnknownSymbol, match="Known symbols: EURUSD"):
        symbol("EURUS")


def test_errors_survive_the_way_between_processes() -> None:
    error = TerminalError(-10004, "No IPC connection", hint="Start the terminal.")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - what Ray does with an exception
    assert (type(copy), copy.code, copy.text, copy.hint, str(copy)) == (
        TerminalError,
        -10004,
        "No IPC connection",
        "Start the terminal.",
        "MetaTrader answered -10004 (No IPC connection). Start the terminal.",
    )


def test_exit_codes_tell_the_kinds_of_errors_apart() -> None:
    assert (ConfigError.exit_code, InputError.exit_code, LstmcError.exit_code) == (2, 2, 1)


def test_times_are_written_as_utc_with_z() -> None:
    moment = datetime(2020, 3, 3, 12, tzinfo=UTC)
    assert iso_utc(moment) == "2020-03-03T12:00:00Z"
    assert parse_utc("2020-03-03T12:00:00Z") == moment


def test_a_missing_number_is_null_and_an_enum_its_value() -> None:
    card = SkillCard("rv24", "qlike", "har_how", float("nan"), None, 0, reason="too few bars")
    assert jsonable(card.to_dict())["value"] is None
    moment = datetime(2020, 3, 3, 12, tzinfo=UTC)
    signal = Signal("EURUSD", "H1", moment, Side.NONE, 24, None, None, None, "no edge found", "h1-0")
    assert signal.to_dict()["side"] == "none"
    assert signal.to_dict()["as_of"] == "2020-03-03T12:00:00Z"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_does_not_know_is_null(number: float) -> None:
    assert jsonable({"x": [number, 1.0]}) == {"x": [None, 1.0]}


@pytest.mark.parametrize(
    ("number", "plain"), [(np.float64(0.5), 0.5), (np.float32(0.5), 0.5), (np.int64(3), 3), (np.bool_(True), True)]
)
def test_a_number_of_numpy_is_a_plain_one(number: Any, plain: Any) -> None:
    [found] = jsonable([number])
    assert type(found) is type(plain)
    assert found == plain
