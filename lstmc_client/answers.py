"""What the API says, as frozen dataclasses. Times are aware and UTC; what this version does not know is left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Self

_TIMES = frozenset(
    "as_of target_time made_at next_bar_due next_open period_from period_to live_since trained_from trained_until champion_since market_time".split()
)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text)  # they end in Z, which Python 3.11 reads


class _Answer:
    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Self:
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        known = {name: said[name] for name in names if name in said}
        return cls(**{name: utc(v) if name in _TIMES and v else v for name, v in known.items()})


@dataclass(frozen=True)
class SkillCard(_Answer):
    """How good a forecast of this kind has been; `value` None has a `reason`. `t_statistic` < 0: better than `baseline`."""

    target: str
    metric: str
    baseline: str
    value: float | None
    t_statistic: float | None
    n: int
    period_from: datetime | None
    period_to: datetime | None
    passed_gate: bool
    live_coverage80: float | None
    live_n: int
    live_since: datetime | None
    reason: str
    live_value: float | None = None
    live_t: float | None = None
    live_baseline: str = ""
    live_reason: str = ""
    in_words: str = ""


@dataclass(frozen=True)
class Horizon(_Answer):
    """`bars` ahead. `volatility`: standard deviation of the log-return. Quantiles by level: 0.05 ... 0.95."""

    bars: int
    target_time: datetime
    volatility: float | None
    volatility_ratio: float | None
    quantiles: dict[float, float] | None
    price_quantiles: dict[float, float] | None
    p_up: float | None
    skill: tuple[SkillCard, ...]
    reason: str

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Self:
        levels = {name: _by_level(said[name]) for name in ("quantiles", "price_quantiles")}
        return super().of({**said, **levels, "skill": skill_cards(said["skill"])})


@dataclass(frozen=True)
class Prediction(_Answer):
    """The newest forecast of one symbol. `stale`: the next bar is overdue, see `reason`. `on_demand`: made for this
    question; what is not `recorded` is never judged live."""

    symbol: str
    timeframe: str
    as_of: datetime
    last_close: float
    horizons: tuple[Horizon, ...]
    model_id: str
    data_version: str
    made_at: datetime
    market: str
    stale: bool
    reason: str
    next_bar_due: datetime
    skill: tuple[SkillCard, ...]
    reason_code: str = ""
    market_open: bool = True
    next_open: datetime | None = None
    on_demand: bool = False
    recorded: bool = True

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Self:
        horizons = tuple(Horizon.of(horizon) for horizon in said["horizons"])
        return super().of({**said, "horizons": horizons, "skill": skill_cards(said["skill"])})


@dataclass(frozen=True)
class Predictions:
    """`missing`: symbol -> why it has no forecast."""

    found: dict[str, Prediction]
    missing: dict[str, str]


@dataclass(frozen=True)
class Signal(_Answer):
    """`side` is buy, sell or none; none is the rule, with its `reason`."""

    symbol: str
    timeframe: str
    as_of: datetime
    side: str
    horizon_bars: int
    expected_edge_bp: float | None
    spread_bp: float | None
    confidence: float | None
    reason: str
    model_id: str
    stale: bool
    reason_code: str = ""


@dataclass(frozen=True)
class Model(_Answer):
    """The champion's identity card; `gate` holds the verdict per target."""

    id: str
    timeframe: str
    kind: str
    symbols: list[str]
    horizons: list[int]
    trained_from: datetime
    trained_until: datetime
    data_version: str
    skill: tuple[SkillCard, ...]
    gate: dict[str, dict[str, Any]]
    code_commit: str
    made_at: datetime | None
    champion_since: datetime
    champion_why: str
    live: list[dict[str, Any]]

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Self:
        return super().of({**said, "skill": skill_cards(said["skill"])})


@dataclass(frozen=True)
class Status(_Answer):
    """`source` is as the forecaster reports it; `ready` False has a `reason`."""

    version: str
    market: str
    simulated: bool
    speed: float
    market_time: datetime
    symbols: list[str]
    timeframes: list[str]
    ready: bool
    reason: str
    stale: list[str]
    models: dict[str, str]
    source: dict[str, Any]


def skill_cards(said: Iterable[Mapping[str, Any]]) -> tuple[SkillCard, ...]:
    return tuple(SkillCard.of(card) for card in said)


def _by_level(said: Mapping[str, float] | None) -> dict[float, float] | None:
    return None if said is None else {float(level): value for level, value in said.items()}
