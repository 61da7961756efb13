"""The widths of the served intervals, learned from the ledger's outcomes: tuning.adaptive_calibration, fed live.

All of its state is a fold over the ledger's outcomes in the order in which they became known: a new life reads them again
and says the same. Knows neither models nor Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import exp

from actors.prediction_ledger import Settled
from market.forecasts import HorizonForecast
from tuning.adaptive_calibration import WidthTracker, in_levels, rate_of

ReadSettled = Callable[[str, int], Sequence[Settled]]  # timeframe, `seq` after which -> the next rows; none: no more
Series = tuple[str, str, int]  # symbol, timeframe, horizon in bars


class LiveCalibration:
    """One tracker per symbol, timeframe and horizon, over all models that served: a refit does not forget the market."""

    def __init__(self, read: ReadSettled) -> None:
        self._read = read
        self._seen: dict[str, int] = {}
        self._trackers: dict[Series, WidthTracker] = {}

    def catch_up(self, timeframe: str) -> int:
        """Learn from every outcome that is new; returns how many. `read` may raise: the next call goes on from there."""
        learned = 0
        while rows := self._read(timeframe, self._seen.get(timeframe, 0)):
            for row in rows:
                self._learn(timeframe, row)
                self._seen[timeframe] = row.seq
            learned += len(rows)
        return learned

    def _learn(self, timeframe: str, row: Settled) -> None:
        own = in_levels(row.horizon.get("model_quantiles") or row.horizon.get("quantiles"))
        if own is not None:
            self._tracker((row.symbol, timeframe, row.horizon["bars"])).learn(own, row.outcome["return"])

    def _tracker(self, series: Series) -> WidthTracker:
        return self._trackers.setdefault(series, WidthTracker(rate_of(series[2])))

    def adapt(self, symbol: str, timeframe: str, last_close: float, made: HorizonForecast) -> HorizonForecast:
        """The forecast with today's widths, the model's own quantiles kept beside them; as it is when none was learned."""
        own = in_levels(made.quantiles)
        if own is None or made.quantiles is None:
            return made
        adapted = self._tracker((symbol, timeframe, made.bars)).adapt(own)
        if adapted == own:
            return made
        quantiles = dict(zip(sorted(made.quantiles, key=float), adapted, strict=True))
        prices = made.price_quantiles and {level: last_close * exp(value) for level, value in quantiles.items()}
        return replace(made, quantiles=quantiles, price_quantiles=prices, model_quantiles=made.quantiles)
