"""The store neither doubles nor loses bars, whatever order and however often they come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from market.bar_store import LOGGED, BarStore
from market.bars import BAR_SCHEMA, QUARANTINE_SCHEMA, bars_from_columns
from market.errors import InputError
from market.timeframes import Timeframe

T0 = datetime(2024, 1, 8, tzinfo=UTC)


def bars(
    start: int, n: int, symbol: str = "EURUSD", frame: Timeframe = Timeframe.H1, close: float = 1.1, volume: int = 5
) -> pa.Table:
    opened = np.datetime64("2024-01-08") + (start + np.arange(n)) * np.timedelta64(frame.seconds, "s")
    price = np.full(n, close)
    return bars_from_columns(
        symbol, frame, opened, price, price + 0.1, price - 0.1, price, np.full(n, volume), received_at=T0
    )


def content(store: BarStore) -> list[tuple[object, ...]]:
    table = store.read().drop_columns(["received_at"])
    return [tuple(row.values()) for row in table.to_pylist()]


def test_empty(tmp_path: Path) -> None:
    store = BarStore(tmp_path / "bars")
    assert store.version() == -1
    assert store.read().schema == BAR_SCHEMA
    assert store.last_close("EURUSD", "H1") is None
    assert store.tail("EURUSD", "H1", 5).num_rows == 0
    assert store.counts() == {}


def test_append_read_tail(tmp_path: Path) -> None:
    store = BarStore(tmp_path / "bars")
    appended = store.append(pa.concat_tables([bars(0, 30), bars(0, 20, "GBPUSD")]))
    assert (appended.added.num_rows, appended.revised.num_rows, appended.unchanged) == (50, 0, 0)
    assert store.version() == 0, "one batch is one commit"
    assert store.data_version() == "bars@0"
    assert store.counts() == {("EURUSD", "H1"): 30, ("GBPUSD", "H1"): 20}
    assert store.first_open("EURUSD", "H1") == T0
    assert store.last_close("GBPUSD", "H1") == T0 + timedelta(hours=20)
    assert store.tail("EURUSD", "H1", 3)["open_time"].to_pylist() == [T0 + timedelta(hours=h) for h in (27, 28, 29)]
    found = store.read(["GBPUSD"], "H1", T0 + timedelta(hours=5), T0 + timedelta(hours=7))
    assert found["open_time"].to_pylist() == [T0 + timedelta(hours=5), T0 + timedelta(hours=6)]
    assert found.schema == BAR_SCHEMA


def test_arrows_threads_need_no_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does while Python ends aborts the process: 1 of 80 `lstmc bars gaps` ended with 134."""
    made, dataset_of = [], DeltaTable.to_pyarrow_dataset

    def noted(*given: Any, **named: Any) -> Any:
        made.append(dataset_of(*given, **named))
        return made[-1]

    monkeypatch.setattr(DeltaTable, "to_pyarrow_dataset", noted)
    store = BarStore(tmp_path / "bars")
    store.append(bars(0, 3))
    store.quarantine(bars(0, 1).append_column(QUARANTINE_SCHEMA.field("reason"), pa.array(["off_grid"])))
    assert (store.read().num_rows, store.quarantined().num_rows) == (3, 1)
    assert BarStore(tmp_path / "bars").counts() == {("EURUSD", "H1"): 3}
    assert len(made) >= 3
    for dataset in made:
        assert isinstance(dataset.filesystem, SubTreeFileSystem)
        assert isinstance(dataset.filesystem.base_fs, LocalFileSystem)


def test_versions_of_another_writer_are_seen_also_when_their_log_has_been_cleared(tmp_path: Path) -> None:
    writer, reader = BarStore(tmp_path / "bars"), BarStore(tmp_path / "bars")
    assert reader.version() == -1
    for n in range(4):
        writer.append(bars(n, 1))
        assert reader.version() == n
    assert reader.read().num_rows == 4
    writer.append(bars(4, 1))
    table = DeltaTable(str(tmp_path / "bars"))
    table.create_checkpoint()
    for n in range(5):
        (tmp_path / "bars" / "_delta_log" / f"{n:020d}.json").unlink()
    assert reader.version() == 4
    assert reader.read().num_rows == 5


