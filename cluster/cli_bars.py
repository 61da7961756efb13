"""`lstmc bars ...`: what is stored, what is missing, in and out. Works on the store, with or without a running cluster."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.console import Json, comma_list, example, moment, new_app, note, rows, settings, show
from market.errors import InputError

if TYPE_CHECKING:
    from configs.settings import Settings

app = new_app()


def _store() -> Any:
    from market.bar_store import BarStore

    return BarStore(settings().bars_path)


def _series(symbols: str | None, timeframe: str | None) -> list[tuple[str, str]]:
    from market.symbols import symbols as parse_symbols
    from market.timeframes import Timeframe

    here = settings()
    codes = [s.code for s in parse_symbols(comma_list(symbols) or here.symbols)]
    frames = [Timeframe.parse(timeframe).value] if timeframe else list(here.timeframes)
    return [(code, frame) for code in codes for frame in frames]


@app.command("import", epilog=example("lstmc bars import EURUSD_H1.csv ../bars"))
def import_(paths: list[Path], timeframe: Annotated[str | None, typer.Option()] = None, as_json: Json = False) -> None:
    """Add recorded bars (files or folders) to the store. The same bars again change nothing."""
    from market.bar_files import read_bar_file, read_bar_folder

    now, store, report = datetime.now(UTC), _store(), []
    for path in paths:
        found = (
            read_bar_folder(path, timeframe=timeframe, received_at=now)
            if path.is_dir()
            else [read_bar_file(path, received_at=now)]
        )
        for recorded in found:
            appended = store.append(recorded.bars)
            store.quarantine(recorded.quarantined)
            report.append(
                {
                    "symbol": recorded.symbol,
                    "timeframe": str(recorded.timeframe),
                    "added": appended.added.num_rows,
                    "revised": appended.revised.num_rows,
                    "unchanged": appended.unchanged,
                    "quarantined": recorded.quarantined.num_rows,
                    "reasons": _reasons(recorded.quarantined),
                    "clock": recorded.clock,
                }
            )
    show(report, as_json, _import_words)


def _import_words(report: list[dict[str, Any]]) -> str:
    """A line for each file; below, what is to be said of clocks that slip or are not what their file claims."""
    titles = ["symbol", "timeframe", "added", "revised", "unchanged", "quarantined", "reasons"]
    table = rows([*titles, "clock"], [[*(line[t] for t in titles), line["clock"]["rule"]] for line in report])
    doubted = [line for line in report if line["clock"]["slips"] or line["clock"]["claim_agrees"] is False]
    return "\n".join([table, *(f"{one['symbol']} {one['timeframe']}: {one['clock']['message']}" for one in doubted)])


def _reasons(quarantined: Any) -> dict[str, int]:
    counts = quarantined["reason"].value_counts().to_pylist() if quarantined.num_rows else []
    return {entry["values"]: entry["counts"] for entry in counts}


@app.command(epilog=example("lstmc bars backfill"))
def backfill(as_json: Json = False) -> None:
    """Load what history is missing. A running cluster does that by itself; then this shows what it has."""
    from cluster import health

    here = settings()
    if not health.is_running(here, health.current_run(here)):
        _load_history(here)
    counts, ages = _store().counts(), health.bar_ages(here)
    report = [
        {"series": f"{s}/{t}", "bars": counts.get((s, t), 0), "last_close": ages[f"{s}/{t}"]["last_close"]}
        for s, t in _series(None, None)
    ]
    show(report, as_json, lambda _: rows(["series", "bars", "last close"], [list(line.values()) for line in report]))


def _load_history(here: Settings) -> None:
    """With the terminal in this process; MarketUnavailable when it does not answer."""
    from actors.market_data import MarketData
    from market.errors import MarketUnavailable
    from mt5_actor_windows.actor import Mt5Actor

    source = Mt5Actor(here)
    core = MarketData(
        [("local", source)], _store(), here.symbols, here.timeframes, here.history_days, here.market_clock.now
    )
    result = core.backfill(lambda symbol, done, total: note(f"{symbol} {done}/{total}"))
    if result["reason"]:
        raise MarketUnavailable(f"History could not be loaded: {result['reason']}")


@app.command(epilog=example("lstmc bars gaps --symbols EURUSD --kind missing"))
def gaps(
    symbols: Annotated[str | None, typer.Option()] = None,
    timeframe: Annotated[str | None, typer.Option()] = None,
    kind: Annotated[str | None, typer.Option(help="Only closed, no_tick, missing or unfetched.")] = None,
    as_json: Json = False,
) -> None:
    """Holes between stored bars while the market was open, and what the evidence says they are.

    closed: Christmas or New Year, no symbol traded. no_tick: the source shows ticks around, none inside. missing: asked for
    again and again, never there. unfetched: not asked for yet, or not often enough to tell.
    """
    from market.coverage import Coverage
    from market.gap_ledger import KINDS, as_row, ledger, panel_of

    if kind is not None and kind not in KINDS:
        raise InputError(f"Unknown kind {kind!r}.", hint=f"Use one of {', '.join(KINDS)}.")
    store, here = _store(), settings()
    coverage, panels, report = Coverage.beside(here.bars_path), {}, []
    for key in _series(symbols, timeframe):
        if key[1] not in panels:
            panels[key[1]] = panel_of(store, list(here.symbols), key[1])
        holes = ledger(store, coverage, key, panels[key[1]])
        report += [as_row(key, gap) for gap in holes if kind in (None, gap.kind)]
    titles = ["symbol", "timeframe", "from", "to", "kind", "bars"]
    show(
        report, as_json, lambda _: rows(titles, [[hole[t] for t in titles] for hole in report]) if report else "no gaps"
    )


@app.command(epilog=example("lstmc bars export --symbols EURUSD --since 2026-01-01 --out out/bars"))
def export(
    out: Annotated[Path, typer.Option(help="Folder for SYMBOL_TF.parquet or .csv.")],
    symbols: Annotated[str | None, typer.Option()] = None,
    timeframe: Annotated[str | None, typer.Option()] = None,
    since: Annotated[str | None, typer.Option()] = None,
    until: Annotated[str | None, typer.Option()] = None,
    csv: Annotated[bool, typer.Option("--csv", help="CSV instead of Parquet.")] = False,
    as_json: Json = False,
) -> None:
    """Write stored bars as files that `evaluate` and `up --market recorded` read. Times are UTC bar opens."""
    store, written = _store(), []
    start, end = moment(since, "--since"), moment(until, "--until")
    for code, frame in _series(symbols, timeframe):
        table = store.read([code], frame, start, end)
        if table.num_rows:
            path = out / f"{code}_{frame}.{'csv' if csv else 'parquet'}"
            _write(table, path)
            written.append({"file": str(path), "bars": table.num_rows})
    show(
        written,
        as_json,
        lambda _: rows(["file", "bars"], [list(line.values()) for line in written]) if written else "no bars",
    )


def _write(table: Any, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        "open_time": "time",
        "open": "open",
        "high": "high",
        "low": "low",
        "close": "close",
        "tick_volume": "tick_volume",
        "spread_points": "spread",
    }
    plain = table.select(list(columns)).rename_columns(list(columns.values()))
    plain = plain.set_column(0, "time", plain["time"].cast(pa.timestamp("s")))  # naive, in UTC
    if path.suffix == ".csv":
        return pa_csv.write_csv(plain, path)
    pq.write_table(plain.replace_schema_metadata({"server_tz": "UTC", "source": "lstmc bars export"}), path)
