"""Recorded bars: a folder of SYMBOL_TF.parquet or CSV (MetaTrader's own export too) -> clean bars in UTC, with what was wrong.

Knows file forms and column names; times become UTC by the file's own weeks, its metadata being only a claim.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from market.bars import BAR_SCHEMA, bars_from_columns, validate
from market.broker_clock import BrokerClock, detect
from market.clock_agreement import Disagreement, disagreements
from market.errors import BadBars, UnknownSymbol, UnknownTimeframe
from market.symbols import symbol as known_symbol
from market.timeframes import Timeframe

PRICES = ("open", "high", "low", "close")
ENDINGS = (".parquet", ".csv")
_NAME = re.compile(r"^([A-Za-z]{6})_([A-Za-z]\d{1,2})(?=[_.])", re.ASCII)
_EXACT = re.compile(r"^([A-Za-z]{6})_([A-Za-z]\d{1,2})\.(parquet|csv)$", re.ASCII)
# Spelling in a file -> ours. MetaTrader exports <DATE> <TIME> <OPEN> ... <TICKVOL> <VOL> <SPREAD>, tab-separated.
_ALIASES = {
    "datetime": "time",
    "timestamp": "time",
    "open_time": "time",
    "tickvol": "tick_volume",
    "volume": "tick_volume",
    "spread_points": "spread",
}
_EARLIEST, _LATEST = np.datetime64("1970-01-02", "s"), np.datetime64("2200-01-01", "s")
_TIME_FORMS = ("%Y.%m.%d %H:%M:%S", "%Y.%m.%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y.%m.%d", "%Y-%m-%d")


@dataclass(frozen=True)
class RecordedBars:
    """One file, read: clean `bars` (BAR_SCHEMA, UTC, oldest first), `quarantined` rows with reasons, `clock` findings."""

    symbol: str
    timeframe: Timeframe
    bars: pa.Table
    quarantined: pa.Table
    clock: dict[str, Any]


def read_bar_file(path: str | Path, *, received_at: datetime) -> RecordedBars:
    """Read SYMBOL_TF*.parquet or .csv. BadBars says which file, which column and what is wrong with it."""
    path = Path(path)
    symbol, timeframe = _named(path)
    raw = _read_table(path)
    claim = (raw.schema.metadata or {}).get(b"server_tz", b"").decode("utf-8", "replace")
    columns = _columns(raw, path)
    findings = detect(np.unique(columns["time"]), timeframe, claim=claim)
    table = bars_from_columns(
        symbol,
        timeframe,
        BrokerClock(findings.rule).to_utc(columns["time"]),
        columns["open"],
        columns["high"],
        columns["low"],
        columns["close"],
        _whole(columns.get("tick_volume"), np.int64),
        _whole(columns.get("spread"), np.int32),
        received_at=received_at,
    )
    bars, bad = validate(_in_order(table), timeframe)
    return RecordedBars(symbol, timeframe, bars, bad, findings.to_dict())


def read_bar_folder(
    folder: str | Path,
    *,
    timeframe: str | Timeframe | None = None,
    symbols: Sequence[str] | None = None,
    received_at: datetime,
) -> list[RecordedBars]:
    """Every SYMBOL_TF.parquet|csv of a folder, sorted by name; other names are not bars. BadBars when there are none."""
    wanted = timeframe.value if isinstance(timeframe, Timeframe) else timeframe
    paths = [
        path
        for path, symbol, frame in _listed(Path(folder))
        if (wanted is None or frame.value == wanted.upper()) and (symbols is None or symbol in symbols)
    ]
    if not paths:
        asked = " ".join([*(symbols or ()), wanted or ""]).strip() or "bars"
        raise BadBars(f"There are no files of {asked} in {folder}.", hint=f"It holds {_summary(Path(folder))}.")
    return _cross_checked([read_bar_file(path, received_at=received_at) for path in paths])


def _cross_checked(recorded: list[RecordedBars]) -> list[RecordedBars]:
    """Add to each hourly recording's clock the days on which it and the others of the folder tell different times."""
    returns = {one.symbol: _hourly_returns(one.bars) for one in recorded if one.timeframe is Timeframe.H1}
    checked = []
    for one in recorded:
        if one.timeframe is not Timeframe.H1:
            checked.append(one)
            continue
        peers = [series for symbol, series in returns.items() if symbol != one.symbol]
        found = disagreements(*returns[one.symbol], peers)
        checked.append(replace(one, clock=_with_disagreements(one.clock, found)))
    return checked