def test_the_same_bars_again_make_no_version(tmp_path: Path) -> None:
    store = BarStore(tmp_path / "bars")
    store.append(bars(0, 10))
    again = store.append(bars(3, 5))
    assert (again.added.num_rows, again.revised.num_rows, again.unchanged) == (0, 0, 5)
    assert store.version() == 0


def test_a_changed_bar_is_a_revision_and_the_old_one_stays(tmp_path: Path) -> None:
    store = BarStore(tmp_path / "bars")
    store.append(bars(0, 10))
    second = store.append(bars(9, 1, close=1.2))
    third = store.append(bars(9, 1, close=1.2, volume=6))
    assert second.revised["revision"].to_pylist() == [1]
    assert third.revised["revision"].to_pylist() == [2]
    newest = store.tail("EURUSD", "H1", 1).to_pylist()[0]
    assert (newest["close"], newest["tick_volume"], newest["revision"]) == (1.2, 6, 2)
    assert store.read(as_of_version=0)["close"].to_pylist()[-1] == 1.1
    assert store.counts() == {("EURUSD", "H1"): 10}
    assert store.read().num_rows == 10


def test_missing_volume_is_equal_to_missing_volume(tmp_path: Path) -> None:
    store = BarStore(tmp_path / "bars")
    without = bars(0, 3).set_column(8, BAR_SCHEMA.field("tick_volume"), pa.nulls(3, pa.int64()))
    store.append(without)
    assert store.append(without).unchanged == 3
    assert store.append(bars(0, 3)).revised.num_rows == 3


def test_another_process_writes_too(tmp_path: Path) -> None:
    mine, theirs = BarStore(tmp_path / "bars"), BarStore(tmp_path / "bars")
    mine.append(bars(0, 10))
    theirs.append(bars(10, 5))
    assert mine.last_close("EURUSD", "H1") == T0 + timedelta(hours=15)
    appended = mine.append(bars(8, 10))
    assert (appended.added.num_rows, appended.unchanged) == (3, 7)
    assert theirs.counts() == {("EURUSD", "H1"): 18}


def test_compact_keeps_everything(tmp_path: Path) -> None:
    store = BarStore(tmp_path / "bars")
    for hour in range(8):
        store.append(bars(hour, 1))
    before = content(store)
    assert store.compact() == 1
    assert content(store) == before
    assert content(BarStore(tmp_path / "bars")) == before
    assert store.append(bars(0, 9)).added.num_rows == 1
    assert store.read(as_of_version=2).num_rows == 3


def data_files(store: BarStore) -> int:
    return len(list(store.path.glob("timeframe=*/*.parquet")))


def test_files_of_old_versions_are_removed_once_they_are_old_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("market.bar_store.COMPACT_AT", 8)
    store, kept = BarStore(tmp_path / "bars", kept=timedelta(0)), BarStore(tmp_path / "kept")
    for n in range(18):
        for one in (store, kept):
            one.append(bars(n, 1, close=1 + n / 100))
    assert data_files(store) < 10, "else one more for each commit, for ever"
    assert data_files(kept) > 18, "of the last thirty days"
    assert kept.read(as_of_version=3).num_rows == 4
    assert store.counts() == {("EURUSD", "H1"): 18}
    assert store.read()["close"].to_pylist() == [1 + n / 100 for n in range(18)]
    assert content(BarStore(store.path)) == content(store) == content(kept)
    with pytest.raises(InputError, match=r"version 3 cannot be read.*kept for 30 days"):
        store.read(as_of_version=3)


