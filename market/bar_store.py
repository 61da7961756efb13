"""All bars we ever closed, as one Delta Lake table: append without doubling, read the newest revision, go back in time.

Key: (symbol, timeframe, open_time). A bar that comes again changed is a new row with the next revision; nothing is ever
overwritten. Does not know where bars come from. Rejected rows lie in a second table beside it. Old versions are kept for
thirty days, by Delta's log and by `KEPT`: else merging small files would fill the disk in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from operator import and_
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from market.bars import BAR_SCHEMA, QUARANTINE_SCHEMA, empty_bars
from market.errors import InputError, StoreUnavailable
from market.timeframes import Timeframe

KEY = ("symbol", "timeframe", "open_time")
CONTENT = ("open", "high", "low", "close", "tick_volume")  # a change here is a revision; a new spread alone is not
RANGES_KEPT = 16
COMPACT_AT = 64  # commits; reading opens every small file in its range
KEPT = timedelta(days=30)  # files of old versions, from the moment at which they are old
# Delta forgets after a week which files it has replaced; they would then be judged by the day they were written.
LOGGED: dict[str, str | None] = {"delta.deletedFileRetentionDuration": f"interval {KEPT.days} days"}
REASONS_KEPT = ("symbol", "timeframe", "open_time", "reason")


@dataclass(frozen=True)
class Appended:
    """What an append did: rows never seen before, rows that changed (with their new revision), and how many it knew."""

    added: pa.Table
    revised: pa.Table
    unchanged: int

    @property
    def changed(self) -> bool:
        return self.added.num_rows + self.revised.num_rows > 0


@dataclass(frozen=True)
class Span:
    """What the store holds of one symbol and timeframe: number of bars, first and last open."""

    bars: int
    first_open: datetime
    last_open: datetime


class BarStore:
    """The table at `path`. Several processes may read; writers take turns by a lock file beside the table.

    The only state is an index (bars, first and last open per symbol and timeframe) that is rebuilt whenever the table's
    version is not the one it was built from: another process may have written. `now`: the wall clock that dates what is
    appended (`received_at`), so that an earlier moment can be read again. `kept`: how long the files of an old version are.
    """

    def __init__(
        self, path: str | Path, *, now: Callable[[], datetime] = lambda: datetime.now(UTC), kept: timedelta = KEPT
    ) -> None:
        self.path = Path(path)
        self._now, self._kept = now, kept
        self._table: DeltaTable | None = None
        self._index: dict[tuple[str, str], Span] = {}
        self._index_version = -1
        self._files: dict[str, Any] = {}  # what to read for a range, of the version below
        self._files_version = -1

    # -- reading

    def version(self) -> int:
        """The newest version, -1 when nothing was ever written. By the names in its log, which costs far less than to follow it."""
        table = self._table or self._open()
        if table is None:
            return -1
        newest = table.version()
        while self._entry(newest + 1).exists():
            newest += 1
        if not self._entry(newest).exists():  # names that old are cleared away
            table.update_incremental()
            return table.version()
        return newest

    def data_version(self) -> str:
        """`"bars@12"`, what a model or a forecast was made from."""
        return f"bars@{self.version()}"

    def read(
        self,
        symbols: Sequence[str] | None = None,
        timeframe: str | Timeframe | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        as_of_version: int | None = None,
        as_of: datetime | None = None,
    ) -> pa.Table:
        """Newest revision of each bar with `since <= open_time < until`, in BAR_SCHEMA, sorted by symbol, timeframe, open.

        Of what was known at an earlier moment: `as_of_version` by the table's own history, `as_of` by when each row was
        appended (wall clock), which also holds when old versions have been cleaned away: InputError says so.
        """
        frames = None if timeframe is None else [_name(timeframe)]
        with nullcontext() if as_of_version is None else _still_kept(as_of_version):
            table = self._open() if as_of_version is None else self._at(as_of_version)
            if table is None:
                return empty_bars()
            rows = self._scan(table, symbols, frames, since, until)
        return _newest(rows if as_of is None else _known_at(rows, as_of))

    def opens(
        self, symbol: str, timeframe: str | Timeframe, since: datetime | None = None, until: datetime | None = None
    ) -> np.ndarray:
        """Stored opens with `since <= open < until`, ascending, each once, datetime64[s] [n]. Reads no prices."""
        table = self._open()
        if table is None:
            return np.zeros(0, "datetime64[s]")
        rows = self._scan(table, [symbol], [_name(timeframe)], since, until, ("open_time",))
        return np.unique(rows["open_time"].to_numpy().astype("datetime64[s]"))

    def tail(self, symbol: str, timeframe: str | Timeframe, n: int) -> pa.Table:
        """The newest `n` bars, oldest first; fewer when there are fewer."""
        span = self._spans().get((symbol, _name(timeframe)))
        if span is None or n <= 0:
            return empty_bars()
        reach = Timeframe.parse(_name(timeframe)).delta * int(n * 1.6) + timedelta(days=5)  # weekends, holidays
        found = self.read([symbol], timeframe, max(span.first_open, span.last_open - reach))
        if found.num_rows < min(n, span.bars):  # a hole longer than the reach
            found = self.read([symbol], timeframe)
        return found.slice(max(found.num_rows - n, 0))

    def first_open(self, symbol: str, timeframe: str | Timeframe) -> datetime | None:
        span = self._spans().get((symbol, _name(timeframe)))
        return span.first_open if span else None

    def last_close(self, symbol: str, timeframe: str | Timeframe) -> datetime | None:
        """Close of the newest bar; a source asked for what came since then fills every gap."""
        span = self._spans().get((symbol, _name(timeframe)))
        return span.last_open + Timeframe.parse(_name(timeframe)).delta if span else None

    def counts(self) -> dict[tuple[str, str], int]:
        """(symbol, timeframe) -> number of bars."""
        return {key: span.bars for key, span in self._spans().items()}

    # -- writing

    def append(self, bars: pa.Table) -> Appended:
        """Add what is new, in one commit. Idempotent: the same bars again change nothing, not even the version.

        StoreUnavailable when the file system takes nothing; then nothing was added.
        """
        if bars.num_rows == 0:
            return Appended(empty_bars(), empty_bars(), 0)
        with _refusals(self.path), self._turn():
            known = self._known(bars)
            result = _dated(classify(known, bars.select(BAR_SCHEMA.names).cast(BAR_SCHEMA)), self._now())
            if result.changed:
                self._commit(pa.concat_tables([result.added, result.revised]))
                self._remember(result.added)
        return result

    def quarantine(self, rows: pa.Table) -> int:
        """Keep rejected rows (QUARANTINE_SCHEMA) with their reasons; the same rejection is kept once. Returns new rows."""
        if rows.num_rows == 0:
            return 0
        with _refusals(self.path), self._turn():
            fresh = _without(rows.select(QUARANTINE_SCHEMA.names).cast(QUARANTINE_SCHEMA), self.quarantined())
            if fresh.num_rows:
                write_deltalake(str(self._quarantine_path), fresh, mode="append")
        return fresh.num_rows

    def quarantined(self) -> pa.Table:
        if not DeltaTable.is_deltatable(str(self._quarantine_path)):
            return QUARANTINE_SCHEMA.empty_table()
        table = DeltaTable(str(self._quarantine_path))
        return _arrow_dataset(table, self._quarantine_path).to_table().cast(QUARANTINE_SCHEMA)

    def compact(self) -> int:
        """Merge small files; versions of the last thirty days stay readable. Returns how many files are left."""
        with self._turn():
            table = self._open()
            if table is None:
                return 0
            indexed = self._index_version == table.version()
            self._tidy(table)
            self._index_version = table.version() if indexed else self._index_version
            return len(table.file_uris())

    # -- inside

    @property
    def _quarantine_path(self) -> Path:
        return self.path.with_name(self.path.name + "_quarantine")

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One writer at a time on this machine; the Windows node never writes, so no lock is missed there."""
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path.with_name(self.path.name + ".lock"), "w") as handle:
            try:
                import fcntl
            except ImportError:
                yield
                return
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _open(self) -> DeltaTable | None:
        """The table at its newest version, or None."""
        if self._table is None:
            if not DeltaTable.is_deltatable(str(self.path)):
                return None
            self._table = DeltaTable(str(self.path))
        elif self._is_behind(self._table.version()):
            self._table.update_incremental()
        return self._table

    def _is_behind(self, version: int) -> bool:
        """Whether a newer one may be there. A look at the names in its log costs far less than asking Delta itself."""
        return self._entry(version + 1).exists() or not self._entry(version).exists()

    def _entry(self, version: int) -> Path:
        return self.path / "_delta_log" / f"{version:020d}.json"

    def _at(self, version: int) -> DeltaTable | None:
        return None if version < 0 else DeltaTable(str(self.path), version=version)

    def _spans(self) -> dict[tuple[str, str], Span]:
        table = self._open()
        if table is not None and table.version() != self._index_version:
            self._index = _index(_arrow_dataset(table, self.path).to_table(columns=list(KEY)))
            self._index_version = table.version()
        return self._index

    def _scan(
        self,
        table: DeltaTable,
        symbols: Sequence[str] | None,
        timeframes: Sequence[str] | None,
        since: datetime | None,
        until: datetime | None,
        columns: Sequence[str] = tuple(BAR_SCHEMA.names),
    ) -> pa.Table:
        """All revisions in a range. Files outside it are skipped by the statistics in Delta's log."""
        stamp = BAR_SCHEMA.field("open_time").type
        conditions: list[pc.Expression] = []
        pruning: list[str] = []
        if symbols is not None:
            conditions.append(pc.field("symbol").isin(list(symbols)))
        if timeframes is not None:
            conditions.append(pc.field("timeframe").isin(list(timeframes)))
            frames = ", ".join(f"'{_name(frame)}'" for frame in timeframes)
            pruning.append(f"timeframe IN ({frames})")
        for moment, sign in ((since, ">="), (until, "<")):
            if moment is not None:
                bound = pa.scalar(moment.astimezone(UTC), stamp)
                conditions.append(pc.field("open_time") >= bound if sign == ">=" else pc.field("open_time") < bound)
                pruning.append(f"open_time {sign} '{moment.astimezone(UTC).isoformat()}'")
        condition = reduce(and_, conditions) if conditions else None
        schema = pa.schema([BAR_SCHEMA.field(name) for name in columns])
        dataset = self._dataset(table, " AND ".join(pruning))
        return dataset.to_table(columns=list(columns), filter=condition).cast(schema)

    def _dataset(self, table: DeltaTable, pruning: str) -> Any:
        """The files of a range. Listing them takes longer than reading them, and one range is asked for by many symbols."""
        if table is not self._table:
            return _arrow_dataset(table, self.path, pruning)
        if table.version() != self._files_version or len(self._files) >= RANGES_KEPT:
            self._files, self._files_version = {}, table.version()
        if pruning not in self._files:
            self._files[pruning] = _arrow_dataset(table, self.path, pruning)
        return self._files[pruning]

    def _known(self, bars: pa.Table) -> pa.Table:
        """Stored rows that could meet `bars`. None are read when every incoming bar opens after all we have of its kind."""
        spans = self._spans()
        if self._table is None:
            return empty_bars()
        coming = _index(bars)  # in one go: a filter per symbol made a close of 1,000 take seconds
        old = [new.first_open for key, new in coming.items() if key in spans and new.first_open <= spans[key].last_open]
        if not old:
            return empty_bars()
        newest = pc.max(bars["open_time"]).as_py()
        symbols, frames = (pc.unique(bars[name]).to_pylist() for name in ("symbol", "timeframe"))
        return _newest(self._scan(self._table, symbols, frames, min(old), newest + timedelta(microseconds=1)))

    def _commit(self, rows: pa.Table) -> None:
        if self._table is None:
            write_deltalake(str(self.path), rows, mode="append", partition_by=["timeframe"], configuration=LOGGED)
        else:
            write_deltalake(self._table, rows, mode="append")

    def _remember(self, added: pa.Table) -> None:
        """Carry the index over our own commit, so that it need not be rebuilt."""
        table = self._open()
        if table is None or table.version() != self._index_version + 1:
            return
        for key, span in _index(added).items():
            old = self._index.get(key, Span(0, span.first_open, span.last_open))
            first, last = min(old.first_open, span.first_open), max(old.last_open, span.last_open)
            self._index[key] = Span(old.bars + span.bars, first, last)
        self._index_version = table.version()
        if table.version() % COMPACT_AT == 0:
            with suppress(DeltaError, OSError):  # a full disk: the bars are in, and the next time will do
                self._tidy(table)
            self._index_version = table.version()

    def _tidy(self, table: DeltaTable) -> None:
        """Merge small files, and remove those that only old versions have. All are looked at, not only what the log names:
        it forgets what it has removed before we come to it."""
        if not LOGGED.items() <= table.metadata().configuration.items():
            table.alter.set_table_properties({name: str(value) for name, value in LOGGED.items()})
        table.optimize.compact()
        hours = int(self._kept / timedelta(hours=1))
        table.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=True)
        table.create_checkpoint()


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except (DeltaError, OSError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        hint = f"Make room on the file system of {path}, or make it writable; what is missed meanwhile is fetched then."
        raise StoreUnavailable(f"Bars cannot be stored: {why}", hint=hint) from error


@contextmanager
def _still_kept(version: int) -> Iterator[None]:
    """Delta's and Arrow's words for a version whose log or files are gone, put plainly."""
    try:
        yield
    except (DeltaError, FileNotFoundError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"The bars of version {version} cannot be read: {why}",
            hint=f"Versions are kept for {KEPT.days} days; leave the version out and take the newest.",
        ) from error


def _name(timeframe: str | Timeframe) -> str:
    return timeframe.value if isinstance(timeframe, Timeframe) else Timeframe.parse(timeframe).value


def _arrow_dataset(table: DeltaTable, path: Path, pruning: str = "") -> Any:
    """Of the table at `path`, read by Arrow's own file system. Delta's is in Python, which Arrow's threads may still want when
    a command has done its work and Python ends: that aborts it."""
    here = SubTreeFileSystem(str(path), LocalFileSystem())
    return table.to_pyarrow_dataset(file_pruning_predicate=pruning or None, filesystem=here)


def _group_ids(rows: pa.Table) -> np.ndarray:
    """A number per (symbol, timeframe), in sorted order of the names. [n]"""
    ids = np.zeros(rows.num_rows, np.int64)
    for name in ("symbol", "timeframe"):
        column = pc.dictionary_encode(rows[name].combine_chunks())
        names = column.dictionary.to_pylist()
        if len(names) > 1:
            rank = np.empty(len(names), np.int64)
            rank[np.argsort(names)] = np.arange(len(names))
            ids = ids * len(names) + rank[column.indices.to_numpy()]
    return ids


def _opens(rows: pa.Table) -> np.ndarray:
    return rows["open_time"].cast(pa.int64()).to_numpy()


def _newest(rows: pa.Table) -> pa.Table:
    """One row per bar: the highest revision, of equals the one received last; sorted by key."""
    if rows.num_rows == 0:
        return rows
    ids, opens = _group_ids(rows), _opens(rows)
    received = rows["received_at"].cast(pa.int64()).to_numpy()
    order = np.lexsort((received, rows["revision"].to_numpy(), opens, ids))
    last = np.ones(len(order), bool)
    last[:-1] = (ids[order][1:] != ids[order][:-1]) | (opens[order][1:] != opens[order][:-1])
    return rows.take(pa.array(order[last])).combine_chunks()


def _known_at(rows: pa.Table, moment: datetime) -> pa.Table:
    return rows.filter(pc.less_equal(rows["received_at"], pa.scalar(moment, BAR_SCHEMA.field("received_at").type)))


def _dated(result: Appended, now: datetime) -> Appended:
    """Rows about to be written, known from this moment on: a source's own earlier date would be a look ahead."""

    def stamped(rows: pa.Table) -> pa.Table:
        field = BAR_SCHEMA.field("received_at")
        return rows.set_column(
            rows.schema.get_field_index("received_at"), field, pa.repeat(pa.scalar(now, field.type), rows.num_rows)
        )

    return Appended(stamped(result.added), stamped(result.revised), result.unchanged)


def _index(rows: pa.Table) -> dict[tuple[str, str], Span]:
    """Bars (distinct opens), first and last open of every symbol and timeframe."""
    if rows.num_rows == 0:
        return {}
    aggregated = rows.group_by(["symbol", "timeframe"]).aggregate(
        [("open_time", "count_distinct"), ("open_time", "min"), ("open_time", "max")]
    )
    return {
        (row["symbol"], row["timeframe"]): Span(
            row["open_time_count_distinct"], row["open_time_min"], row["open_time_max"]
        )
        for row in aggregated.to_pylist()
    }


def classify(known: pa.Table, bars: pa.Table) -> Appended:
    """Split incoming `bars` against the newest `known` rows, BAR_SCHEMA both. Later rows of a key follow earlier ones."""
    both = pa.concat_tables([known, bars]).combine_chunks()
    ids, opens = _group_ids(both), _opens(both)
    order = np.lexsort((np.arange(both.num_rows), opens, ids))  # stable: known first, then arrival
    rows = both.take(pa.array(order))
    is_new = order >= known.num_rows
    first = np.ones(len(order), bool)
    first[1:] = (ids[order][1:] != ids[order][:-1]) | (opens[order][1:] != opens[order][:-1])
    changed = ~first & _differs(rows) & is_new
    steps = np.cumsum(changed)
    start = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))  # row at which this key begins
    base = np.where(is_new, 0, rows["revision"].to_numpy())[start]
    revision = pa.array((base + steps - steps[start]).astype(np.int32))
    rows = rows.set_column(rows.schema.get_field_index("revision"), BAR_SCHEMA.field("revision"), revision)
    added, revised = first & is_new, changed
    unchanged = int((is_new & ~added & ~revised).sum())
    return Appended(rows.filter(pa.array(added)), rows.filter(pa.array(revised)), unchanged)


def _differs(rows: pa.Table) -> np.ndarray:
    """Whether a row's content is not that of the row before it. [n], first False"""
    differs = np.zeros(rows.num_rows, bool)
    for name in CONTENT:
        values = pc.fill_null(rows[name].cast(pa.float64()), np.nan).to_numpy()
        same = (values[1:] == values[:-1]) | (np.isnan(values[1:]) & np.isnan(values[:-1]))
        differs[1:] |= ~same
    return differs


def _without(rows: pa.Table, known: pa.Table) -> pa.Table:
    seen = set(zip(*(known[name].to_pylist() for name in REASONS_KEPT), strict=True))
    keep = []
    for key in zip(*(rows[name].to_pylist() for name in REASONS_KEPT), strict=True):
        keep.append(key not in seen)
        seen.add(key)
    return rows.filter(pa.array(keep, pa.bool_()))
