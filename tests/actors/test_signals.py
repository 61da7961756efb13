"""A signal needs a passed gate and an edge beyond the spread; everything else is `none` with a reason."""

from __future__ import annotations

from datetime import UTC, datetime
from math import pi, sqrt
from typing import Any

import pytest

from actors.signals import ROLLOVER, make_signal
from market.forecasts import Forecast, HorizonForecast, Side

AS_OF = datetime(2024, 3, 4, 10, tzinfo=UTC)
NOTHING = ("", "")
PASSED = {"sign1": {"promoted": True, "why": "passed"}}


def forecast(p_up: float | None = 0.6, as_of: datetime = AS_OF) -> Forecast:
    horizon = HorizonForecast(1, as_of, 0.002, 1.0, None, None, p_up)
    return Forecast("EURUSD", "H1", as_of, 1.0, (horizon,), "h1-0", "bars@1", as_of, "simulated")


def test_buy_when_the_gate_passed_and_the_edge_beats_the_spread() -> None:
    signal = make_signal(forecast(), PASSED, spread_points=10)  # 10 points of 1e-5 on 1.0: 1 bp
    expected = 0.2 * 0.002 * sqrt(2 / pi) * 1e4
    assert (signal.side, signal.reason_code) == (Side.BUY, "")
    assert signal.spread_bp == pytest.approx(1.0)
    assert signal.expected_edge_bp == pytest.approx(expected - 1.0)
    assert signal.confidence == pytest.approx(0.6)


def test_sell_mirrors_buy() -> None:
    buy, sell = (make_signal(forecast(p), PASSED, spread_points=10) for p in (0.6, 0.4))
    assert sell.side is Side.SELL
    assert sell.expected_edge_bp == pytest.approx(buy.expected_edge_bp)


@pytest.mark.parametrize(
    ("given", "gate", "spread", "barred", "code", "reason"),
    [
        ({}, {}, 10, NOTHING, "no_gate", "no edge found: no direction model has been tested yet"),
        (
            {},
            {"sign1": {"promoted": False, "why": "log-loss is no better."}},
            10,
            NOTHING,
            "no_gate",
            "no edge found: log-loss is no better.",
        ),
        ({}, PASSED, 40, NOTHING, "edge_below_spread", "no edge found: 3.19 bp expected against a spread of 4.00 bp"),
        ({}, PASSED, None, NOTHING, "edge_below_spread", "no edge found: the spread is unknown"),
        ({"p_up": None}, PASSED, 10, NOTHING, "no_model", "no edge found: no probability"),
        ({}, PASSED, 10, ("stale", "the data is stale"), "stale", "the data is stale"),
        ({"as_of": AS_OF.replace(hour=21)}, PASSED, 10, NOTHING, "rollover", ROLLOVER),  # 16:00 New York
    ],
)
def test_none_says_why(
    given: dict[str, Any], gate: dict[str, Any], spread: float | None, barred: tuple[str, str], code: str, reason: str
) -> None:
    signal = make_signal(forecast(**given), gate, spread, barred=barred)
    assert signal.side is Side.NONE
    assert (signal.reason_code, signal.reason) == (code, reason)


def test_a_yen_point_is_a_thousandth() -> None:
    horizon = HorizonForecast(1, AS_OF, 0.002, 1.0, None, None, 0.6)
    yen = Forecast("USDJPY", "H1", AS_OF, 150.0, (horizon,), "h1-0", "bars@1", AS_OF, "simulated")
    assert make_signal(yen, PASSED, spread_points=15).spread_bp == pytest.approx(15 * 0.001 / 150 * 1e4)
