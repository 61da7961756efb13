"""The meeting point of learning and judging: what every family forecast, out of sample, beside what then happened.

`cross_validate` fills it; stacking, calibration, the gate and the report read it. No fitting here.

Rows are (symbol, as-of close) pairs, pooled over symbols, sorted by time then symbol. Only rows that some outer test fold
holds appear. `h` is a horizon in bars. NaN means "not available", never 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


@dataclass
class FamilyForecasts:
    """One family's out-of-fold forecasts. Volatility families leave `p_up` empty and the other way round.

    log_rv[h]: log of the forecast realised variance over (t, t+h], float [n].
    p_up[h]:   probability that close[t+h] > close[t], float [n].
    """

    log_rv: dict[int, np.ndarray] = field(default_factory=dict)
    p_up: dict[int, np.ndarray] = field(default_factory=dict)


@dataclass
class OutOfFold:
    symbols: tuple[str, ...]
    horizons: tuple[int, ...]
    symbol: np.ndarray  # int [n], index into `symbols`
    time: np.ndarray  # datetime64[us] [n], as-of close, UTC
    fold: np.ndarray  # int [n], 0..4; the lockbox is fold -1 (and the burn-in -2, until the stack is fitted)
    rollover: np.ndarray  # bool [n]: the next bar opens in the rollover hours, 14:00-18:59 New York (server 21-01)
    spread: np.ndarray  # float [n]: log-return cost of a round trip, NaN where the source has no spread
    rv: dict[int, np.ndarray]  # realised variance over (t, t+h], float [n]
    ret: dict[int, np.ndarray]  # log-return over (t, t+h], float [n]
    families: dict[str, FamilyForecasts]  # "har", "har_how", "ewma", "unconditional", "lightgbm", ..., and "stack"
    # Return quantiles at market.forecasts.QUANTILE_LEVELS: name -> h -> float [n, 7]; "unconditional" (of the training
    # window), "unconditional_history" (of all bars before the fold) and "stack" at least
    quantiles: dict[str, dict[int, np.ndarray]] = field(default_factory=dict)
    base_rate: dict[int, np.ndarray] = field(default_factory=dict)  # share of ups in the training part, float [n]
    stack_weights: dict[str, dict[str, float]] = field(
        default_factory=dict
    )  # "rv24" -> family -> weight of the last fold
    cpu_seconds: dict[str, float] = field(default_factory=dict)  # family -> CPU time of fitting and predicting

    def __len__(self) -> int:
        return len(self.time)

    def at(self, rows: np.ndarray) -> OutOfFold:
        """The same forecasts on some of the rows. rows: bool or int [m]"""

        def by_horizon(values: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
            return {h: one[rows] for h, one in values.items()}

        fields: dict[str, Any] = {
            name: getattr(self, name)[rows] for name in ("symbol", "time", "fold", "rollover", "spread")
        }
        fields |= {name: by_horizon(getattr(self, name)) for name in ("rv", "ret", "base_rate")}
        fields["families"] = {
            name: FamilyForecasts(by_horizon(made.log_rv), by_horizon(made.p_up))
            for name, made in self.families.items()
        }
        fields["quantiles"] = {name: by_horizon(values) for name, values in self.quantiles.items()}
        return replace(self, **fields)
