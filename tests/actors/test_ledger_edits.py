"""Whatever single edit an intruder makes by hand, `verify` finds it: on both databases, any column, any row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.prediction_ledger import PredictionLedger
from tests.actors.conftest import LedgerPlace, new_schema
from tests.actors.test_prediction_ledger import HOUR, START, bars, forecast

FORECASTS = 6
COLUMNS = {
    "forecasts": ("symbol", "timeframe", "as_of", "model_id", "body", "previous", "hash", "seq"),
    "outcomes": ("forecast_seq", "bars", "symbol", "timeframe", "inside80", "inside90", "body", "previous", "hash"),
    "seals": ("rows", "seal"),
    "pending": ("symbol", "timeframe", "as_of", "bars"),
}
PLACES = [(table, column) for table, columns in COLUMNS.items() for column in columns]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A ledger, and an engine whose transactions the test rolls back after it has looked."""
    if request.param == "sqlite":
        folder: Path = tmp_path_factory.mktemp("edits")
        place = LedgerPlace(f"sqlite:///{folder / 'ledger.sqlite'}")
    else:
        place = LedgerPlace(request.getfixturevalue("postgres").url, new_schema())
    ledger = place.ledger()
    ledger.append([forecast(START + i * HOUR) for i in range(1, FORECASTS + 1)])
    ledger.settle(bars([1.1, 1.11, 1.105, 1.12]))
    assert ledger.verify().intact
    yield place, ledger
    ledger.close()


def rows_of(db: sa.Connection, table: str) -> list[dict[str, Any]]:
    return [dict(row) for row in db.execute(sa.text(f"select * from {table} order by 1, 2")).mappings()]


def edited(old: Any, draw: Any, is_sqlite: bool) -> Any:
    """Another value of the same kind; SQLite takes any kind anywhere."""
    if isinstance(old, bool) or (is_sqlite and old in (0, 1)):
        return draw(st.sampled_from([None, 2, 1 - int(old)])) if is_sqlite else draw(st.sampled_from([None, not old]))
    if isinstance(old, int):
        return draw(st.integers(0, 10_000).filter(lambda value: value != old))
    at = draw(st.integers(0, len(old) - 1))
    put = draw(st.characters(codec="utf-8", exclude_characters="\0").filter(lambda one: one != old[at]))
    return draw(st.sampled_from([old[:at] + put + old[at + 1 :], old[:at] + old[at + 1 :]]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), place=st.sampled_from(PLACES), kind=st.sampled_from(["edit", "edit", "remove"]))
def test_any_single_edit_is_found(
    filled: tuple[LedgerPlace, PredictionLedger], data: st.DataObject, place: tuple[str, str], kind: str
) -> None:
    where, ledger = filled
    table, column = place
    with suppress(Undo), ledger._database.writing() as db:
        row = data.draw(st.sampled_from(rows_of(db, table)))
        key = [name for name in row if name in ("seq", "chain")] or ["forecast_seq", "bars"]
        match = " and ".join(f"{name} = :key_{name}" for name in key)
        values = {f"key_{name}": row[name] for name in key}
        statement = f"delete from {table} where {match}"
        if kind == "edit":
            statement = f"update {table} set {column} = :new where {match}"
            values["new"] = edited(row[column], data.draw, not where.is_postgres)
        try:
            with db.begin_nested():
                touched = db.execute(sa.text(statement), values).rowcount
        except sa.exc.DBAPIError:  # the database itself refuses: too long, not unique
            raise Undo from None
        assert touched == 1
        assert ledger._chains.verify(db).broken, (statement, values)
        raise Undo
    assert ledger.verify().intact


class Undo(Exception):
    """Rolls the edit back."""
