"""A small made-up market for the tests of this room and of the page: real dataclasses, seeded prices, a settable clock."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from actors.prediction_ledger import PredictionLedger
from configs.settings import Settings, ensure_secrets, make_settings
from market.bars import bars_from_columns
from market.forecasts import (
    QUANTILE_LEVELS,
    BoardUpdate,
    Forecast,
    HorizonForecast,
    Side,
    Signal,
    SkillCard,
    iso_utc,
    parse_utc,
)
from market.market_clock import add_open_time
from market.timeframes import Timeframe
from tuning.model_version import ModelVersion

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)  # a Wednesday
SYMBOLS = ("EURUSD", "GBPUSD", "USDJPY")
LEVELS = {"EURUSD": 1.0842, "GBPUSD": 1.2711, "USDJPY": 151.42}
GATE_WORDS = "no edge found: sign1 not promoted: -0.4% log_loss skill against coin (t = 0.8); not better than base rate (t = 0.0, needed -2)."
Z = {0.05: -1.7, 0.10: -1.26, 0.25: -0.62, 0.50: 0.0, 0.75: 0.63, 0.90: 1.27, 0.95: 1.72}


CHAMPION = {"champion_since": "2026-03-04T12:00:05Z", "champion_why": "Promoted: rv24 passed.", "live": []}


@dataclass
class SetClock:
    """A market clock that stands still until it is moved."""

    moment: datetime = NOON + timedelta(seconds=20)

    def now(self) -> datetime:
        return self.moment

    def advance(self, **span: float) -> None:
        self.moment += timedelta(**span)


def make_test_settings(home: Path, **given: Any) -> Settings:
    given = {"symbols": SYMBOLS, "timeframes": ("H1", "M15"), "speed": 1.0} | given
    settings = make_settings(home=home, **given)
    ensure_secrets(settings)
    return settings


def skill_cards() -> tuple[SkillCard, ...]:
    period = {"period_from": datetime(2025, 3, 5, tzinfo=UTC), "period_to": NOON - timedelta(days=60)}
    return (
        SkillCard("rv24", "qlike", "har_how", 0.031, -4.2, 5712, passed_gate=True, **period),
        SkillCard(
            "r24",
            "pinball",
            "unconditional",
            0.027,
            -3.1,
            5712,
            passed_gate=True,
            live_coverage80=0.81,
            live_n=210,
            **period,
        ),
        SkillCard("sign24", "log_loss", "base_rate", -0.004, 0.8, 5712, **period),
        SkillCard("sign1", "auc", "base_rate", 0.521, None, 5712, reason="t is not measured for AUC", **period),
    )


def horizon(code: str, close: float, as_of: datetime, bars: int, ratio: float) -> HorizonForecast:
    sigma = 0.0011 * math.sqrt(bars) * ratio
    quantiles = {str(level): Z[level] * sigma for level in QUANTILE_LEVELS}
    prices = {level: close * math.exp(q) for level, q in quantiles.items()}
    target = add_open_time(as_of, timedelta(hours=bars))
    return HorizonForecast(bars, target, sigma, ratio, quantiles, prices, 0.503, skill_cards()[:2])


def random_walk(code: str, until: datetime, n: int, seed: int = 7) -> list[list[Any]]:
    """`n` closed H1 bars up to `until`, [close_time, o, h, l, c], oldest first."""
    draw = random.Random(f"{code}{seed}")
    price, digits, rows = LEVELS[code], 3 if code == "USDJPY" else 5, []
    for i in range(n, 0, -1):
        moves = [draw.gauss(0, 0.0005) * price for _ in range(4)]
        path = [price, price + moves[0], price + moves[0] + moves[1], price + sum(moves[:3])]
        rows.append(
            [
                iso_utc(until - timedelta(hours=i - 1)),
                *(round(v, digits) for v in (path[0], max(path), min(path), path[-1])),
            ]
        )
        price = path[-1]
    return rows


@dataclass
class MadeMarket:
    """Makes one BoardUpdate per closed H1 bar."""

    symbols: tuple[str, ...] = SYMBOLS
    as_of: datetime = NOON
    version: int = 0
    market: str = "simulated"
    bars: dict[str, list[list[Any]]] = field(default_factory=dict)
    started_at: str = "2026-11-01T00:00:00Z"

    def model(self) -> ModelVersion:
        return ModelVersion(
            id="h1-2f9c64e1aa07b35d",
            timeframe="H1",
            kind="stack",
            symbols=self.symbols,
            horizons=(1, 24),
            trained_from=NOON - timedelta(days=365),
            trained_until=NOON,
            data_version="bars@380",
            spec_digest="spec-1",
            skill=skill_cards(),
        )

    def update(self, *, with_model: bool = True, with_forecasts: bool = True, **status: Any) -> BoardUpdate:
        """The update for the current bar."""
        self.version += 1
        for code in self.symbols:
            self.bars.setdefault(code, random_walk(code, self.as_of, 160))
        forecasts = {f"{code}/H1": self.forecast(code).to_dict() for code in self.symbols} if with_forecasts else {}
        source = {"connected": True, "reason": ""}
        return BoardUpdate(
            version=self.version,
            forecasts=forecasts,
            signals={f"{code}/H1": self.signal(code).to_dict() for code in self.symbols} if with_forecasts else {},
            skill={"H1": [card.to_dict() for card in skill_cards()]} if with_model else {},
            models={"H1": self.model().to_dict() | CHAMPION} if with_model else {},
            bars={f"{code}/H1": rows[-240:] for code, rows in self.bars.items()},
            status={"source": source, "transport": "ray", "started_at": self.started_at} | status,
        )

    def close_a_bar(self) -> BoardUpdate:
        """One hour later: every symbol gets a bar and a forecast."""
        before = self.as_of
        self.as_of = add_open_time(before, Timeframe.H1.delta)
        for code, rows in self.bars.items():
            last = rows[-1][4]
            close = round(last * (1.0012 if code == "EURUSD" else 0.9995), 5)
            rows.append([iso_utc(self.as_of), last, max(last, close) * 1.0002, min(last, close) * 0.9998, close])
        return self.update()

    def write_history(self, settings: Settings, n: int, code: str = "EURUSD") -> None:
        """Put the forecasts of the last `n` H1 bars on record, oldest first, with the outcomes that are known."""
        ledger = PredictionLedger.of(settings)
        ledger.append(self.forecast(code, parse_utc(row[0])) for row in self.bars[code][-n:])
        ledger.settle(self.made_bars(code))
        ledger.close()

    def made_bars(self, code: str) -> pa.Table:
        """The bars of `code` as a bar store would hold them."""
        rows = self.bars[code]
        opens = np.array([parse_utc(row[0]).replace(tzinfo=None) for row in rows], "datetime64[us]") - np.timedelta64(
            1, "h"
        )
        prices = [np.array([row[i] for row in rows]) for i in range(1, 5)]
        return bars_from_columns(code, Timeframe.H1, opens, *prices, received_at=NOON)

    def forecast(self, code: str, as_of: datetime | None = None) -> Forecast:
        close, as_of = self.bars[code][-1][4], as_of or self.as_of
        ratio = {"EURUSD": 1.18, "GBPUSD": 0.86}.get(code, 1.02)
        horizons = tuple(horizon(code, close, as_of, bars, ratio) for bars in (1, 24))
        return Forecast(code, "H1", as_of, close, horizons, self.model().id, "bars@412", NOON, self.market)

    def signal(self, code: str) -> Signal:
        if code == "GBPUSD":
            return Signal(
                code,
                "H1",
                self.as_of,
                Side.BUY,
                24,
                2.4,
                1.1,
                0.56,
                "Expected edge 2.4 bp net of spread.",
                self.model().id,
            )
        return Signal(
            code,
            "H1",
            self.as_of,
            Side.NONE,
            24,
            None,
            1.1,
            None,
            GATE_WORDS,
            self.model().id,
        )
