"""Puts every forecast on record before it is published: into the ledger, or into the spool while the ledger is away.

What neither takes is withheld: a forecast that nobody can hold us to is not given out. Knows neither models nor Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from actors.forecast_spool import ForecastSpool, SpooledForecast, SpoolFull
from actors.live_calibration import LiveCalibration
from actors.live_judge import LiveJudge, LiveVerdict
from actors.prediction_ledger import Settled
from market.forecasts import Forecast
from market.timeframes import Timeframe
from tuning.model_version import ModelVersion

RETRY_SECONDS = 5.0  # wall seconds in which a ledger that failed is left alone: each try may wait for its network
BATCH = 500  # forecasts that are replayed between two looks at the market

BarsSince = Callable[[str, str, datetime], pa.Table]
Answer = TypeVar("Answer")


class Ledger(Protocol):
    """The part of actors.prediction_ledger.PredictionLedger that is needed here. Any call may raise."""

    def append(self, forecasts: Iterable[Forecast | SpooledForecast]) -> int: ...
    def oldest_pending(self, symbol: str, timeframe: str) -> datetime | None: ...
    def settle(self, bars: pa.Table) -> int: ...
    def coverage(self, timeframe: str, bars: int, symbol: str | None = None, model_id: str | None = None) -> Any: ...
    def settled(self, timeframe: str, after: int = 0, model_id: str | None = None) -> Sequence[Settled]: ...


class ForecastRecord:
    """No method raises what the ledger or the disk raise; `problems` says it. `bars_since`: (symbol, timeframe, from)."""

    def __init__(
        self,
        ledger: Ledger,
        spool: ForecastSpool,
        wall: Callable[[], datetime],
        market_now: Callable[[], datetime],
        bars_since: BarsSince | None = None,
    ) -> None:
        self._ledger, self._spool, self._bars_since = ledger, spool, bars_since
        self._wall, self._market_now = wall, market_now
        self._judge = LiveJudge(ledger.settled)
        self.calibration = LiveCalibration(ledger.settled)
        self._trouble = self._why_withheld = ""
        self._again_at = self._withheld_until = wall()

    @property
    def waiting(self) -> int:
        """Forecasts in the spool."""
        return len(self._spool)

    @property
    def problems(self) -> dict[str, str]:
        found = {}
        if self._trouble:
            found["ledger"] = f"{self.waiting} forecasts wait in the spool: {self._trouble}"
        if self._why_withheld:
            found["forecasts withheld"] = (
                f"New forecasts cannot be recorded, so none are published: {self._why_withheld}"
            )
        if self._spool.refused:
            found["ledger spool"] = (
                f"{self._spool.refused} lines of the spool were not as written and are no part of the ledger: "
                "see ledger_spool.refused beside it."
            )
        return found

    def may_take(self, n: int) -> bool:
        """Whether it is worth making `n` forecasts: whether they could be recorded, as far as that is known."""
        if self._wall() < self._withheld_until:
            return False
        if self.waiting and self.waiting + n > self._spool.limit:
            self._why_withheld = (
                f"{self.waiting} forecasts wait for the ledger, and the spool holds {self._spool.limit}."
            )
            return False
        return True

    def take(self, made: Sequence[Forecast]) -> bool:
        """True: they are on record and may be published. False: none of them is."""
        # Not past those that wait: the ledger's order is the order in which they were made.
        if not self.waiting and self._ask(lambda: self._ledger.append(made)) is not None:
            self._why_withheld = ""
            return True
        try:
            self._spool.add(made, self._wall(), self._market_now())
        except (SpoolFull, OSError) as error:
            self._why_withheld = in_one_line(error)
            self._withheld_until = self._wall() + timedelta(seconds=RETRY_SECONDS)
            return False
        self._why_withheld = ""
        return True

    def replay(self) -> None:
        """Write the oldest that wait. A crash between ledger and spool repeats some, which the ledger knows already."""
        if not self.waiting:
            return
        oldest = self._spool.first(BATCH)
        if self._ask(lambda: self._ledger.append(oldest)) is None:
            return
        try:
            self._spool.drop(len(oldest))
        except OSError as error:
            self._trouble = f"The spool cannot be emptied: {in_one_line(error)}"

    def settle(self, bars: pa.Table) -> None:
        """Join the outcomes that one series' newest bars show."""
        self._ask(lambda: self._ledger.settle(self._back_to_oldest_pending(bars)))

    def coverage(self, timeframe: str, bars: int, symbol: str | None, model_id: str) -> Any:
        """PredictionLedger.coverage; None while the ledger is away."""
        return self._ask(lambda: self._ledger.coverage(timeframe, bars, symbol, model_id))

    def learn(self, timeframe: str) -> None:
        """LiveCalibration.catch_up; while the ledger is away the widths stay as they are."""
        self._ask(lambda: self.calibration.catch_up(timeframe))

    def verdicts(self, version: ModelVersion, since: datetime) -> list[LiveVerdict] | None:
        """LiveJudge.verdicts; None while the ledger is away."""
        return self._ask(lambda: self._judge.verdicts(version, since))

    def _back_to_oldest_pending(self, bars: pa.Table) -> pa.Table:
        """The tail, or more bars from the store when forecasts from before the tail still wait for their outcome."""
        symbol, timeframe = bars["symbol"][0].as_py(), bars["timeframe"][0].as_py()
        oldest = self._ledger.oldest_pending(symbol, timeframe)
        if oldest is None or self._bars_since is None or oldest >= bars["close_time"][0].as_py():
            return bars
        return self._bars_since(symbol, timeframe, oldest - Timeframe.parse(timeframe).delta)

    def _ask(self, call: Callable[[], Answer]) -> Answer | None:
        """The ledger's answer; None when it gives none. A ledger in trouble must not stop serving, nor make it slow."""
        if self._wall() < self._again_at:
            return None
        try:
            answer = call()
        except Exception as error:
            self._trouble = in_one_line(error)
            self._again_at = self._wall() + timedelta(seconds=RETRY_SECONDS)
            return None
        self._trouble = ""
        return answer


def in_one_line(error: BaseException) -> str:
    """Ray's errors carry the whole remote traceback."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return (lines[-1] if lines else type(cause).__name__)[:300]
