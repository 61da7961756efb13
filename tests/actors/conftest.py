"""The ledger's two databases."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from actors.prediction_ledger import PredictionLedger
from benchmarks.embedded_postgres import Postgres

KEY = "a key"
_numbers = itertools.count(1)


@dataclass
class LedgerPlace:
    """A database for one ledger, and a way into it that the ledger does not know of."""

    url: str
    schema: str = "lstmc"

    def ledger(self, key: str = KEY, **clocks: Any) -> PredictionLedger:
        return PredictionLedger(self.url, key, schema=self.schema, **clocks)

    def sql(self, *statements: str) -> int:
        """Run by hand, as an intruder or another version would; how many rows the last one touched."""
        engine = sa.create_engine(self.url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.pool.NullPool)
        with engine.begin() as db:
            if self.is_postgres:
                db.exec_driver_sql(f'SET search_path TO "{self.schema}"')
            return [db.exec_driver_sql(statement).rowcount for statement in statements][-1]

    @property
    def is_postgres(self) -> bool:
        return self.url.startswith("postgresql")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.remove()


def new_schema() -> str:
    return f"market_{next(_numbers)}"


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerPlace:
    if request.param == "sqlite":
        return LedgerPlace(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    return LedgerPlace(request.getfixturevalue("postgres").url, new_schema())


@pytest.fixture
def ledger(place: LedgerPlace) -> Iterator[PredictionLedger]:
    opened = place.ledger()
    yield opened
    opened.close()
