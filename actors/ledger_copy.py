"""A ledger's rows as they are, from one database into another: for backups. Signs nothing, changes nothing.

Whatever tables the newest migration makes are copied, so a backup of a PostgreSQL is a SQLite file, and back.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from actors.ledger_database import LedgerDatabase
from market.errors import LedgerError

ROWS_AT_ONCE = 500


def copy_ledger(source: LedgerDatabase, target: LedgerDatabase, *, replace: bool = False) -> int:
    """One snapshot of `source` into `target`, in one transaction; how many rows. Both may be in use meanwhile.

    LedgerError when `target` holds rows and they are not to be replaced, SecondWriter when somebody writes it.
    """
    with source.reading() as read, target.writing() as write:
        tables = _tables(read)
        held = [table.name for table in tables if write.execute(sa.select(table).limit(1)).first()]
        if held and not replace:
            raise LedgerError(
                f"The ledger's database holds rows already (in {', '.join(held)}).",
                hint="Give --force to replace them, or another ledger_url.",
            )
        for table in reversed(tables):
            write.execute(sa.delete(table))
        return sum(_copy_table(read, write, table) for table in tables)


def _tables(db: sa.Connection) -> list[sa.Table]:
    found = sa.MetaData()
    found.reflect(db)
    return [table for table in found.sorted_tables if table.name != "alembic_version"]


def _copy_table(read: sa.Connection, write: sa.Connection, table: sa.Table) -> int:
    copied = 0
    for part in read.execute(sa.select(table)).mappings().partitions(ROWS_AT_ONCE):
        write.execute(sa.insert(table), [dict(row) for row in part])
        copied += len(part)
    return copied


def copy_sqlite(source: Path, target: Path) -> None:
    """A SQLite ledger by SQLite's own backup: a snapshot, also while its writer writes. `target`: one file, no WAL beside it."""
    with closing(sqlite3.connect(source, timeout=10)) as read, closing(sqlite3.connect(target)) as write:
        read.backup(write)
        write.execute("PRAGMA journal_mode=DELETE")
