"""What the board does not hold and has to be looked up: past forecasts, straight out of the ledger's database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from configs.settings import Settings
from market.forecasts import ON_RECORD_ONLY


@dataclass(frozen=True)
class HistoryAsk:
    """Past forecasts as of [since, before), newest first, at most `limit`; `after`: (as_of, seq) of the last row known."""

    symbol: str
    timeframe: str
    limit: int
    since: datetime | None = None
    before: datetime | None = None
    after: tuple[datetime, int] | None = None


@dataclass(frozen=True)
class Lookups:
    """`history(ask)` -> past forecasts with `seq` and outcomes, as `PredictionLedger.history` gives them, less what is only kept on record."""

    history: Callable[[HistoryAsk], Awaitable[list[dict[str, Any]]]]


def ledger_lookups(settings: Settings) -> Lookups:
    """Reads the ledger's database, which is opened at the first question."""
    opened: list[Any] = []

    def read(ask: HistoryAsk) -> list[dict[str, Any]]:
        from actors.ledger_chains import SEEN
        from actors.prediction_ledger import PredictionLedger

        if not opened:
            opened.append(PredictionLedger.of(settings))
        past: list[dict[str, Any]] = opened[0].history(
            ask.symbol, ask.timeframe, ask.limit, ask.before, since=ask.since, after=ask.after
        )
        for forecast in past:
            forecast.pop(SEEN, None)
            for horizon in forecast["horizons"]:
                for name in ON_RECORD_ONLY:
                    horizon.pop(name, None)
        return past

    async def history(ask: HistoryAsk) -> list[dict[str, Any]]:
        return await asyncio.to_thread(read, ask)

    return Lookups(history)