def _hourly_returns(bars: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    hours = bars["open_time"].cast(pa.int64()).to_numpy() // 3_600_000_000
    return hours, np.log(bars["close"].to_numpy() / bars["open"].to_numpy())


def _with_disagreements(clock: dict[str, Any], found: list[Disagreement]) -> dict[str, Any]:
    if not found:
        return clock
    days = [{"day": str(one.day), "hours": one.hours} for one in found]
    first = ", ".join(f"{one['day']} ({one['hours']:+d} h)" for one in days[:4])
    more = f" and {len(days) - 4} more days" if len(days) > 4 else ""
    said = f"Against the other files here its clock slips on {first}{more}: this file's clock or theirs is wrong there."
    slips = sorted({*clock["slips"], *(f"{one['day']}T00:00:00Z" for one in days)})
    return clock | {"slips": slips, "disagreements": days, "message": f"{clock['message']} {said}"}


def folder_contents(folder: str | Path) -> dict[tuple[str, str], tuple[datetime, datetime]]:
    """(symbol, timeframe) -> (first open, last close), UTC, of every bar file in a folder. Reads the time column only."""
    contents = {}
    for path, symbol, timeframe in _listed(Path(folder)):
        times, claim = _times(path)
        if len(times) == 0:
            continue
        rule = detect(times, timeframe, claim=claim).rule
        edges = BrokerClock(rule).to_utc(np.array([times.min(), times.max()])).astype("datetime64[us]")
        ends = pa.array(edges, BAR_SCHEMA.field("open_time").type).to_pylist()
        contents[symbol, timeframe.value] = (ends[0], ends[1] + timeframe.delta)
    return contents


def _listed(folder: Path) -> list[tuple[Path, str, Timeframe]]:
    """The folder's bar files by exact name, Parquet before CSV of the same bars. BadBars: no folder, nothing in it."""
    hint = "Give a folder of SYMBOL_TF.parquet or SYMBOL_TF.csv files, for example EURUSD_H1.parquet."
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise BadBars(f"The bars folder {folder} {what}.", hint=hint)
    found: dict[tuple[str, str], tuple[Path, str, Timeframe]] = {}
    for path in sorted(folder.iterdir(), key=lambda p: (p.stem, p.suffix != ".parquet")):
        match = _EXACT.match(path.name)
        if not match or not path.is_file():
            continue
        try:
            symbol, timeframe = _named(path)
        except BadBars:  # somebody else's file: XAUEUR_H1.csv, GOOGLX_D1.csv
            continue
        found.setdefault((symbol, timeframe.value), (path, symbol, timeframe))
    if not found:
        raise BadBars(f"There are no bar files in {folder}.", hint=hint)
    return list(found.values())


def _summary(folder: Path) -> str:
    names = [path.name for path, _, _ in _listed(folder)]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _named(path: Path) -> tuple[str, Timeframe]:
    match = _NAME.match(path.name)
    if not match or path.suffix.lower() not in ENDINGS:
        raise BadBars(
            f"The name {path.name!r} is not SYMBOL_TF.parquet or .csv.", hint="For example EURUSD_H1.parquet."
        )
    try:
        return known_symbol(match.group(1)).code, Timeframe.parse(match.group(2))
    except (UnknownSymbol, UnknownTimeframe) as error:
        raise BadBars(f"{path.name}: {error.message}", hint=error.hint) from None


def _read_table(path: Path) -> pa.Table:
    if not path.is_file():
        raise BadBars(f"There is no bar file {path}.", hint="Check the path.")
    try:
        return pa.parquet.read_table(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise BadBars(
            f"{path.name} cannot be read: {reason}", hint="Is it complete, and of the kind its name says?"
        ) from None


def _read_csv(path: Path) -> pa.Table:
    """Delimiter by the header line; MetaTrader writes UTF-16 with tabs, or UTF-8."""
    content = path.read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = content.decode(encoding)
    header = text.split("\n", 1)[0]
    delimiter = max("\t;,", key=header.count)
    times = [name for name in (part.strip() for part in header.split(delimiter)) if _plain(name) in ("date", "time")]
    times = times if len(times) == 2 else []  # a column of its own is understood; a time of day must stay text
    return pa.csv.read_csv(
        pa.py_buffer(text.encode()),
        parse_options=pa.csv.ParseOptions(delimiter=delimiter),
        convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(times, pa.string())),
    )


def _plain(name: str) -> str:
    plain = name.strip().strip("<>").strip().lower().replace(" ", "_")
    return _ALIASES.get(plain, plain)


def _columns(raw: pa.Table, path: Path) -> dict[str, np.ndarray]:
    """The columns we know, by our names: time datetime64[s] [n] (server clock), prices float64 [n]. BadBars names the rest."""
    given = {_plain(name): raw.column(i) for i, name in reversed(list(enumerate(raw.schema.names)))}
    if "tick_volume" not in given and "vol" in given:
        given["tick_volume"] = given["vol"]
    if "time" not in given and "date" in given:
        given["time"] = given.pop("date")
    missing = [name for name in ("time", *PRICES) if name not in given]
    if missing:
        has = ", ".join(f"{field.name} ({field.type})" for field in raw.schema)
        raise BadBars(f"{path.name} lacks the column {missing[0]!r}.", hint=f"It has {has or 'no columns'}.")
    columns = {"time": _time_column(given, path)}
    for name in (*PRICES, "tick_volume", "spread"):
        if name in given:
            columns[name] = _numbers(given[name], name, path)
    return columns


def _time_column(given: dict[str, pa.ChunkedArray], path: Path) -> np.ndarray:
    """Server wall clock [n]; BadBars where it is no time at which a bar could have been made."""
    times = _parsed_times(given, path)
    wrong = times[(times < _EARLIEST) | (times >= _LATEST)]
    if len(wrong):
        raise BadBars(
            f"{path.name}: {len(wrong)} times lie outside 1970 to 2200, the first is {wrong[0]}.",
            hint="Numbers must be epoch seconds or milliseconds.",
        )
    return times


def _parsed_times(given: dict[str, pa.ChunkedArray], path: Path) -> np.ndarray:
    """MetaTrader's <DATE> and <TIME> are joined, a number is epoch seconds (or ms)."""
    column = given["time"]
    if "date" in given and pa.types.is_string(column.type):
        column = pc.binary_join_element_wise(given["date"].cast(pa.string()), column, " ")
    if column.null_count:
        raise BadBars(
            f"{path.name}: the column 'time' has {column.null_count} empty rows.", hint="Each bar needs its open."
        )
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return column.cast(pa.timestamp("s", getattr(kind, "tz", None)), safe=False).to_numpy().astype("datetime64[s]")
    if pa.types.is_integer(kind):
        epoch = column.to_numpy().astype(np.int64)
        return (epoch // 1000 if epoch.size and np.median(epoch) > 1e11 else epoch).astype("datetime64[s]")
    if pa.types.is_string(kind):
        for form in _TIME_FORMS:
            try:
                return pc.strptime(column, form, "s").to_numpy().astype("datetime64[s]")
            except pa.ArrowInvalid:
                continue
        raise BadBars(f"{path.name}: the time {column[0].as_py()!r} is in no known form.", hint="Use 2020.03.02 14:00.")
    raise BadBars(
        f"{path.name}: the column 'time' is of type {kind}.", hint="It must be a timestamp, text or epoch seconds."
    )


def _numbers(column: pa.ChunkedArray, name: str, path: Path) -> np.ndarray:
    try:
        return column.cast(pa.float64()).to_numpy()
    except pa.ArrowException:
        raise BadBars(
            f"{path.name}: the column {name!r} is of type {column.type}.", hint="It must hold numbers."
        ) from None


def _whole(values: np.ndarray | None, kind: type) -> Any:
    """Counts; -1, NaN, empty and what is too large for a count mean "the source has none" -> null."""
    if values is None:
        return None
    unknown = ~((values >= 0) & (values < np.iinfo(kind).max))
    if unknown.all():
        return None
    return pa.array(np.where(unknown, 0, values).astype(kind), mask=unknown)


def _in_order(bars: pa.Table) -> pa.Table:
    """Oldest first. Files are not a feed: a row in the wrong place is no error; the same open twice is (see validate)."""
    opens = bars["open_time"].cast(pa.int64()).to_numpy()
    if (np.diff(opens) >= 0).all():
        return bars
    return bars.take(pa.array(np.argsort(opens, kind="stable")))


def _times(path: Path) -> tuple[np.ndarray, str]:
    """(server times [n], claim) of a file, without its prices where the form allows."""
    if path.suffix.lower() == ".parquet":
        try:
            schema = pa.parquet.read_schema(path)
        except (pa.ArrowException, OSError):
            _read_table(path)
            raise
        names = [name for name in schema.names if _plain(name) in ("time", "date")]
        table = pa.parquet.read_table(path, columns=names)
        claim = (schema.metadata or {}).get(b"server_tz", b"").decode("utf-8", "replace")
        given = {_plain(name): table[name] for name in names}
        if "time" not in given and "date" not in given:
            raise BadBars(f"{path.name} lacks the column 'time'.", hint=f"It has {', '.join(schema.names)}.")
        given.setdefault("time", given.get("date"))
        return _time_column({"time": given["time"]} if "date" not in given else given, path), claim
    return _columns(_read_table(path), path)["time"], ""
