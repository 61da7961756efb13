"""From a forecast to buy, sell or none. None is the default: a direction must have passed its gate and beat its costs.

Knows neither models nor prices beyond the last close; sizes nothing.
"""

from __future__ import annotations

from datetime import UTC
from math import pi, sqrt
from typing import Any

import numpy as np

from market.forecasts import Forecast, HorizonForecast, Side, Signal
from market.symbols import symbol as symbol_of
from tuning.series import is_rollover

BASIS_POINTS = 1e4
ROLLOVER = "the next bar opens in the rollover hours (14:00-18:59 New York): quotes move there that nobody can trade at"


def make_signal(
    forecast: Forecast, gate: dict[str, Any], spread_points: float | None, *, barred: tuple[str, str] = ("", "")
) -> Signal:
    """The strongest horizon's signal. `gate`: target -> {"promoted", "why"}, `spread_points`: cost of a round trip,
    `barred`: code and reason for which no side may be given now.

    Expected return of a horizon, from its probability and volatility: (2 p_up - 1) * volatility * sqrt(2 / pi), the mean
    absolute move of a normal return; the edge is its size net of the spread.
    """
    spread = _spread_bp(forecast, spread_points)
    bars = forecast.horizons[0].bars if forecast.horizons else 1
    passed = [h for h in forecast.horizons if _verdict(gate, h).get("promoted")]
    if barred[0]:
        return _signal(forecast, bars, spread, code=barred[0], reason=barred[1])
    if not passed:
        return _signal(forecast, bars, spread, code="no_gate", reason=_no_edge(forecast, gate))
    if is_rollover(np.array([forecast.as_of.astimezone(UTC).replace(tzinfo=None)], "datetime64[us]"))[0]:
        return _signal(forecast, bars, spread, code="rollover", reason=ROLLOVER)
    return max(
        (_judge(forecast, horizon, spread) for horizon in passed), key=lambda s: s.expected_edge_bp or float("-inf")
    )


def _verdict(gate: dict[str, Any], horizon: HorizonForecast) -> dict[str, Any]:
    return gate.get(f"sign{horizon.bars}") or {}


def _no_edge(forecast: Forecast, gate: dict[str, Any]) -> str:
    reasons = [why for h in forecast.horizons if (why := str(_verdict(gate, h).get("why") or ""))]
    return f"no edge found: {' '.join(reasons) or 'no direction model has been tested yet'}"


def _judge(forecast: Forecast, horizon: HorizonForecast, spread: float | None) -> Signal:
    if horizon.p_up is None or horizon.volatility is None:
        reason = f"no edge found: {horizon.reason or 'no probability'}"
        return _signal(forecast, horizon.bars, spread, code="no_model", reason=reason)
    if spread is None:
        reason = "no edge found: the spread is unknown"
        return _signal(forecast, horizon.bars, None, code="edge_below_spread", reason=reason)
    tilt = 2 * horizon.p_up - 1
    expected = abs(tilt) * horizon.volatility * sqrt(2 / pi) * BASIS_POINTS
    edge, confidence = expected - spread, max(horizon.p_up, 1 - horizon.p_up)
    side, code = Side.NONE, "edge_below_spread"
    reason = f"no edge found: {expected:.2f} bp expected against a spread of {spread:.2f} bp"
    if edge > 0:
        side, code = Side.BUY if tilt > 0 else Side.SELL, ""
        reason = f"{expected:.2f} bp expected against a spread of {spread:.2f} bp, direction gate passed"
    return _signal(
        forecast, horizon.bars, spread, side=side, edge=edge, confidence=confidence, code=code, reason=reason
    )


def _signal(
    forecast: Forecast,
    bars: int,
    spread: float | None,
    *,
    side: Side = Side.NONE,
    edge: float | None = None,
    confidence: float | None = None,
    code: str,
    reason: str,
) -> Signal:
    return Signal(
        symbol=forecast.symbol,
        timeframe=forecast.timeframe,
        as_of=forecast.as_of,
        side=side,
        horizon_bars=bars,
        expected_edge_bp=edge,
        spread_bp=spread,
        confidence=confidence,
        reason=reason,
        model_id=forecast.model_id,
        reason_code=code,
    )


def _spread_bp(forecast: Forecast, spread_points: float | None) -> float | None:
    if spread_points is None or not forecast.last_close:
        return None
    return spread_points * symbol_of(forecast.symbol).point / forecast.last_close * BASIS_POINTS
