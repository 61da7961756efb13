"""Where the ledger's rows live: a SQLite file, or one schema of a PostgreSQL. Opens it, migrates it, lets one writer in.

Knows nothing about chains or forecasts. A URL may hold a password: no error here repeats it.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import sqlalchemy as sa
from sqlalchemy.pool import NullPool, QueuePool

from market.errors import ConfigError, LedgerTooNew, LedgerUnavailable, SecondWriter

REVISION = "0003"  # the newest in ledger_migrations/versions
MIGRATIONS = Path(__file__).parent / "ledger_migrations"
CONNECT_SECONDS = 5
URL_HINT = "Write it like postgresql://user:password@host:5432/database; inside the password write %40 for @, %2F for /, %3A for :."


class LedgerDatabase:
    """One database. Nothing is opened before the first `reading` or `writing`; both raise LedgerUnavailable when it is away.

    `schema`: where the tables are in a PostgreSQL, so that two markets in one database never meet; SQLite has a file each.
    """

    def __init__(self, url: str, schema: str = "lstmc") -> None:
        self._url = _parsed(url)
        self._schema = schema
        self._is_sqlite = self._url.get_backend_name() == "sqlite"
        self._engine = _sqlite_engine(self._url) if self._is_sqlite else _postgres_engine(self._url, schema)
        self._ready = False
        self._opening, self._writing = threading.Lock(), threading.Lock()
        self._writer: sa.Connection | None = None
        self._lock_file: BinaryIO | None = None

    @property
    def engine(self) -> sa.Engine:
        return self._engine

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One snapshot of all tables: rows that are written meanwhile are not in it."""
        with _said_plainly():
            self._prepare()
            with self._engine.connect() as db:
                if not self._is_sqlite:  # SQLite's BEGIN is a snapshot as it is
                    db.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
                with db.begin():
                    yield db

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """One transaction of the one writer; SecondWriter while another process or object is it.

        The first call becomes the writer and stays it until `close` or the end of the process.
        """
        with _said_plainly(), self._writing:
            self._prepare()
            if self._writer is not None and not self._writer_answers():
                self._leave_writer()
            if self._writer is None:
                self._writer = self._become_writer()
            try:
                with self._writer.begin():
                    yield self._writer
            except BaseException:
                # SQLAlchemy would reconnect by itself, and a new connection does not hold the writer's lock.
                self._leave_writer()
                raise

    def close(self) -> None:
        with self._writing:
            if self._writer is not None and not self._is_sqlite:
                with suppress(sa.exc.SQLAlchemyError):  # the server may take a moment to see that the session has ended
                    self._writer.exec_driver_sql("SELECT pg_advisory_unlock_all()")
            self._leave_writer()
        self._engine.dispose()

    # The schema

    def _prepare(self) -> None:
        """Migrate to REVISION, once; whoever comes second waits for the lock and finds it done."""
        with self._opening:
            if self._ready:
                return
            if self._is_sqlite:
                Path(str(self._url.database)).parent.mkdir(parents=True, exist_ok=True)
            with self._engine.connect().execution_options(writes=True) as db, db.begin():
                if not self._is_sqlite:
                    db.execute(sa.text("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0"))
                    db.execute(sa.select(sa.func.pg_advisory_xact_lock(_lock_number("migrate", self._schema))))
                    _ensure_schema(db, self._schema)
                found = _revision(db)
                if found != REVISION:
                    _upgrade(db, found)
            self._ready = True

    # The writer

    def _become_writer(self) -> sa.Connection:
        if self._is_sqlite:
            self._lock_file = _locked_file(Path(f"{self._url.database}.lock"))
            return self._engine.connect().execution_options(writes=True)
        db = self._engine.connect()
        # A session's lock: it ends with the connection, so also with this process, however that ends.
        if not db.execute(sa.select(sa.func.pg_try_advisory_lock(_lock_number("write", self._schema)))).scalar_one():
            db.close()
            raise _second_writer(f"the schema {self._schema}")
        db.commit()
        return db

    def _writer_answers(self) -> bool:
        """Whether the kept connection outlived its server, as the pool asks of those that it lends."""
        assert self._writer is not None
        if self._is_sqlite:
            return True
        try:
            self._writer.exec_driver_sql("SELECT 1")
            self._writer.rollback()
        except sa.exc.SQLAlchemyError:
            return False
        return True

    def _leave_writer(self) -> None:
        if self._writer is not None:
            with suppress(sa.exc.SQLAlchemyError):
                self._writer.invalidate()  # not back into the pool, where the lock would live on
            with suppress(sa.exc.SQLAlchemyError):
                self._writer.close()
            self._writer = None
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None


