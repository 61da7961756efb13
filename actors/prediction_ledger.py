"""Every forecast, written before its outcome is known and never changed; outcomes are joined when their bars have closed.

Rows are hash-chained, so an edited, removed or inserted row is found by `verify`. Knows neither models nor Ray.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from actors.forecast_spool import SpooledForecast
from actors.ledger_database import LedgerDatabase
from actors.signed_chain import GENESIS, canonical, same, signature
from configs.settings import Settings
from market.errors import LedgerBroken
from market.forecasts import Forecast, iso_utc, parse_utc

SETTLED_AT_ONCE = 5000
BATCH = 200  # outcomes that are joined in one transaction

_metadata = sa.MetaData()

# As ledger_migrations/versions make them; a test compares. Times are ISO strings in UTC ending in Z: they sort as text, in SQLite and PostgreSQL alike.
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
    sa.Index("forecasts_by_model", "model_id", "timeframe", "symbol", "seq", "as_of"),
)
_outcomes = sa.Table(
    "outcomes",
    _metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("forecast_seq", sa.Integer, nullable=False),
    sa.Column("bars", sa.Integer, nullable=False),
    sa.Column("symbol", sa.String(16), nullable=False),
    sa.Column("timeframe", sa.String(4), nullable=False),
    sa.Column("inside80", sa.Boolean),  # null: the forecast had no interval
    sa.Column("inside90", sa.Boolean),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.UniqueConstraint("forecast_seq", "bars"),
    # Coverage is asked for with every forecast: it must not read the bodies.
    sa.Index("outcomes_coverage", "timeframe", "bars", "symbol", "inside80", "inside90"),
    sa.Index("outcomes_by_forecast", "forecast_seq", "bars", "inside80", "inside90"),
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
    """Share of outcomes inside the 80 % and 90 % intervals, over `n` outcomes; None while there are none.

    `since`: the as-of of the first forecast that is counted; None unless one model was asked for.
    """

    n: int
    cov80: float | None
    cov90: float | None
    since: datetime | None = None


@dataclass(frozen=True)
class Broken:
    """`rows` rows of a chain, from row `row` on, are not as they were written."""

    chain: str
    row: int
    what: str
    rows: int = 1

    def __str__(self) -> str:
        return f"{self.chain}: {self.what}"


@dataclass(frozen=True)
class Verdict:
    """What `verify` found. `rows` and `heads`: length and last hash of each chain, worth noting down somewhere else."""

    rows: dict[str, int] = field(default_factory=dict)
    heads: dict[str, str] = field(default_factory=dict)
    broken: tuple[Broken, ...] = ()

    @property
    def intact(self) -> bool:
        return not self.broken


@dataclass(frozen=True)
class Settled:
    """One horizon of one recorded forecast beside its outcome. `seq` rises in the order in which outcomes became known."""

    seq: int
    symbol: str
    as_of: datetime
    made_at: datetime  # wall clock
    model_id: str
    horizon: dict[str, Any]  # as recorded: HorizonForecast
    outcome: dict[str, Any]  # bars, closed_at, close, return, volatility, ...


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
        self._key, self._wall, self._market_now = key.encode(), wall, market_now or wall
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

    def append(self, forecasts: Iterable[Forecast | SpooledForecast]) -> int:
        """Write what is not there yet, one row per (symbol, timeframe, as_of, model_id). Returns how many were new.

        Each body says when it was recorded, and `recorded_late` when the market had reached the end of its first horizon
        by then. One that waited in the spool also says since when: `spooled_at` and `spooled_market_time`.
        """
        with self._database.writing() as db:
            return sum(self._append_one(db, self._with_times(forecast)) for forecast in forecasts)

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

    def _append_one(self, db: sa.Connection, body: dict[str, Any]) -> bool:
        fields = {name: body[name] for name in ("symbol", "timeframe", "as_of", "model_id")}
        where = sa.and_(*(_forecasts.c[name] == value for name, value in fields.items()))
        if db.execute(sa.select(_forecasts.c.seq).where(where)).first():
            return False
        seq = self._link(db, "forecasts", fields, body)
        series = {name: fields[name] for name in ("symbol", "timeframe", "as_of")}
        waiting = [{"forecast_seq": seq, "bars": horizon["bars"], **series} for horizon in body["horizons"]]
        if waiting:
            db.execute(sa.insert(_pending), waiting)
        return True

    def oldest_pending(self, symbol: str, timeframe: str) -> datetime | None:
        """The as-of of the oldest forecast that waits for an outcome; `settle` wants bars from there on."""
        query = sa.select(sa.func.min(_pending.c.as_of)).where(
            _pending.c.symbol == symbol, _pending.c.timeframe == timeframe
        )
        with self._database.reading() as db:
            found = db.execute(query).scalar()
        return parse_utc(found) if found else None

    def settle(self, bars: pa.Table) -> int:
        """Join outcomes: `bars` is one symbol's and timeframe's closed bars, oldest first. Returns how many were joined.

        Horizon h ends with the h-th bar after the as-of bar. A forecast whose as-of bar is not in `bars` keeps waiting.
        """
        joined = 0
        while bars.num_rows and (n := self._settle_some(bars)):
            joined += n
        return joined

    def _settle_some(self, bars: pa.Table) -> int:
        """At most BATCH, in one transaction: what a long backlog has joined stays joined when the database goes away."""
        symbol, timeframe = bars["symbol"][0].as_py(), bars["timeframe"][0].as_py()
        closes = bars["close"].to_numpy()
        row_of = {time: row for row, time in enumerate(bars["close_time"].to_pylist())}
        # The as-of is the signed one: what waits is only a list, which nobody signs.
        query = (
            sa.select(
                _pending.c.forecast_seq, _pending.c.bars, *(_forecasts.c[n] for n in ("symbol", "timeframe", "as_of"))
            )
            .join(_forecasts, _forecasts.c.seq == _pending.c.forecast_seq)
            .where(_pending.c.symbol == symbol, _pending.c.timeframe == timeframe)
        )
        with self._database.writing() as db:
            due = []
            for waiting in db.execute(query.order_by(_pending.c.forecast_seq, _pending.c.bars)).mappings():
                start = row_of.get(parse_utc(waiting["as_of"]))
                if start is not None and start + waiting["bars"] < len(closes):
                    due.append((dict(waiting), start))
                if len(due) == BATCH:
                    break
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

    def coverage(self, timeframe: str, bars: int, symbol: str | None = None, model_id: str | None = None) -> Coverage:
        """Live coverage of one horizon, of one symbol or of all, of one model's forecasts or of all."""
        where = [_outcomes.c.timeframe == timeframe, _outcomes.c.bars == bars, _outcomes.c.inside80.is_not(None)]
        since: Any = sa.null()
        if symbol:
            where.append(_outcomes.c.symbol == symbol)
        if model_id:  # by two indexes: which model made a forecast stands with the forecast only
            series = [_forecasts.c.model_id == model_id, _forecasts.c.timeframe == timeframe]
            series += [_forecasts.c.symbol == symbol] if symbol else []
            where = [*series, _outcomes.c.forecast_seq == _forecasts.c.seq, *where[1:3]]
            since = sa.func.min(_forecasts.c.as_of)
        inside = [
            sa.func.sum(sa.case((column.is_(True), 1), else_=0))
            for column in (_outcomes.c.inside80, _outcomes.c.inside90)
        ]
        with self._database.reading() as db:
            n, in80, in90, first = db.execute(
                sa.select(sa.func.count(_outcomes.c.bars), *inside, since).where(*where)
            ).one()
        return Coverage(n, in80 / n, in90 / n, parse_utc(first) if first else None) if n else Coverage(0, None, None)

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
        where = [_forecasts.c.symbol == symbol, _forecasts.c.timeframe == timeframe]
        if since is not None:
            where.append(_forecasts.c.as_of >= iso_utc(since))
        if before is not None:
            where.append(_forecasts.c.as_of < iso_utc(before))
        if after is not None:
            row = (sa.literal(iso_utc(after[0])), sa.literal(after[1]))
            where.append(sa.tuple_(_forecasts.c.as_of, _forecasts.c.seq) < sa.tuple_(*row))
        query = sa.select(_forecasts.c.seq, _forecasts.c.body).where(*where)
        with self._database.reading() as db:
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
        return [json.loads(row.body) | {"seq": row.seq, "outcomes": outcomes.get(row.seq, {})} for row in rows]

    def recorded(self, model_id: str, timeframe: str, since: datetime, until: datetime) -> list[dict[str, Any]]:
        """One model's forecasts as of [since, until], by as-of and symbol."""
        where = [_forecasts.c.model_id == model_id, _forecasts.c.timeframe == timeframe]
        where += [_forecasts.c.as_of >= iso_utc(since), _forecasts.c.as_of <= iso_utc(until)]
        query = sa.select(_forecasts.c.body).where(*where).order_by(_forecasts.c.as_of, _forecasts.c.symbol)
        with self._database.reading() as db:
            return [json.loads(body) for body in db.execute(query).scalars()]

    def settled(
        self, timeframe: str, after: int = 0, model_id: str | None = None, limit: int = SETTLED_AT_ONCE
    ) -> list[Settled]:
        """Forecasts whose outcome is known, in the order of `seq` from `after` on, at most `limit`."""
        where = [_outcomes.c.timeframe == timeframe, _outcomes.c.seq > after]
        where += [_forecasts.c.model_id == model_id] if model_id else []
        query = (
            sa.select(
                _outcomes.c.seq,
                _outcomes.c.bars,
                _outcomes.c.body.label("outcome"),
                _forecasts.c.body.label("forecast"),
            )
            .join(_forecasts, _forecasts.c.seq == _outcomes.c.forecast_seq)
            .where(*where)
            .order_by(_outcomes.c.seq)
            .limit(limit)
        )
        with self._database.reading() as db:
            return [_settled(row) for row in db.execute(query)]

    def count(self) -> int:
        with self._database.reading() as db:
            return int(db.execute(sa.select(sa.func.count()).select_from(_forecasts)).scalar_one())

    def verify(self) -> Verdict:
        """Read every row of one snapshot and compare it with its signature."""
        with self._database.reading() as db:
            return self._verify_in(db)

    def _verify_in(self, db: sa.Connection) -> Verdict:
        broken: list[Broken] = []
        rows: dict[str, int] = {}
        heads: dict[str, str] = {}
        for chain, table in _CHAINS.items():
            rows[chain], heads[chain] = self._verify_chain(db, chain, table, broken)
        for chain in db.execute(sa.select(_seals.c.chain)).scalars():
            if chain not in _CHAINS:
                broken.append(Broken(str(chain), 1, "a seal without a chain was put in"))
        _verify_joins(db, broken)
        return Verdict(rows, heads, tuple(broken))

    def _verify_chain(self, db: sa.Connection, chain: str, table: sa.Table, broken: list[Broken]) -> tuple[int, str]:
        """Its last number and last hash; adds to `broken`."""
        previous, last = GENESIS, 0
        for row in db.execute(sa.select(*_as_stored(table)).order_by(table.c.seq)).yield_per(1000).mappings():
            seq = row["seq"]
            if seq <= last:
                broken.append(Broken(chain, seq, f"row {seq} was put in"))
                continue
            if seq > last + 1:
                names = f"row {last + 1} is" if seq == last + 2 else f"rows {last + 1} to {seq - 1} are"
                broken.append(Broken(chain, last + 1, f"{names} missing", seq - last - 1))
            wrong = self._wrong_with(row)
            if wrong is None and row["previous"] != previous and seq == last + 1:
                wrong = "does not follow the row before it"
            if wrong:
                broken.append(Broken(chain, seq, f"row {seq} {wrong}"))
            previous, last = row["hash"], seq
        seal = _seal_of(db, chain)
        if not self._is_sealed(seal, last, previous):
            lost = seal.rows - last if seal and isinstance(seal.rows, int) else 0
            what = "the end of the chain was cut off or replaced"
            broken.append(Broken(chain, last + 1, f"{what}, after row {last}", max(1, lost)))
        return last, previous

    def _wrong_with(self, row: sa.RowMapping) -> str | None:
        columns = {name: row[name] for name in row if name not in ("body", "previous", "hash")}
        for name in columns.keys() & {"inside80", "inside90"}:
            columns[name] = {0: False, 1: True}.get(columns[name], columns[name])
        try:
            expected = self._hash(row["previous"], columns, row["body"])
        except (TypeError, ValueError):  # a type that was never written
            return "was changed after it was written"
        return None if same(row["hash"], expected) else "was changed after it was written"

    # One row after the other

    def _link(self, db: sa.Connection, chain: str, columns: dict[str, Any], body: dict[str, Any]) -> int:
        """Append one row to a chain, signed over the row before it."""
        table = _CHAINS[chain]
        last = db.execute(sa.select(table.c.seq, table.c.hash).order_by(table.c.seq.desc()).limit(1)).first()
        seq, previous = (last.seq + 1, last.hash) if last else (1, GENESIS)
        self._refuse_unsealed(db, chain, seq - 1, previous)
        text = canonical(body)
        link = self._hash(previous, {"seq": seq, **columns}, text)
        db.execute(sa.insert(table).values(seq=seq, **columns, body=text, previous=previous, hash=link))
        db.execute(sa.delete(_seals).where(_seals.c.chain == chain))
        db.execute(sa.insert(_seals).values(chain=chain, rows=seq, seal=self._seal(seq, link)))
        return int(seq)

    def _refuse_unsealed(self, db: sa.Connection, chain: str, rows: int, last: str) -> None:
        """A new seal over an end that was cut off would hide that for ever."""
        if not self._is_sealed(_seal_of(db, chain), rows, last):
            raise LedgerBroken(
                f"The end of the ledger's {chain} is not as it was left, or is signed with another key.",
                hint="See `lstmc ledger verify`; restore the ledger from a backup, or give this installation another one.",
            )

    def _is_sealed(self, seal: Any, rows: int, last: str) -> bool:
        if seal is None:
            return rows == 0
        return seal.rows == rows and same(seal.seal, self._seal(rows, last))

    def _hash(self, previous: str, columns: dict[str, Any], body: str) -> str:
        return signature(self._key, f"{previous}\n{canonical(columns)}\n{body}")

    def _seal(self, rows: int, last: str) -> str:
        return signature(self._key, f"seal {rows} {last}")


