"""What the ledger's outcomes teach while we serve: widths of intervals, live skill, whether the champion is worth its place.

Each outcome is read once, for all of them; a new life reads the newest closes of the model that serves, and what the
newest forecasts had not learned. Any method may raise what the ledger raises, and may then be called again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Protocol

from actors.ledger_reading import Settled
from actors.live_calibration import LiveCalibration
from actors.live_judge import LiveVerdict, verdicts
from actors.live_losses import CLOSES_KEPT, LiveFigure, LiveLosses
from market.forecasts import HorizonForecast
from tuning.model_version import ModelVersion


class Outcomes(Protocol):
    """The part of actors.prediction_ledger.PredictionLedger that is needed here."""

    def settled(self, timeframe: str, after: int = 0) -> Sequence[Settled]: ...
    def settled_of(
        self, model_id: str, timeframe: str, symbol: str, since: datetime, until_seq: int
    ) -> Sequence[Settled]: ...
    def closes(self, model_id: str, timeframe: str) -> Sequence[tuple[datetime, int]]: ...
    def newest(self, timeframe: str, symbols: Iterable[str]) -> dict[str, dict[str, Any]]: ...
    def made_at(self, seq: int) -> datetime: ...


class LiveRecord:
    """`symbols`: those that are served."""

    def __init__(self, ledger: Outcomes, symbols: Sequence[str]) -> None:
        self._ledger, self._symbols = ledger, tuple(symbols)
        self._calibration = LiveCalibration()
        self._seen: dict[str, int] = {}  # timeframe -> the newest outcome that was read
        self._model: dict[str, tuple[str, datetime]] = {}  # timeframe -> whose losses, champion since
        self._losses: dict[str, LiveLosses] = {}
        self._figures: dict[str, dict[tuple[str, str | None], LiveFigure]] = {}

    def catch_up(self, version: ModelVersion, since: datetime) -> int:
        """Read every outcome that is new, and return how many; `version` serves, as champion `since` (wall time)."""
        frame, read = version.timeframe, 0
        if frame not in self._seen:
            self._seen[frame] = self._calibration.resume(frame, self._ledger.newest(frame, self._symbols))
        while rows := self._ledger.settled(frame, self._seen[frame]):
            self._calibration.learn(frame, rows)
            if frame in self._losses:
                model_id = self._model[frame][0]
                self._losses[frame].take([row for row in rows if row.model_id == model_id])
            self._seen[frame] = rows[-1].seq
            read += len(rows)
        if self._model.get(frame) != (version.id, since):
            self._losses[frame] = self._read_losses(version, since)
            self._model[frame] = (version.id, since)
            self.refresh(frame)
        return read

    def _read_losses(self, version: ModelVersion, since: datetime) -> LiveLosses:
        """Of the model's newest closes; how many of its tenure came before those is only counted."""
        frame, symbols = version.timeframe, [s for s in self._symbols if s in version.symbols]
        closes = self._ledger.closes(version.id, frame)
        first = max(0, len(closes) - CLOSES_KEPT)
        tenure = bisect_left(closes, since, hi=first, key=lambda close: self._ledger.made_at(close[1]))
        losses = LiveLosses(symbols, version.horizons, since, first - tenure)
        for symbol in symbols if closes else ():
            losses.take(self._ledger.settled_of(version.id, frame, symbol, closes[first][0], self._seen[frame]))
        return losses

    def refresh(self, timeframe: str) -> None:
        """Compute live skill anew, of all that was read: once per settled bar, when its forecast is out."""
        self._figures[timeframe] = self._losses[timeframe].figures()

    def figure(self, timeframe: str, target: str, symbol: str | None) -> LiveFigure | None:
        """As of the last `refresh`; None before the first, and for a symbol or target that the model does not have."""
        return self._figures.get(timeframe, {}).get((target, symbol))

    def verdicts(self, timeframe: str) -> list[LiveVerdict]:
        return verdicts(self._losses[timeframe])

    def forget(self, timeframe: str) -> None:
        """Another model serves: nothing is known of it yet."""
        self._figures.pop(timeframe, None)

    def adapt(self, symbol: str, timeframe: str, last_close: float, made: HorizonForecast) -> HorizonForecast:
        """LiveCalibration.adapt, with what was learned so far."""
        return self._calibration.adapt(symbol, timeframe, last_close, made, self._seen.get(timeframe, 0))
