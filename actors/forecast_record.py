"""Puts every forecast on record before it is published: into the ledger, or into the spool while the ledger is away.

What neither takes is withheld: a forecast that nobody can hold us to is not given out. Knows neither models nor Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

import pyarrow as pa

from actors.forecast_spool import ForecastSpool, SpooledForecast, SpoolFull
from actors.live_judge import LiveVerdict
from actors.live_record import LiveRecord, Outcomes
from market.errors import in_one_line
from market.forecasts import Forecast
from market.market_clock import add_open_time
from market.timeframes import Timeframe
from tuning.model_version import ModelVersion

RETRY_SECONDS = 5.0  # wall seconds in which a ledger that failed is left alone: each try may wait for its network
LAG_SECONDS = 60.0  # wall seconds between two counts of outcomes that are known and not written
BATCH = 500  # forecasts that are replayed between two looks at the market

BarsSince = Callable[[str, str, datetime], pa.Table]
Answer = TypeVar("Answer")


class Ledger(Outcomes, Protocol):
    """The part of actors.prediction_ledger.PredictionLedger that is needed here. Any call may raise."""

    def append(self, made: Iterable[Forecast | SpooledForecast]) -> int: ...
    def oldest_pending(self) -> dict[tuple[str, str], datetime]: ...
    def settle(self, *bars: pa.Table) -> int: ...
    def waiting(self) -> dict[tuple[str, str], list[tuple[datetime, int]]]: ...


class ForecastRecord:
    """No method raises what the ledger or the disk raise; `problems` says it. `bars_since`: (symbol, timeframe, from)."""

    def __init__(
        self,
        ledger: Ledger,
        spool: ForecastSpool,
        wall: Callable[[], datetime],
        market_now: Callable[[], datetime],
        bars_since: BarsSince | None = None,
        symbols: Sequence[str] = (),
    ) -> None:
        self._ledger, self._spool, self._bars_since = ledger, spool, bars_since
        self._wall, self._market_now = wall, market_now
        self.live = LiveRecord(ledger, symbols)
        self._trouble = self._why_withheld = ""
        self._again_at = self._withheld_until = self._count_lag_at = wall()
        self.lag: int | None = (
            None  # outcomes that stored bars show and the ledger lacks; None while it cannot be asked
        )

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

    def settle(self, *bars: pa.Table) -> None:
        """Join the outcomes that the newest bars show, one table per series."""
        self._ask(lambda: self._ledger.settle(*self._back_to_oldest_pending(bars)))

    def count_lag(self) -> None:
        """Every LAG_SECONDS. Settling itself says nothing of this: it ends with the predictor that it follows."""
        if self._wall() < self._count_lag_at:
            return
        self._count_lag_at = self._wall() + timedelta(seconds=LAG_SECONDS)
        waiting = self._ask(self._ledger.waiting)
        self.lag = None if waiting is None else sum(self._known(*key, rows) for key, rows in waiting.items())

    def _known(self, symbol: str, timeframe: str, waiting: Sequence[tuple[datetime, int]]) -> int:
        """How many of a series' forecasts have their outcome in the store; bars are read only when one may have it."""
        bar = Timeframe.parse(timeframe).delta
        due = [(at, ahead) for at, ahead in waiting if add_open_time(at, (ahead + 1) * bar) <= self._market_now()]
        if not due or self._bars_since is None:
            return 0
        bars = self._bars_since(symbol, timeframe, min(at for at, _ in due) - bar)
        row_of = {close: row for row, close in enumerate(bars["close_time"].to_pylist())}
        return sum(at in row_of and row_of[at] + ahead < bars.num_rows for at, ahead in due)

    def learn(self, version: ModelVersion, since: datetime) -> None:
        """LiveRecord.catch_up; while the ledger is away widths and live skill stay as they are."""
        self._ask(lambda: self.live.catch_up(version, since))

    def verdicts(self, version: ModelVersion, since: datetime) -> list[LiveVerdict] | None:
        """The judge's, after live skill was computed anew; None while the ledger is away."""
        if self._ask(lambda: self.live.catch_up(version, since)) is None:
            return None
        self.live.refresh(version.timeframe)
        return self.live.verdicts(version.timeframe)

    def _back_to_oldest_pending(self, tables: Sequence[pa.Table]) -> list[pa.Table]:
        """The tails, or more bars from the store where forecasts from before the tail still wait for their outcome."""
        waiting = self._ledger.oldest_pending()
        found = []
        for bars in tables:
            symbol, timeframe = bars["symbol"][0].as_py(), bars["timeframe"][0].as_py()
            oldest = waiting.get((symbol, timeframe))
            if oldest is not None and self._bars_since is not None and oldest < bars["close_time"][0].as_py():
                bars = self._bars_since(symbol, timeframe, oldest - Timeframe.parse(timeframe).delta)
            found.append(bars)
        return found

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