def _settled(row: Any) -> Settled:
    forecast = json.loads(row.forecast)
    return Settled(
        seq=row.seq,
        symbol=forecast["symbol"],
        as_of=parse_utc(forecast["as_of"]),
        made_at=parse_utc(forecast["made_at"]),
        model_id=forecast["model_id"],
        horizon=next(horizon for horizon in forecast["horizons"] if horizon["bars"] == row.bars),
        outcome=json.loads(row.outcome),
    )


def _seal_of(db: sa.Connection, chain: str) -> Any:
    return db.execute(sa.select(_seals.c.rows, _seals.c.seal).where(_seals.c.chain == chain)).first()


def _as_stored(table: sa.Table) -> list[sa.ColumnElement[Any]]:
    """Its columns, truth values as the database has them: 2 must not be read as true, since nothing else reads it so."""
    return [
        sa.type_coerce(column, sa.Integer).label(column.name) if isinstance(column.type, sa.Boolean) else column
        for column in table.c
    ]


def _verify_joins(db: sa.Connection, broken: list[Broken]) -> None:
    """Each horizon of each forecast has its outcome or waits for it: `pending` is not signed, but it must fit."""
    known: dict[Any, list[Any]] = {}
    for table in (_pending, _outcomes):
        as_of = table.c.as_of if table is _pending else sa.null()
        columns = (table.c[name] for name in ("forecast_seq", "bars", "symbol", "timeframe"))
        for seq, *waits in db.execute(sa.select(*columns, as_of)).yield_per(1000):
            known.setdefault(seq, []).append(tuple(waits))
    for row in db.execute(sa.select(_forecasts).order_by(_forecasts.c.seq)).yield_per(1000):
        found = known.pop(row.seq, [])
        try:
            wanted = [horizon["bars"] for horizon in json.loads(row.body)["horizons"]]
        except (ValueError, KeyError, TypeError):  # the chain has said so already
            continue
        series = {waits[1:] for waits in found} - {(row.symbol, row.timeframe, end) for end in (row.as_of, None)}
        if series or Counter(waits[0] for waits in found) != Counter(wanted):
            broken.append(Broken("pending", row.seq, f"what forecast {row.seq} waits for was changed"))
    for seq in sorted(known, key=str):
        broken.append(Broken("pending", seq, f"outcomes belong to forecast {seq}, which is not there"))


def _inside(quantiles: dict[str, float] | None, low: str, high: str, value: float) -> bool | None:
    """Whether the return fell into the interval; None when there was none. Keys may be written "0.1" or "0.10"."""
    levels = {float(level): q for level, q in (quantiles or {}).items() if q is not None}
    if float(low) not in levels or float(high) not in levels:
        return None
    return bool(levels[float(low)] <= value <= levels[float(high)])
