"""The ledger's databases: migrations that lose nothing, markets that do not meet, URLs that are not repeated."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from actors.ledger_database import MIGRATIONS, REVISION, LedgerDatabase
from actors.ledger_tables import metadata
from actors.prediction_ledger import PredictionLedger
from benchmarks.embedded_postgres import Postgres
from configs.settings import make_settings
from market.errors import ConfigError, LedgerTooNew, LedgerUnavailable
from tests.actors.conftest import KEY, LedgerPlace
from tests.actors.test_prediction_ledger import HOUR, START, bars, forecast

OLD = (
    Path(__file__).parent / "ledgers" / "before_migrations.sql"
)  # dumped from a ledger that the code of that time made


def test_a_ledger_from_before_the_migrations_keeps_every_row(tmp_path: Path) -> None:
    place = LedgerPlace(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        db.executescript(OLD.read_text())
        before = [db.execute(f"select * from {table} order by 1, 2").fetchall() for table in ("forecasts", "outcomes")]
    db.close()
    ledger = place.ledger()
    verdict = ledger.verify()
    assert (verdict.intact, verdict.rows) == (True, {"forecasts": 8, "outcomes": 12})
    assert len(ledger.settled("H1")) == 12
    assert len(ledger.closes("h1-0", "H1")) == 2  # also for forecasts from then
    assert ledger.append([forecast(START + 9 * HOUR), forecast(START + HOUR, model="h1-0")]) == 1
    assert ledger.settle(bars([1.1, 1.11, 1.105, 1.12, 1.119, 1.12, 1.13])) == 2
    assert ledger.verify().intact
    ledger.close()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        after = [db.execute(f"select * from {table} order by 1, 2").fetchall() for table in ("forecasts", "outcomes")]
    db.close()
    assert [rows[: len(old)] for rows, old in zip(after, before, strict=True)] == before


def test_the_migrations_make_the_tables_that_the_code_reads(place: LedgerPlace, ledger: PredictionLedger) -> None:
    ledger.count()
    with ledger._database.engine.connect() as db:
        context = MigrationContext.configure(db)
        assert compare_metadata(context, metadata) == []


def test_the_newest_revision_is_the_one_that_the_code_names() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [REVISION]


def test_a_newer_ledger_is_refused_and_left_alone(place: LedgerPlace, ledger: PredictionLedger) -> None:
    ledger.append([forecast(START + HOUR)])
    ledger.close()
    place.sql("update alembic_version set version_num = '0999'")
    newer = place.ledger()
    for call in (newer.count, newer.verify, lambda: newer.append([forecast(START + 2 * HOUR)])):
        with pytest.raises(LedgerTooNew, match=f"revision 0999, this installation knows up to {REVISION}"):
            call()
    newer.close()


def test_two_markets_in_one_postgres_do_not_meet(postgres: Postgres) -> None:
    names = [make_settings(market="simulated", seed=seed).ledger_schema for seed in (7, 8)]
    assert names == ["lstmc_simulated_7", "lstmc_simulated_8"]
    ledgers = [PredictionLedger(postgres.url, KEY, schema=name) for name in names]
    assert [ledger.append([forecast(START + HOUR)]) for ledger in ledgers] == [1, 1]  # each has a writer of its own
    ledgers[0].append([forecast(START + 2 * HOUR)])
    assert [ledger.count() for ledger in ledgers] == [2, 1]
    for ledger in ledgers:
        ledger.close()


def test_each_market_has_a_schema_of_its_own(tmp_path: Path) -> None:
    given: list[dict[str, Any]] = [
        {"market": "mt5"},
        {"market": "simulated", "seed": 7},
        {"market": "simulated", "seed": 10**80},
        {"market": "simulated", "seed": 10**80 + 1},
        {"market": "http", "data_api_url": "http://10.8.0.2:8001"},
        {"market": "recorded", "bars_dir": tmp_path / "one"},
        {"market": "recorded", "bars_dir": tmp_path / "other"},
    ]
    names = [make_settings(**fields).ledger_schema for fields in given]
    assert len(set(names)) == len(given)
    assert all(re.fullmatch(r"lstmc_[a-z0-9_]{1,57}", name) for name in names)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://desk:s3cr3t@127.0.0.1:1/ledger",  # nobody listens there
        "postgresql://desk:s3cr3t@no-such-host.invalid/ledger",
        "postgresql://desk:p@s3cr3t@127.0.0.1/ledger",
        "postgresql://desk:p@s3cr3t/x@127.0.0.1/ledger",
        "postgresql://desk:s3cr3t/@",
        "postgresql://desk:x@s3cr3t!/ledger",
        "postgresql://desk:s3cr3t@127.0.0.1:s3cr3t/ledger",
        "mysql://desk:s3cr3t@127.0.0.1/ledger",
        "s3cr3t",
    ],
)
def test_no_error_repeats_the_url(url: str) -> None:
    with pytest.raises((ConfigError, LedgerUnavailable)) as raised:
        PredictionLedger(url, KEY).count()
    seen: BaseException | None = raised.value
    assert "s3cr3t" not in str(seen) + raised.value.hint
    while seen is not None and not seen.__suppress_context__:
        assert "s3cr3t" not in str(seen)
        seen = seen.__cause__ or seen.__context__


def test_a_database_that_is_away_says_so_and_is_used_when_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.write_text("in the way")
    ledger = PredictionLedger(f"sqlite:///{folder / 'ledger.sqlite'}", KEY)
    with pytest.raises(LedgerUnavailable, match="does not answer"):
        ledger.append([forecast(START + HOUR)])
    folder.unlink()
    assert ledger.append([forecast(START + HOUR)]) == 1
    ledger.close()


def test_verify_sees_one_snapshot_while_the_writer_writes(place: LedgerPlace, ledger: PredictionLedger) -> None:
    ledger.append([forecast(START + HOUR)])
    reader = LedgerDatabase(place.url, place.schema)
    with reader.reading() as db:
        count = sa.text("select count(*) from forecasts")
        before = db.execute(count).scalar()
        ledger.append([forecast(START + 2 * HOUR)])
        assert db.execute(count).scalar() == before
    reader.close()