def test_delta_remembers_as_long_what_it_has_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would forget after a week, and take old files for stray ones."""
    monkeypatch.setattr("market.bar_store.COMPACT_AT", 4)
    with monkeypatch.context() as earlier:  # a table of an earlier version of ours
        earlier.setattr("market.bar_store.LOGGED", {})
        BarStore(tmp_path / "old").append(bars(0, 1))
    for name in ("old", "new"):
        store = BarStore(tmp_path / name)
        for n in range(1, 6):
            store.append(bars(n, 1))
        assert DeltaTable(store.path).metadata().configuration == LOGGED
        assert store.read().num_rows == (6 if name == "old" else 5)


def test_a_hole_longer_than_the_tails_reach(tmp_path: Path) -> None:
    store = BarStore(tmp_path / "bars")
    store.append(pa.concat_tables([bars(0, 10), bars(2000, 2)]))
    assert store.tail("EURUSD", "H1", 5).num_rows == 5


def test_quarantine_keeps_a_rejection_once(tmp_path: Path) -> None:
    store = BarStore(tmp_path / "bars")
    rejected = bars(0, 2).append_column(QUARANTINE_SCHEMA.field("reason"), pa.array(["price_jump", "off_grid"]))
    assert store.quarantine(rejected) == 2
    assert store.quarantine(rejected) == 0
    assert store.quarantined()["reason"].to_pylist() == ["price_jump", "off_grid"]
    assert store.version() == -1


KEYS = [(symbol, frame, hour) for symbol in ("EURUSD", "USDJPY") for frame in ("H1", "M15") for hour in range(6)]


def one(symbol: str, frame: str, hour: int) -> pa.Table:
    return bars(hour, 1, symbol, Timeframe.parse(frame), close=1 + hour / 10)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_order_and_repetition_of_batches_do_not_matter(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every bar comes at least once; each batch is any set of bars, the batches come in any order, some twice."""
    order = data.draw(st.permutations(KEYS))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(KEYS) - 1), max_size=4)))
    batches = [order[a:b] for a, b in zip([0, *cuts], [*cuts, len(KEYS)], strict=True)]
    batches += [data.draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=8)) for _ in range(2)]
    store = BarStore(tmp_path_factory.mktemp("store") / "bars")
    added = sum(store.append(pa.concat_tables([one(*key) for key in batch])).added.num_rows for batch in batches)
    assert added == len(KEYS)
    once = BarStore(tmp_path_factory.mktemp("once") / "bars")
    once.append(pa.concat_tables([one(*key) for key in KEYS]))
    names = [name for name in BAR_SCHEMA.names if name != "received_at"]
    assert store.read().select(names).equals(once.read().select(names))
    assert set(store.read()["revision"].to_pylist()) == {0}
    assert store.counts() == once.counts()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_batch_in_any_order_with_any_rows_twice(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    order = data.draw(st.permutations(KEYS + data.draw(st.lists(st.sampled_from(KEYS), max_size=12))))
    store, once = (BarStore(tmp_path_factory.mktemp(name) / "bars") for name in ("store", "once"))
    found = store.append(pa.concat_tables([one(*key) for key in order]))
    once.append(pa.concat_tables([one(*key) for key in KEYS]))
    assert (found.added.num_rows, found.revised.num_rows, found.unchanged) == (len(KEYS), 0, len(order) - len(KEYS))
    names = [name for name in BAR_SCHEMA.names if name != "received_at"]
    assert store.read().select(names).equals(once.read().select(names))


def test_as_of_a_moment_equals_what_was_known_then(tmp_path: Path) -> None:
    """Bars come late, again and revised, dated by the source as it likes; each earlier moment reads as it did then."""
    rng = np.random.default_rng(5)
    clock = [T0]
    store = BarStore(tmp_path / "bars", now=lambda: clock[0])
    known = []
    for _ in range(40):
        clock[0] += timedelta(minutes=int(rng.integers(1, 300)))
        symbol = str(rng.choice(["EURUSD", "USDJPY"]))
        store.append(
            bars(int(rng.integers(0, 30)), int(rng.integers(1, 6)), symbol, close=float(rng.choice([1.1, 1.2])))
        )
        if rng.random() < 0.2:
            store.compact()
        known.append((clock[0], store.version(), store.read()))
    for moment, version, then in known:
        assert store.read(as_of=moment).equals(then)
        assert store.read(as_of=moment + timedelta(seconds=30)).equals(then)
        assert store.read(as_of_version=version).equals(then)
    assert store.read(as_of=T0).num_rows == 0
    assert sum(table["revision"].to_pylist().count(1) for _, _, table in known) > 0


def test_opens_are_each_once_and_without_prices(tmp_path: Path) -> None:
    store = BarStore(tmp_path / "bars")
    assert store.opens("EURUSD", "H1").tolist() == []
    store.append(bars(0, 5))
    store.append(bars(3, 4, close=1.3))
    opens = np.datetime64("2024-01-08", "s") + np.arange(7) * np.timedelta64(3600, "s")
    assert (store.opens("EURUSD", "H1") == opens).all()
    assert (store.opens("EURUSD", "H1", T0 + timedelta(hours=4)) == opens[4:]).all()
