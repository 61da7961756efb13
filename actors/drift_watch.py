"""Does a champion's live record ask for a retrain? Its realised against its forecast volatility, and the live judge's verdicts.

`benchmarks.drift` scores both. Reads what the ledger and the forecaster know; asks for nothing itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from actors.ledger_reading import Settled
from tuning.drift import RECENT_BARS, VOLATILITY_LIMIT, volatility_shift
from tuning.model_version import ModelVersion


class DriftWatch:
    """Reads each outcome once. `read(timeframe, after)` may raise: the next look goes on where this one stopped."""

    def __init__(self, read: Callable[[str, int], Sequence[Settled]]) -> None:
        self._read = read
        self._of: dict[str, str] = {}  # timeframe -> model
        self._seen: dict[str, int] = {}
        self._recent: dict[str, deque[tuple[float, float]]] = {}  # realised and forecast variance, longest horizon

    def reason(self, version: ModelVersion, live: Sequence[Mapping[str, Any]]) -> str:
        """Why this champion should be trained again, "" when it need not. `live`: its newest LiveVerdicts as dictionaries."""
        frame = version.timeframe
        if self._of.get(frame) != version.id:
            self._of[frame], self._seen[frame] = version.id, 0
            self._recent[frame] = deque(maxlen=RECENT_BARS * len(version.symbols))
        self._catch_up(version)
        worse = [verdict for verdict in live if verdict.get("worse")]
        if worse:
            return f"{frame}: live {worse[0]['metric']} of {worse[0]['target']} worse than {worse[0]['baseline']}"
        recent = self._recent[frame]
        if len(recent) < (recent.maxlen or 0):
            return ""
        realised, forecast = np.array(recent).T
        if volatility_shift(realised, forecast) <= VOLATILITY_LIMIT:
            return ""
        return f"{frame}: realised variance is {realised.mean() / forecast.mean():.2f} times what was forecast"

    def _catch_up(self, version: ModelVersion) -> None:
        frame, horizon = version.timeframe, max(version.horizons)
        while rows := self._read(frame, self._seen[frame]):
            for row in rows:
                forecast = row.horizon.get("volatility")
                if row.model_id == version.id and row.horizon["bars"] == horizon and forecast is not None:
                    self._recent[frame].append((row.outcome["volatility"] ** 2, forecast**2))
                self._seen[frame] = row.seq
