"""Every forecast, written before its outcome is known and never changed; outcomes are joined when their bars have closed.

Rows are hash-chained, so an edited, removed or inserted row is found by `verify`. Knows neither models nor Ray.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from market.forecasts import Forecast, iso_utc, jsonable, parse_utc

GENESIS = "0" * 64

_metadata = sa.MetaData()

# Times are ISO strings in UTC ending in Z: they sort as text, in SQLite and PostgreSQL alike.
_forecasts = sa.Table(
    "forecasts",
    _metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("symbol", sa.String(16), nullable=False),
    sa.Column("timeframe", sa.String(4), nullable=False),
    sa.Column("as_of", sa.String(32), nullable=False),
    sa.Column("model_id", sa.String(64), nullable=False),
    sa.Column("body", sa.Text, nullable=False),  # canonical JSON of the forecast
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.UniqueConstraint("symbol", "timeframe", "as_of", "model_id"),
)
_outcomes = sa.Table(
    "outcomes",
    _metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("forecast_seq", sa.Integer, nullable=False, index=True),
    sa.Column("bars", sa.Integer, nullable=False),
    sa.Column("symbol", sa.String(16), nullable=False),
    sa.Column("timeframe", sa.String(4), nullable=False),
    sa.Column("inside80", sa.Boolean),  # null: the forecast had no interval
    sa.Column("inside90", sa.Boolean),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.UniqueConstraint("forecast_seq", "bars"),
)
# Coverage is asked for with every forecast: it must not read the bodies.
_coverage = sa.Index(
    "outcomes_coverage",
    _outcomes.c.timeframe,
    _outcomes.c.bars,
    _outcomes.c.symbol,
    _outcomes.c.inside80,
    _outcomes.c.inside90,
)
# What still waits for its outcome: a to-do list, no record of anything.
_pending = sa.Table(
    "pending",
    _metadata,
    sa.Column("forecast_seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("bars", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("symbol", sa.String(16), nullable=False),
    sa.Column("timeframe", sa.String(4), nullable=False),
    sa.Column("as_of", sa.String(32), nullable=False),
    sa.Index("pending_by_series", "symbol", "timeframe", "as_of"),
)
# The newest link of each chain, so that cutting rows off its end is found too.
_seals = sa.Table(
    "seals",
    _metadata,
    sa.Column("chain", sa.String(16), primary_key=True),
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("seal", sa.String(64), nullable=False),
)
_CHAINS = {"forecasts": _forecasts, "outcomes": _outcomes}


@dataclass(frozen=True)
class Coverage:
    """Share of outcomes inside the 80 % and 90 % intervals, over `n` outcomes; None while there are none."""

    n: int
    cov80: float | None
    cov90: float | None


class PredictionLedger:
    """One writer; any number of readers. `url`: SQLAlchemy's, `key`: what the chain is signed with."""

    def __init__(self, url: str, key: str) -> None:
        self._key = key.encode()
        if url.startswith("sqlite:///"):
            Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        # NullPool: a connection per use; the ledger is called from several threads, a few times a minute.
        self._engine = sa.create_engine(url, poolclass=NullPool)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _sqlite_manners)
            sa.event.listen(self._engine, "begin", _take_write_lock)
        with self._transaction() as db:
            _metadata.create_all(db)
            _coverage.create(db, checkfirst=True)  # a ledger that is older than the index

    def append(self, forecasts: Iterable[Forecast]) -> int:
        """Write what is not there yet, one row per (symbol, timeframe, as_of, model_id). Returns how many were new."""
        with self._transaction() as db:
            return sum(self._append_one(db, forecast) for forecast in forecasts)

    def _append_one(self, db: sa.Connection, forecast: Forecast) -> bool:
        fields = {
            "symbol": forecast.symbol,
            "timeframe": forecast.timeframe,
            "as_of": iso_utc(forecast.as_of),
            "model_id": forecast.model_id,
        }
        same = sa.and_(*(_forecasts.c[name] == value for name, value in fields.items()))
        if db.execute(sa.select(_forecasts.c.seq).where(same)).first():
            return False
        seq = self._link(db, "forecasts", fields, forecast.to_dict())
        series = {name: fields[name] for name in ("symbol", "timeframe", "as_of")}
        waiting = [{"forecast_seq": seq, "bars": horizon.bars, **series} for horizon in forecast.horizons]
        if waiting:
            db.execute(sa.insert(_pending), waiting)
        return True

    def oldest_pending(self, symbol: str, timeframe: str) -> datetime | None:
        """The as-of of the oldest forecast that waits for an outcome; `settle` wants bars from there on."""
        query = sa.select(sa.func.min(_pending.c.as_of)).where(
            _pending.c.symbol == symbol, _pending.c.timeframe == timeframe
        )
        with self._engine.connect() as db:
            found = db.execute(query).scalar()
        return parse_utc(found) if found else None

    def settle(self, bars: pa.Table) -> int:
        """Join outcomes: `bars` is one symbol's and timeframe's closed bars, oldest first. Returns how many were joined.

        Horizon h ends with the h-th bar after the as-of bar. A forecast whose as-of bar is not in `bars` keeps waiting.
        """
        if bars.num_rows == 0:
            return 0
        symbol, timeframe = bars["symbol"][0].as_py(), bars["timeframe"][0].as_py()
        closes = bars["close"].to_numpy()
        row_of = {time: row for row, time in enumerate(bars["close_time"].to_pylist())}
        query = sa.select(_pending).where(_pending.c.symbol == symbol, _pending.c.timeframe == timeframe)
        with self._transaction() as db:
            due = []
            for waiting in db.execute(query.order_by(_pending.c.forecast_seq, _pending.c.bars)).mappings():
                start = row_of.get(parse_utc(waiting["as_of"]))
                if start is not None and start + waiting["bars"] < len(closes):
                    due.append((dict(waiting), start))
            for todo, start in due:
                self._settle_one(db, todo, closes[start : start + todo["bars"] + 1], row_of, start)
            return len(due)

    def _settle_one(
        self, db: sa.Connection, waiting: dict[str, Any], path: np.ndarray, row_of: dict[datetime, int], start: int
    ) -> None:
        seq, bars = waiting["forecast_seq"], waiting["bars"]
        forecast = json.loads(db.execute(sa.select(_forecasts.c.body).where(_forecasts.c.seq == seq)).scalar_one())
        horizon = next(h for h in forecast["horizons"] if h["bars"] == bars)
        steps = np.diff(np.log(path))  # [bars] 1-bar log-returns
        realised = float(steps.sum())
        times = list(row_of)
        body = {
            "bars": bars,
            "closed_at": iso_utc(times[start + bars]),
            "close": float(path[-1]),
            "return": realised,
            "volatility": float(np.sqrt(np.square(steps).sum())),
            "inside80": _inside(horizon.get("quantiles"), "0.1", "0.9", realised),
            "inside90": _inside(horizon.get("quantiles"), "0.05", "0.95", realised),
        }
        columns = {
            "forecast_seq": seq,
            "bars": bars,
            "symbol": waiting["symbol"],
            "timeframe": waiting["timeframe"],
            "inside80": body["inside80"],
            "inside90": body["inside90"],
        }
        self._link(db, "outcomes", columns, body)
        db.execute(sa.delete(_pending).where(_pending.c.forecast_seq == seq, _pending.c.bars == bars))

    def coverage(self, timeframe: str, bars: int, symbol: str | None = None) -> Coverage:
        """Live coverage of one horizon, of one symbol or of all."""
        where = [_outcomes.c.timeframe == timeframe, _outcomes.c.bars == bars, _outcomes.c.inside80.is_not(None)]
        if symbol:
            where.append(_outcomes.c.symbol == symbol)
        inside = [
            sa.func.sum(sa.case((column.is_(True), 1), else_=0))
            for column in (_outcomes.c.inside80, _outcomes.c.inside90)
        ]
        with self._engine.connect() as db:
            n, in80, in90 = db.execute(sa.select(sa.func.count(), *inside).where(*where)).one()
        return Coverage(n, in80 / n, in90 / n) if n else Coverage(0, None, None)

    def history(
        self, symbol: str, timeframe: str, limit: int = 100, before: datetime | None = None
    ) -> list[dict[str, Any]]:
        """Forecasts, newest first, each with `outcomes`: horizon in bars (as text) -> what happened, where it is known."""
        where = [_forecasts.c.symbol == symbol, _forecasts.c.timeframe == timeframe]
        if before is not None:
            where.append(_forecasts.c.as_of < iso_utc(before))
        query = sa.select(_forecasts.c.seq, _forecasts.c.body).where(*where)
        with self._engine.connect() as db:
            rows = db.execute(query.order_by(_forecasts.c.as_of.desc(), _forecasts.c.seq.desc()).limit(limit)).all()
            found = db.execute(
                sa.select(_outcomes.c.forecast_seq, _outcomes.c.body).where(
                    _outcomes.c.forecast_seq.in_([row.seq for row in rows])
                )
            ).all()
        outcomes: dict[int, dict[str, Any]] = {}
        for outcome in found:
            body = json.loads(outcome.body)
            outcomes.setdefault(outcome.forecast_seq, {})[str(body["bars"])] = body
        return [json.loads(row.body) | {"outcomes": outcomes.get(row.seq, {})} for row in rows]

    def count(self) -> int:
        with self._engine.connect() as db:
            return int(db.execute(sa.select(sa.func.count()).select_from(_forecasts)).scalar_one())

    def verify(self) -> list[str]:
        """What is wrong with the chains, in words; an empty list when every row is as it was written."""
        problems: list[str] = []
        with self._engine.connect() as db:
            for chain, table in _CHAINS.items():
                problems += self._verify_chain(db, chain, table)
        return problems

    def _verify_chain(self, db: sa.Connection, chain: str, table: sa.Table) -> Iterator[str]:
        previous, rows = GENESIS, 0
        for row in db.execute(sa.select(table).order_by(table.c.seq)).mappings():
            rows += 1
            if row["seq"] != rows:
                yield f"{chain}: row {rows} is missing"
                rows = row["seq"]
            elif row["previous"] != previous:
                yield f"{chain}: row {row['seq']} does not follow the row before it"
            columns = {name: row[name] for name in row if name not in ("body", "previous", "hash")}
            if not hmac.compare_digest(row["hash"], self._hash(row["previous"], columns, row["body"])):
                yield f"{chain}: row {row['seq']} was changed after it was written"
            previous = row["hash"]
        seal = db.execute(sa.select(_seals).where(_seals.c.chain == chain)).mappings().first()
        if (rows, self._seal(rows, previous)) != (
            (seal["rows"], seal["seal"]) if seal else (0, self._seal(0, GENESIS))
        ):
            yield f"{chain}: the end of the chain was cut off or replaced"

    def _link(self, db: sa.Connection, chain: str, columns: dict[str, Any], body: dict[str, Any]) -> int:
        """Append one row to a chain, signed over the row before it."""
        table = _CHAINS[chain]
        last = db.execute(sa.select(table.c.seq, table.c.hash).order_by(table.c.seq.desc()).limit(1)).first()
        seq, previous = (last.seq + 1, last.hash) if last else (1, GENESIS)
        text = _canonical(body)
        link = self._hash(previous, {"seq": seq, **columns}, text)
        db.execute(sa.insert(table).values(seq=seq, **columns, body=text, previous=previous, hash=link))
        db.execute(sa.delete(_seals).where(_seals.c.chain == chain))
        db.execute(sa.insert(_seals).values(chain=chain, rows=seq, seal=self._seal(seq, link)))
        return int(seq)

    def _hash(self, previous: str, columns: dict[str, Any], body: str) -> str:
        return hmac.new(self._key, f"{previous}\n{_canonical(columns)}\n{body}".encode(), hashlib.sha256).hexdigest()

    def _seal(self, rows: int, last: str) -> str:
        return hmac.new(self._key, f"seal {rows} {last}".encode(), hashlib.sha256).hexdigest()

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with self._engine.connect().execution_options(writes=True) as db, db.begin():
            yield db


def _canonical(value: Any) -> str:
    return json.dumps(jsonable(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _inside(quantiles: dict[str, float] | None, low: str, high: str, value: float) -> bool | None:
    """Whether the return fell into the interval; None when there was none. Keys may be written "0.1" or "0.10"."""
    levels = {float(level): q for level, q in (quantiles or {}).items() if q is not None}
    if float(low) not in levels or float(high) not in levels:
        return None
    return bool(levels[float(low)] <= value <= levels[float(high)])


def _sqlite_manners(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves, see below
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the writer
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.close()


def _take_write_lock(connection: sa.Connection) -> None:
    # A chain has one end: it is read and appended to under one lock.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")
