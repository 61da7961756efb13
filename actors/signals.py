"""From a forecast to buy, sell or none. None is the default: a direction must have passed its gate and beat its costs.

Knows neither models nor prices beyond the last close; sizes nothing.
"""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

from market.forecasts import Forecast, HorizonForecast, Side, Signal
from market.symbols import symbol as symbol_of

BASIS_POINTS = 1e4


def make_signal(
    forecast: Forecast, gate: dict[str, Any], spread_points: float | None, *, why_stale: str = ""
) -> Signal:
    """The strongest horizon's signal. `gate`: target -> {"promoted", "why"}, `spread_points`: cost of a round trip.

    Expected return of a horizon, from its probability and volatility: (2 p_up - 1) * volatility * sqrt(2 / pi), the mean
    absolute move of a normal return; the edge is its size net of the spread.
    """
    spread = _spread_bp(forecast, spread_points)
    if why_stale:
        return _signal(forecast, forecast.horizons[0].bars if forecast.horizons else 1, spread, reason=why_stale)
    passed = [h for h in forecast.horizons if _verdict(gate, h).get("promoted")]
    if not passed:
        return _signal(
            forecast, forecast.horizons[0].bars if forecast.horizons else 1, spread, reason=_no_edge(forecast, gate)
        )
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
        return _signal(forecast, horizon.bars, spread, reason=f"no edge found: {horizon.reason or 'no probability'}")
    if spread is None:
        return _signal(forecast, horizon.bars, None, reason="no edge found: the spread is unknown")
    tilt = 2 * horizon.p_up - 1
    expected = abs(tilt) * horizon.volatility * sqrt(2 / pi) * BASIS_POINTS
    edge, confidence = expected - spread, max(horizon.p_up, 1 - horizon.p_up)
    if edge <= 0:
        reason = f"no edge found: {expected:.2f} bp expected against a spread of {spread:.2f} bp"
        return _signal(forecast, horizon.bars, spread, edge=edge, confidence=confidence, reason=reason)
    side = Side.BUY if tilt > 0 else Side.SELL
    reason = f"{expected:.2f} bp expected against a spread of {spread:.2f} bp, direction gate passed"
    return _signal(forecast, horizon.bars, spread, side=side, edge=edge, confidence=confidence, reason=reason)


def _signal(
    forecast: Forecast,
    bars: int,
    spread: float | None,
    *,
    side: Side = Side.NONE,
    edge: float | None = None,
    confidence: float | None = None,
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
    )


def _spread_bp(forecast: Forecast, spread_points: float | None) -> float | None:
    if spread_points is None or not forecast.last_close:
        return None
    return spread_points * symbol_of(forecast.symbol).point / forecast.last_close * BASIS_POINTS
