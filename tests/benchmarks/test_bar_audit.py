"""The audit finds what is missing, there twice, or not the market's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from benchmarks.bar_audit import Audit, audit, closes
from configs.settings import Settings, make_settings
from market.bar_store import BarStore
from market.market_clock import MarketClock
from mt5_actor_windows.actor import make_session

TUESDAY = datetime(2024, 3, 12, 12, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    clock = MarketClock(4e9, TUESDAY.timestamp(), 2.0).to_dict()  # it begins in a far future, so it stands still
    return make_settings(home=tmp_path, symbols="EURUSD", speed=2.0).model_copy(update={"clock": clock})


def bars(settings: Settings) -> pa.Table:
    return make_session(settings).closed_bars("EURUSD", "H1", TUESDAY - timedelta(hours=10))


def test_the_markets_own_bars_are_clean(settings: Settings) -> None:
    BarStore(settings.bars_path).append(bars(settings))
    assert audit(settings) == Audit(10, 0, 0, 0)
    assert len(closes(settings, TUESDAY - timedelta(hours=10))) == 10


def test_what_is_wrong_is_counted(settings: Settings) -> None:
    given = bars(settings)
    place = given.column_names.index("close")
    wrong = given.slice(7, 2).set_column(place, given.schema.field(place), pa.array([1.0] * 2))
    store = BarStore(settings.bars_path)
    store.append(pa.concat_tables([given.slice(0, 3), given.slice(5, 2), wrong, given.slice(9)]))
    once_more = store.read(["EURUSD"], "H1").slice(0, 1)
    write_deltalake(str(settings.bars_path), once_more, mode="append")
    assert audit(settings) == Audit(8, 2, 1, 2)
