"""What the product says: Forecast, Signal, SkillCard, and the board that carries them to the HTTP side.

Plain frozen dataclasses; `to_dict` gives JSON-ready values (UTC times end in Z, missing is None with a reason).
"""

from __future__ import annotations

from dataclasses import dataclass, field, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import cached_property
from math import isfinite
from typing import Any

import numpy as np

QUANTILE_LEVELS: tuple[float, ...] = (0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95)


def iso_utc(moment: datetime | None) -> str | None:
    """Aware datetime -> "2020-03-03T12:00:00Z"."""
    if moment is None:
        return None
    return (
        moment.astimezone(UTC)
        .isoformat(timespec="milliseconds" if moment.microsecond else "seconds")
        .replace("+00:00", "Z")
    )


def parse_utc(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)


def jsonable(value: Any) -> Any:
    """Dataclasses, enums, times, tuples and numpy's scalars as JSON has them, through and through."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):  # numpy's are, too; JSON has neither NaN nor infinity
        return float(value) if isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if is_dataclass(value):  # not dataclasses.asdict, which copies every leaf: half of what a forecast's record costs
        return {name: jsonable(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, datetime):
        return iso_utc(value)
    if isinstance(value, np.generic):
        return jsonable(value.item())
    return value.value if isinstance(value, Enum) else value


@dataclass(frozen=True)
class SkillCard:
    """How good a forecast of this kind has been, out of sample, against a named baseline.

    `value` = 1 - loss / baseline loss (0.03: 3 % better; negative: worse), except metric "auc", whose value is the AUC.
    `t_statistic`: HAC t of the loss difference (negative: better than the baseline); None with `reason` if not measured.
    """

    target: str  # rv24 | r24 | sign1 | sign24 ...
    metric: str  # qlike | pinball | log_loss | auc
    baseline: str
    value: float | None
    t_statistic: float | None
    n: int
    period_from: datetime | None = None
    period_to: datetime | None = None
    passed_gate: bool = False
    live_coverage80: float | None = None  # share of this model's live outcomes inside the 80 % interval
    live_n: int = 0
    live_since: datetime | None = None  # the as-of of its first forecast that is counted
    reason: str = ""
    # Of this model's recorded forecasts against the baseline recorded beside them, signed as `value` and `t_statistic`.
    live_value: float | None = None
    live_t: float | None = None
    live_baseline: str = ""  # har_how | base_rate
    live_reason: str = ""  # why there is no live_value, or no live_t

    def to_dict(self) -> dict[str, Any]:
        return dict(jsonable(self))


@dataclass(frozen=True)
class BaselineForecast:
    """What the econometric baseline inside the same model says at the same close, so that live outcomes judge both."""

    name: str  # har_how
    volatility: float
    quantiles: dict[str, float]
    p_up: float | None = None  # the base rate


@dataclass(frozen=True)
class LearnedWidths:
    """What the served intervals had learned: log widths of the 90, 80 and 50 % interval, and the number of the newest
    outcome of the ledger that they have learned from. The next life begins there."""

    log_width: tuple[float, ...]
    outcome: int


@dataclass(frozen=True)
class HorizonForecast:
    """One horizon, `bars` ahead of the as-of close.

    `volatility`: standard deviation of the log-return over the horizon (0.004 = 0.4 %); `volatility_ratio`: against
    this symbol's usual level. `quantiles`: log-return at QUANTILE_LEVELS, keys "0.05" ...; `price_quantiles`: the same
    in price units. `p_up`: probability that the close is higher; equals the base rate unless a gate passed.
    `baseline`, `model_quantiles`, what the model said before its widths were adapted (None: nothing was), and `widths`
    are put on record and not published.
    """

    bars: int
    target_time: datetime  # close of the bar that ends the horizon, weekends stepped over
    volatility: float | None
    volatility_ratio: float | None
    quantiles: dict[str, float] | None
    price_quantiles: dict[str, float] | None
    p_up: float | None
    skill: tuple[SkillCard, ...] = ()
    reason: str = ""
    baseline: BaselineForecast | None = None
    model_quantiles: dict[str, float] | None = None
    widths: LearnedWidths | None = None


# What the ledger keeps of a horizon beyond what is published.
ON_RECORD_ONLY = ("baseline", "model_quantiles", "widths")


@dataclass(frozen=True)
class Forecast:
    """All horizons of one symbol and timeframe, made at one bar close. `stale` is judged again at every answer."""

    symbol: str
    timeframe: str
    as_of: datetime  # close time of the newest bar used
    last_close: float
    horizons: tuple[HorizonForecast, ...]
    model_id: str
    data_version: str
    made_at: datetime  # wall clock, UTC
    market: str  # simulated | recorded | mt5 | http
    stale: bool = False
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """What is published."""
        horizons = [{k: v for k, v in one.items() if k not in ON_RECORD_ONLY} for one in self._record["horizons"]]
        return self._record | {"horizons": horizons}

    def record(self) -> dict[str, Any]:
        """What goes into the ledger: all of it."""
        return dict(self._record)

    @cached_property
    def _record(self) -> dict[str, Any]:
        return dict(jsonable(self))


class Side(Enum):
    BUY = "buy"
    SELL = "sell"
    NONE = "none"


@dataclass(frozen=True)
class Signal:
    """A direction, only if a direction gate passed and the expected edge exceeds the spread. Size-free."""

    symbol: str
    timeframe: str
    as_of: datetime
    side: Side
    horizon_bars: int
    expected_edge_bp: float | None  # net of spread
    spread_bp: float | None
    confidence: float | None
    reason: str
    model_id: str
    stale: bool = False
    reason_code: str = ""  # "" | no_gate | edge_below_spread | rollover | stale | market_closed | no_model

    def to_dict(self) -> dict[str, Any]:
        return dict(jsonable(self))


@dataclass(frozen=True)
class BoardUpdate:
    """Everything the HTTP side shows, as pushed by the forecaster after each closed bar. Values are JSON-ready dicts."""

    version: int
    forecasts: dict[str, dict[str, Any]] = field(default_factory=dict)  # "EURUSD/H1" -> Forecast.to_dict()
    signals: dict[str, dict[str, Any]] = field(default_factory=dict)  # "EURUSD/H1" -> Signal.to_dict()
    skill: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # "H1" -> SkillCards of the champion
    models: dict[str, dict[str, Any]] = field(default_factory=dict)  # "H1" -> ModelVersion.to_dict() of the champion
    bars: dict[str, list[list[Any]]] = field(
        default_factory=dict
    )  # "EURUSD/H1" -> newest bars [close_time, o, h, l, c]
    # source: {connected, reason}, transport, started_at, series: "EURUSD/H1" -> {code, reason} of what cannot be forecast
    status: dict[str, Any] = field(default_factory=dict)
