"""Questions to the ledger: past forecasts beside their outcomes, and what live skill and widths are learned from.

Each works inside the caller's transaction. Knows neither chains nor models.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import sqlalchemy as sa

from actors.ledger_tables import forecasts, outcomes, pending
from market.forecasts import iso_utc, parse_utc


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


def oldest_pending(db: sa.Connection) -> dict[tuple[str, str], datetime]:
    """(symbol, timeframe) -> the as-of of its oldest forecast that waits for an outcome."""
    series = (pending.c.symbol, pending.c.timeframe)
    found = db.execute(sa.select(*series, sa.func.min(pending.c.as_of)).group_by(*series))
    return {(symbol, timeframe): parse_utc(as_of) for symbol, timeframe, as_of in found}


def waiting(db: sa.Connection) -> dict[tuple[str, str], list[tuple[datetime, int]]]:
    """(symbol, timeframe) -> as-of and horizon in bars of everything that waits for an outcome."""
    found: dict[tuple[str, str], list[tuple[datetime, int]]] = {}
    for row in db.execute(sa.select(pending.c.symbol, pending.c.timeframe, pending.c.as_of, pending.c.bars)):
        found.setdefault((row.symbol, row.timeframe), []).append((parse_utc(row.as_of), row.bars))
    return found


def history(
    db: sa.Connection,
    symbol: str,
    timeframe: str,
    limit: int,
    before: datetime | None,
    since: datetime | None,
    after: tuple[datetime, int] | None,
) -> list[dict[str, Any]]:
    where = [forecasts.c.symbol == symbol, forecasts.c.timeframe == timeframe]
    if since is not None:
        where.append(forecasts.c.as_of >= iso_utc(since))
    if before is not None:
        where.append(forecasts.c.as_of < iso_utc(before))
    if after is not None:
        row = (sa.literal(iso_utc(after[0])), sa.literal(after[1]))
        where.append(sa.tuple_(forecasts.c.as_of, forecasts.c.seq) < sa.tuple_(*row))
    query = sa.select(forecasts.c.seq, forecasts.c.body).where(*where)
    rows = db.execute(query.order_by(forecasts.c.as_of.desc(), forecasts.c.seq.desc()).limit(limit)).all()
    happened: dict[int, dict[str, Any]] = {}
    known = sa.select(outcomes.c.forecast_seq, outcomes.c.body)
    for seq, text in db.execute(known.where(outcomes.c.forecast_seq.in_([row.seq for row in rows]))):
        body = orjson.loads(text)
        happened.setdefault(seq, {})[str(body["bars"])] = body
    return [orjson.loads(row.body) | {"seq": row.seq, "outcomes": happened.get(row.seq, {})} for row in rows]


def recorded(
    db: sa.Connection, model_id: str, timeframe: str, since: datetime, until: datetime
) -> list[dict[str, Any]]:
    where = [forecasts.c.model_id == model_id, forecasts.c.timeframe == timeframe]
    where += [forecasts.c.as_of >= iso_utc(since), forecasts.c.as_of <= iso_utc(until)]
    query = sa.select(forecasts.c.body).where(*where).order_by(forecasts.c.as_of, forecasts.c.symbol)
    return [orjson.loads(body) for body in db.execute(query).scalars()]


def settled(db: sa.Connection, timeframe: str, after: int, limit: int) -> list[Settled]:
    """In the order of `seq`, from `after` on."""
    query = _beside_each_other().where(outcomes.c.timeframe == timeframe, outcomes.c.seq > after)
    return _settled(db.execute(query.order_by(outcomes.c.seq).limit(limit)))


def settled_of(
    db: sa.Connection, model_id: str, timeframe: str, symbol: str, since: datetime, until_seq: int
) -> list[Settled]:
    """One model's, of one symbol, forecast at `since` or later and known by the outcome `until_seq`; by forecast."""
    where = [forecasts.c.model_id == model_id, forecasts.c.timeframe == timeframe, forecasts.c.symbol == symbol]
    where += [forecasts.c.as_of >= iso_utc(since), outcomes.c.seq <= until_seq]
    return _settled(db.execute(_beside_each_other().where(*where).order_by(forecasts.c.seq, outcomes.c.bars)))


def closes(db: sa.Connection, model_id: str, timeframe: str) -> list[tuple[datetime, int]]:
    """Every as-of close that one model forecast at, oldest first, and the number of the first forecast there."""
    query = sa.select(forecasts.c.as_of, sa.func.min(forecasts.c.seq)).where(
        forecasts.c.model_id == model_id, forecasts.c.timeframe == timeframe
    )
    found = db.execute(query.group_by(forecasts.c.as_of).order_by(forecasts.c.as_of))
    return [(parse_utc(as_of), seq) for as_of, seq in found]


def newest(db: sa.Connection, timeframe: str, symbols: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Symbol -> its newest forecast as recorded."""
    found = {}
    for symbol in symbols:
        query = sa.select(forecasts.c.body).where(forecasts.c.symbol == symbol, forecasts.c.timeframe == timeframe)
        last = db.execute(query.order_by(forecasts.c.as_of.desc(), forecasts.c.seq.desc()).limit(1)).scalar()
        if last is not None:
            found[symbol] = orjson.loads(last)
    return found


def _beside_each_other() -> sa.Select[Any]:
    columns = (outcomes.c.seq, outcomes.c.bars, outcomes.c.body.label("outcome"), outcomes.c.forecast_seq)
    both = sa.select(*columns, forecasts.c.body.label("forecast"))
    return both.join(forecasts, forecasts.c.seq == outcomes.c.forecast_seq)


def _settled(rows: Iterable[Any]) -> list[Settled]:
    found: list[Settled] = []
    forecast, read = {}, 0
    for seq, bars, outcome, forecast_seq, text in rows:
        if read != forecast_seq:  # its horizons often follow each other: it is parsed once for all of them
            forecast, read = orjson.loads(text), forecast_seq
        found.append(
            Settled(
                seq=seq,
                symbol=forecast["symbol"],
                as_of=parse_utc(forecast["as_of"]),
                made_at=parse_utc(forecast["made_at"]),
                model_id=forecast["model_id"],
                horizon=next(horizon for horizon in forecast["horizons"] if horizon["bars"] == bars),
                outcome=orjson.loads(outcome),
            )
        )
    return found
