"""The identity card of a trained model: what it is, what it saw, how it did. Plain data, no loading and no fitting."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from market.forecasts import SkillCard, jsonable, parse_utc


@dataclass(frozen=True)
class ModelVersion:
    """`id` is the content hash of the bundle ("h1-" + 16 hex digits); `gate` holds per target promoted / why / figures."""

    id: str
    timeframe: str
    kind: str  # econometric | stack
    symbols: tuple[str, ...]
    horizons: tuple[int, ...]
    trained_from: datetime
    trained_until: datetime
    data_version: str
    spec_digest: str
    skill: tuple[SkillCard, ...] = ()
    gate: dict[str, Any] = field(default_factory=dict)
    code_commit: str = "unknown"
    lock_hash: str = "unknown"
    made_at: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        return jsonable(asdict(self))

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> ModelVersion:
        known = dict(fields)
        for name in ("trained_from", "trained_until", "made_at"):
            known[name] = parse_utc(known[name]) if known.get(name) else None
        known["skill"] = tuple(_skill_from_dict(card) for card in known.get("skill", ()))
        known["symbols"], known["horizons"] = tuple(known["symbols"]), tuple(known["horizons"])
        return cls(**known)


def _skill_from_dict(card: dict[str, Any]) -> SkillCard:
    card = dict(card)
    for name in ("period_from", "period_to", "live_since"):
        card[name] = parse_utc(card[name]) if card.get(name) else None
    return SkillCard(**card)