def _parsed(url: str) -> sa.URL:
    """ConfigError for what is no SQLite file or PostgreSQL; never with any part of the URL in it."""
    try:
        parsed = sa.make_url(url)
    except Exception:
        raise ConfigError("ledger_url cannot be read as a URL.", hint=URL_HINT) from None
    if parsed.get_backend_name() == "sqlite" and parsed.database and parsed.database != ":memory:":
        return parsed
    if parsed.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise ConfigError("ledger_url is neither a PostgreSQL nor a SQLite file.", hint=URL_HINT)
    # An unquoted @ or / would make a piece of the password the host, which error messages name.
    if url.split("?")[0].count("@") > 1 or not re.fullmatch(r"[\w.:-]*", parsed.host or ""):
        raise ConfigError("ledger_url holds characters that must be quoted.", hint=URL_HINT)
    return parsed.set(drivername="postgresql+psycopg")


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    # NullPool: a connection per use; the ledger is called from several threads, a few times a minute.
    engine = sa.create_engine(url, poolclass=NullPool)
    sa.event.listen(engine, "connect", _sqlite_manners)
    sa.event.listen(engine, "begin", _take_write_lock)
    return engine


def _sqlite_manners(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves, see below
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the writer
    cursor.execute("PRAGMA synchronous=FULL")  # what was committed, and then published, survives a power cut
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.close()


def _take_write_lock(connection: sa.Connection) -> None:
    # A chain has one end: it is read and appended to under one lock.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def _postgres_engine(url: sa.URL, schema: str) -> sa.Engine:
    engine = sa.create_engine(
        url,
        poolclass=QueuePool,
        pool_pre_ping=True,  # a server that was restarted meanwhile
        hide_parameters=True,
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "tcp_user_timeout": 10_000,
            "application_name": "lstmc ledger",
        },
    )

    def manners(connection: Any, _record: Any) -> None:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f'SET search_path TO "{schema}"')
            cursor.execute("SET statement_timeout = '30s'; SET lock_timeout = '10s'; SET synchronous_commit = 'on'")
        connection.autocommit = False

    sa.event.listen(engine, "connect", manners)
    return engine


def _ensure_schema(db: sa.Connection, schema: str) -> None:
    # Asked first: CREATE SCHEMA IF NOT EXISTS wants the right to create one even where it exists.
    if not db.execute(sa.text("SELECT 1 FROM pg_namespace WHERE nspname = :schema"), {"schema": schema}).first():
        db.execute(sa.schema.CreateSchema(schema))


def _revision(db: sa.Connection) -> str | None:
    """None: an empty database, or a ledger that is older than its first revision."""
    if not sa.inspect(db).has_table("alembic_version"):
        return None
    return db.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(db: sa.Connection, found: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise LedgerTooNew(
            f"The ledger has revision {found}, this installation knows up to {REVISION}.",
            hint="A newer LSTMC has written it: install that version again, or set another ledger_url.",
        )
    config.attributes["connection"] = db
    command.upgrade(config, REVISION)


def _lock_number(purpose: str, schema: str) -> int:
    """PostgreSQL's advisory locks have 64-bit numbers and belong to one database."""
    digest = hashlib.sha256(f"lstmc ledger {purpose} {schema}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _locked_file(path: Path) -> BinaryIO:
    import fcntl  # not there on Windows, where no ledger is written

    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, however that ends
    except OSError:
        file.close()
        raise _second_writer(str(path.with_suffix(""))) from None
    return file


def _second_writer(where: str) -> SecondWriter:
    return SecondWriter(
        f"Another process writes the ledger in {where}.",
        hint="Two writers would fork its chain: stop the other installation, or give this one a ledger_url of its own.",
    )


@contextmanager
def _said_plainly() -> Iterator[None]:
    """The driver's errors, which span lines and links, as one sentence."""
    try:
        yield
    except (sa.exc.SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        raise LedgerUnavailable(
            f"The ledger's database does not answer: {lines[0] if lines else type(cause).__name__}",
            hint="Forecasts wait in the spool meanwhile; see that the database runs and that secrets/ledger_url is right.",
        ) from None
