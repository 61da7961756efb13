"""Every forecast, written before its outcome is known and never changed; outcomes are joined when their bars have closed.

Rows are hash-chained, so an edited, removed or inserted row is found by `verify`. Knows neither models nor Ray.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from actors import ledger_reading
from actors.forecast_spool import SpooledForecast
from actors.ledger_chains import SEEN, LedgerChains, Verdict
from actors.ledger_database import LedgerDatabase
from actors.ledger_outcomes import settle_some
from actors.ledger_reading import Settled
from actors.ledger_tables import forecasts, pending
from configs.settings import Settings
from market.forecasts import Forecast, iso_utc, parse_utc

SETTLED_AT_ONCE = 5000
KEY_FIELDS = ("symbol", "timeframe", "as_of", "model_id")


class PredictionLedger:
    """One writer; any number of readers. `key`: what the chains are signed with; `url`, `schema`: see LedgerDatabase.

    The database is opened at the first call. Every method raises LedgerUnavailable while it is away, and may then be
    called again with the same arguments: what was written already is not written twice. Writing raises SecondWriter
    while somebody else writes, and LedgerBroken rather than continue a chain whose end is not as it was left.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        schema: str = "lstmc",
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        market_now: Callable[[], datetime] | None = None,
    ) -> None:
        self._chains, self._wall, self._market_now = LedgerChains(key.encode()), wall, market_now or wall
        self._database = LedgerDatabase(url, schema)

    @classmethod
    def of(cls, settings: Settings) -> PredictionLedger:
        """The installation's own."""
        key = settings.secret("ledger_key").get_secret_value()
        url = settings.ledger_url.get_secret_value()
        return cls(url, key, schema=settings.ledger_schema, market_now=settings.market_clock.now)

    def close(self) -> None:
        """Let another writer in."""
        self._database.close()

    # Writing

    def append(self, made: Iterable[Forecast | SpooledForecast]) -> int:
        """Write what is not there yet, one row per (symbol, timeframe, as_of, model_id). Returns how many were new.

        Each body says when it was recorded, and `recorded_late` when the market had reached the end of its first horizon
        by then. One that waited in the spool also says since when: `spooled_at` and `spooled_market_time`.
        """
        with self._database.writing() as db:
            rows, head = self._chains.end(db, "outcomes")
            seen = {SEEN: {"rows": rows, "head": head}}
            bodies = [self._with_times(forecast) | seen for forecast in made]
            there = _those_there(db, bodies)
            new: dict[tuple[str, ...], dict[str, Any]] = {}
            for body in bodies:
                key = tuple(body[name] for name in KEY_FIELDS)
                if key not in there:
                    new.setdefault(key, body)
            columns = [dict(zip(KEY_FIELDS, key, strict=True)) for key in new]
            numbers = self._chains.link(db, "forecasts", list(zip(columns, new.values(), strict=True)))
            waiting = [
                {"forecast_seq": seq, "bars": horizon["bars"], **{name: body[name] for name in KEY_FIELDS[:3]}}
                for seq, body in zip(numbers, new.values(), strict=True)
                for horizon in body["horizons"]
            ]
            if waiting:
                db.execute(sa.insert(pending), waiting)
            return len(numbers)

    def _with_times(self, forecast: Forecast | SpooledForecast) -> dict[str, Any]:
        times: dict[str, Any] = {
            "recorded_at": iso_utc(self._wall()),
            "recorded_market_time": iso_utc(self._market_now()),
        }
        if isinstance(forecast, SpooledForecast):
            body = forecast.body
            times |= {"spooled_at": forecast.spooled_at, "spooled_market_time": forecast.market_time}
        else:
            body = forecast.record()
        ends = [parse_utc(horizon["target_time"]) for horizon in body["horizons"]]
        return body | times | {"recorded_late": bool(ends) and self._market_now() >= min(ends)}

    def settle(self, *bars: pa.Table) -> int:
        """Join outcomes: each of `bars` is one symbol's and timeframe's closed bars, oldest first. Returns how many.

        Horizon h ends with the h-th bar after the as-of bar. A forecast whose as-of bar is not in `bars` keeps waiting.
        A long backlog is joined in several transactions: what was joined stays so when the database goes away.
        """
        joined = 0
        while n := self._settle_some(bars):
            joined += n
        return joined

    def _settle_some(self, bars: Sequence[pa.Table]) -> int:
        with self._database.writing() as db:
            return settle_some(db, self._chains, bars)

    # Reading

    def oldest_pending(self) -> dict[tuple[str, str], datetime]:
        """(symbol, timeframe) -> the as-of of its oldest forecast without an outcome; `settle` wants bars from there on."""
        with self._database.reading() as db:
            return ledger_reading.oldest_pending(db)

    def waiting(self) -> dict[tuple[str, str], list[tuple[datetime, int]]]:
        """(symbol, timeframe) -> as-of and horizon in bars of everything that waits for an outcome."""
        with self._database.reading() as db:
            return ledger_reading.waiting(db)

    def history(
        self,
        symbol: str,
        timeframe: str,
        limit: int = 100,
        before: datetime | None = None,
        *,
        since: datetime | None = None,
        after: tuple[datetime, int] | None = None,
    ) -> list[dict[str, Any]]:
        """Forecasts as of [since, before), newest first, each with `seq`, its row in the chain, and `outcomes`: horizon in
        bars (as text) -> what happened, where it is known.

        `after`: (as_of, seq) of a row; what follows it, so that paging is not shifted by forecasts that arrive meanwhile.
        """
        with self._database.reading() as db:
            return ledger_reading.history(db, symbol, timeframe, limit, before, since, after)

    def recorded(self, model_id: str, timeframe: str, since: datetime, until: datetime) -> list[dict[str, Any]]:
        """One model's forecasts as of [since, until], by as-of and symbol."""
        with self._database.reading() as db:
            return ledger_reading.recorded(db, model_id, timeframe, since, until)

    def settled(self, timeframe: str, after: int = 0, limit: int = SETTLED_AT_ONCE) -> list[Settled]:
        """Forecasts whose outcome is known, in the order of `seq` from `after` on, at most `limit`."""
        with self._database.reading() as db:
            return ledger_reading.settled(db, timeframe, after, limit)

    def settled_of(self, model_id: str, timeframe: str, symbol: str, since: datetime, until_seq: int) -> list[Settled]:
        """One model's and symbol's, as of `since` or later, whose outcome was known by `until_seq`."""
        with self._database.reading() as db:
            return ledger_reading.settled_of(db, model_id, timeframe, symbol, since, until_seq)

    def closes(self, model_id: str, timeframe: str) -> list[tuple[datetime, int]]:
        """Every as-of close that one model forecast at, oldest first, and the number of its first forecast there."""
        with self._database.reading() as db:
            return ledger_reading.closes(db, model_id, timeframe)

    def newest(self, timeframe: str, symbols: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Symbol -> its newest forecast as recorded, of any model."""
        with self._database.reading() as db:
            return ledger_reading.newest(db, timeframe, symbols)

    def made_at(self, seq: int) -> datetime:
        """When forecast number `seq` was made, wall time."""
        with self._database.reading() as db:
            body = db.execute(sa.select(forecasts.c.body).where(forecasts.c.seq == seq)).scalar_one()
        return parse_utc(json.loads(body)["made_at"])

    def count(self) -> int:
        with self._database.reading() as db:
            return int(db.execute(sa.select(sa.func.count()).select_from(forecasts)).scalar_one())

    def verify(self) -> Verdict:
        """Read every row of one snapshot and compare it with its signature."""
        with self._database.reading() as db:
            return self._chains.verify(db)


def _those_there(db: sa.Connection, bodies: Sequence[dict[str, Any]]) -> set[tuple[str, ...]]:
    """Keys on record among those of `bodies`, and some beside them."""
    closes, models = ({body[name] for body in bodies} for name in ("as_of", "model_id"))
    columns = (forecasts.c[name] for name in KEY_FIELDS)
    where = forecasts.c.as_of.in_(closes), forecasts.c.model_id.in_(models)
    return {tuple(row) for row in db.execute(sa.select(*columns).where(*where))}
