"""The two chains of signed rows: appending to them, sealing their ends, and finding whatever was done to them since.

Each row is signed over the row before it, each end has a seal, and each forecast names the end of the outcomes that it
saw, so that an older copy of one chain does not fit the other. Opens no database.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from actors.ledger_tables import CHAINS, forecasts, outcomes, pending, seals
from actors.signed_chain import GENESIS, canonical, same, signature
from market.errors import LedgerBroken

SEEN = "outcomes_seen"  # in a forecast's body: {"rows", "head"} of the outcomes when it was written
CHANGED = "was changed after it was written"


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


class LedgerChains:
    """All methods work inside the caller's transaction. `key`: what is signed with."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def link(self, db: sa.Connection, chain: str, rows: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[int]:
        """Append (columns, body) rows, each signed over the one before; one seal for all. Returns their numbers.

        LedgerBroken when the chain does not end as it was left: a new seal over that would hide it for ever.
        """
        seq, previous = self.end(db, chain)
        made = []
        for columns, body in rows:
            text, seq = canonical(body), seq + 1
            link = self._hash(previous, {"seq": seq, **columns}, text)
            made.append({"seq": seq, **columns, "body": text, "previous": previous, "hash": link})
            previous = link
        if made:
            db.execute(sa.insert(CHAINS[chain]), made)
            db.execute(sa.delete(seals).where(seals.c.chain == chain))
            db.execute(sa.insert(seals).values(chain=chain, rows=seq, seal=self._seal(seq, previous)))
        return [row["seq"] for row in made]

    def end(self, db: sa.Connection, chain: str) -> tuple[int, str]:
        """Number and hash of the last row, compared with the seal: LedgerBroken when they do not fit."""
        table = CHAINS[chain]
        last = db.execute(sa.select(table.c.seq, table.c.hash).order_by(table.c.seq.desc()).limit(1)).first()
        rows, link = (last.seq, last.hash) if last else (0, GENESIS)
        if not self._is_sealed(_seal_of(db, chain), rows, link):
            raise LedgerBroken(
                f"The end of the ledger's {chain} is not as it was left, or is signed with another key.",
                hint="See `lstmc ledger verify`; restore the ledger from a backup, or give this installation another one.",
            )
        return rows, link

    # Verifying

    def verify(self, db: sa.Connection) -> Verdict:
        """Every row of both chains, their seals, and whether the tables fit each other."""
        broken: list[Broken] = []
        rows: dict[str, int] = {}
        heads: dict[str, str] = {}
        for chain, table in CHAINS.items():
            rows[chain], heads[chain] = self._verify_chain(db, chain, table, broken)
        for chain in db.execute(sa.select(seals.c.chain)).scalars():
            if chain not in CHAINS:
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
            return CHANGED
        return None if same(row["hash"], expected) else CHANGED

    def _is_sealed(self, seal: Any, rows: int, last: str) -> bool:
        if seal is None:
            return rows == 0
        return seal.rows == rows and same(seal.seal, self._seal(rows, last))

    def _hash(self, previous: str, columns: dict[str, Any], body: str) -> str:
        return signature(self._key, f"{previous}\n{canonical(columns)}\n{body}")

    def _seal(self, rows: int, last: str) -> str:
        return signature(self._key, f"seal {rows} {last}")


def _seal_of(db: sa.Connection, chain: str) -> Any:
    return db.execute(sa.select(seals.c.rows, seals.c.seal).where(seals.c.chain == chain)).first()


def _as_stored(table: sa.Table) -> list[sa.ColumnElement[Any]]:
    """Its columns, truth values as the database has them: 2 must not be read as true, since nothing else reads it so."""
    return [
        sa.type_coerce(column, sa.Integer).label(column.name) if isinstance(column.type, sa.Boolean) else column
        for column in table.c
    ]


def _verify_joins(db: sa.Connection, broken: list[Broken]) -> None:
    """Each horizon of each forecast has its outcome or waits for it: `pending` is not signed, but it must fit. And the
    outcomes that a forecast has seen are still there."""
    known: dict[Any, list[Any]] = {}
    for table in (pending, outcomes):
        as_of = table.c.as_of if table is pending else sa.null()
        columns = (table.c[name] for name in ("forecast_seq", "bars", "symbol", "timeframe"))
        for seq, *waits in db.execute(sa.select(*columns, as_of)).yield_per(1000):
            known.setdefault(seq, []).append(tuple(waits))
    ends: dict[tuple[int, str], int] = {}  # of the outcomes, as seen by -> the first forecast that did
    for row in db.execute(sa.select(forecasts).order_by(forecasts.c.seq)).yield_per(1000):
        found = known.pop(row.seq, [])
        try:
            body = json.loads(row.body)
            wanted = [horizon["bars"] for horizon in body["horizons"]]
            if seen := body.get(SEEN):
                ends.setdefault((seen["rows"], seen["head"]), row.seq)
        except (ValueError, KeyError, TypeError, AttributeError):  # the chain has said so already
            continue
        series = {waits[1:] for waits in found} - {(row.symbol, row.timeframe, end) for end in (row.as_of, None)}
        if series or Counter(waits[0] for waits in found) != Counter(wanted):
            broken.append(Broken("pending", row.seq, f"what forecast {row.seq} waits for was changed"))
    for seq in sorted(known, key=str):
        broken.append(Broken("pending", seq, f"outcomes belong to forecast {seq}, which is not there"))
    for seq, link in db.execute(sa.select(outcomes.c.seq, outcomes.c.hash)).yield_per(1000):
        ends.pop((seq, link), None)
    ends.pop((0, GENESIS), None)
    for (rows, _), seq in sorted(ends.items(), key=str)[:1]:
        what = f"row {rows} is not the one that forecast {seq} has seen: the chain is an older copy, or was made anew"
        broken.append(Broken("outcomes", rows, what))
