"""The widths of the served intervals, learned from the ledger's outcomes: tuning.adaptive_calibration, fed live.

All of its state is a fold over the ledger's outcomes in the order in which they became known. Each recorded forecast says
what had been learned by then, so a new life goes on from there and says the same. Knows neither models nor Ray.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import exp
from typing import Any

from actors.ledger_reading import Settled
from market.forecasts import HorizonForecast, LearnedWidths
from tuning.adaptive_calibration import WidthTracker, in_levels, rate_of

Series = tuple[str, str, int]  # symbol, timeframe, horizon in bars


class LiveCalibration:
    """One tracker per symbol, timeframe and horizon, over all models that served: a refit does not forget the market."""

    def __init__(self) -> None:
        self._learned: dict[Series, int] = {}  # the newest outcome
        self._trackers: dict[Series, WidthTracker] = {}

    def resume(self, timeframe: str, newest: Mapping[str, Mapping[str, Any]]) -> int:
        """Go on from the newest recorded forecasts (symbol -> body); the outcome after which to go on learning."""
        after = []
        for symbol, forecast in newest.items():
            for horizon in forecast["horizons"]:
                widths = horizon.get("widths") or {"log_width": (), "outcome": 0}
                series = (symbol, timeframe, horizon["bars"])
                self._learned[series] = widths["outcome"]
                if widths["outcome"]:
                    self._tracker(series).log_width = list(widths["log_width"])
                after.append(widths["outcome"])
        return min(after, default=0)

    def learn(self, timeframe: str, rows: Iterable[Settled]) -> None:
        """From the next outcomes, in the order of `seq`; those that a series knows already teach it nothing."""
        for row in rows:
            series = (row.symbol, timeframe, row.horizon["bars"])
            own = in_levels(row.horizon.get("model_quantiles") or row.horizon.get("quantiles"))
            if own is not None and row.seq > self._learned.get(series, 0):
                self._tracker(series).learn(own, row.outcome["return"])
                self._learned[series] = row.seq

    def _tracker(self, series: Series) -> WidthTracker:
        return self._trackers.setdefault(series, WidthTracker(rate_of(series[2])))

    def adapt(
        self, symbol: str, timeframe: str, last_close: float, made: HorizonForecast, seen: int
    ) -> HorizonForecast:
        """The forecast with today's widths, the model's own quantiles kept beside them; `seen`: the newest outcome."""
        own = in_levels(made.quantiles)
        if own is None or made.quantiles is None:
            return made
        tracker = self._tracker((symbol, timeframe, made.bars))
        widths, adapted = LearnedWidths(tuple(tracker.log_width), seen), tracker.adapt(own)
        if adapted == own:
            return replace(made, widths=widths)
        quantiles = dict(zip(sorted(made.quantiles, key=float), adapted, strict=True))
        prices = made.price_quantiles and {level: last_close * exp(value) for level, value in quantiles.items()}
        return replace(made, quantiles=quantiles, price_quantiles=prices, model_quantiles=made.quantiles, widths=widths)
