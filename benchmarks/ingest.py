"""Ingest: bars over HTTP as Arrow against JSON and against a file, and the store's append + read back of one close.

The three ways of transport carry the same bars and end in the same table, in turns, in one run. Knows no terminal.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet

from benchmarks.machine import machine
from market.bar_store import BarStore
from market.bars import BAR_SCHEMA, bars_from_columns
from market.symbols import CATALOGUE
from market.timeframes import Timeframe
from mt5_actor_windows.client import PIECE_BARS, HttpBarSource
from mt5_actor_windows.data_api import serve_in_thread

KEY = "benchmark"
START = datetime(2025, 1, 6, tzinfo=UTC)


def made_bars(symbol: str, frame: Timeframe, first: int, n: int, seed: int) -> pa.Table:
    """`n` random-walk bars that open `first` bars after START."""
    rng = np.random.default_rng([seed, first])
    opened = np.datetime64(START.replace(tzinfo=None), "s") + (first + np.arange(n)) * np.timedelta64(
        frame.seconds, "s"
    )
    close = 1.1 * np.exp(np.cumsum(rng.normal(0, 1e-4, n)))
    volume, spread = rng.integers(1, 5000, n), rng.integers(1, 30, n)
    low, high = close * 0.999, close * 1.001
    return bars_from_columns(symbol, frame, opened, close, high, low, close, volume, spread, received_at=START)


class HeldBars:
    """A source with one table in memory, so that only the transport is measured."""

    def __init__(self, bars: pa.Table) -> None:
        self._bars = bars

    def closed_bars(
        self, symbol: str, timeframe: str, since: datetime | None, until: datetime | None = None
    ) -> pa.Table:
        return self._bars

    def prices(self, symbols: list[str]) -> list[dict[str, Any]]:
        return []

    def health(self) -> dict[str, Any]:
        return {"now": START, "connected": True}

    def ticks(self, symbol: str, since: datetime, until: datetime | None = None, limit: int = 1) -> pa.Table:
        raise NotImplementedError


def seconds(action: Callable[[], pa.Table], rows: int) -> float:
    begin = time.perf_counter()
    assert action().num_rows == rows
    return time.perf_counter() - begin


def transports(rows: int, rounds: int, folder: Path, seed: int) -> dict[str, float]:
    """Median over rounds of: rows/s by Arrow over rows/s by JSON, and over rows/s by Parquet file."""
    bars = made_bars("EURUSD", Timeframe.M1, 0, rows, seed)
    until = START + rows * Timeframe.M1.delta
    served = serve_in_thread(HeldBars(bars), KEY, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{served.port}"
    source, client = HttpBarSource(address, KEY), httpx.Client(base_url=address, headers={"X-API-Key": KEY}, timeout=60)

    def by_json() -> pa.Table:
        given = {"from": START.isoformat(), "to": until.isoformat(), "format": "json"}
        found = client.get("/mt5/history/EURUSD/M1", params=given).json()["bars"]
        text = pa.Table.from_pylist(found)
        stamps = {name for name in BAR_SCHEMA.names if pa.types.is_timestamp(BAR_SCHEMA.field(name).type)}
        columns = [
            text[name].cast(BAR_SCHEMA.field(name).type) if name in stamps else text[name] for name in BAR_SCHEMA.names
        ]
        return pa.table(columns, names=BAR_SCHEMA.names).cast(BAR_SCHEMA)

    def by_file() -> pa.Table:
        path = folder / "EURUSD_M1.parquet"
        pa.parquet.write_table(bars, path)
        return pa.parquet.read_table(path)

    ways = {"arrow": lambda: source.closed_bars("EURUSD", "M1", START, until), "json": by_json, "file": by_file}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            times[name].append(seconds(way, rows))
    client.close()
    source.close()
    served.stop()
    arrow, text, file = (np.array(times[name][1:]) for name in ("arrow", "json", "file"))  # the first round warms up
    return {"arrow_vs_json": round(median(text / arrow), 2), "arrow_vs_file": round(median(file / arrow), 2)}


def appends(closes: int, folder: Path, seed: int) -> float:
    """95th percentile, in ms, of: append one H1 close of 28 symbols to a store with a year of them, and read it back."""
    symbols, store, year = list(CATALOGUE)[:28], BarStore(folder / "bars"), 6264
    store.append(pa.concat_tables([made_bars(symbol, Timeframe.H1, 0, year, seed) for symbol in symbols]))
    took = []
    for close in range(year, year + closes):
        batch = pa.concat_tables([made_bars(symbol, Timeframe.H1, close, 1, seed) for symbol in symbols])
        begin = time.perf_counter()
        added = store.append(batch).added.num_rows
        back = store.read(timeframe="H1", since=START + close * timedelta(hours=1)).num_rows
        took.append(time.perf_counter() - begin)
        assert (added, back) == (len(symbols), len(symbols))
    return round(float(np.percentile(took, 95)) * 1000, 1)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lstmc bench ingest", description=__doc__)
    parser.add_argument("--rows", type=int, default=PIECE_BARS, help="bars per answer")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--closes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="lstmc-bench-") as folder:
        figures = transports(min(options.rows, PIECE_BARS), options.rounds, Path(folder), options.seed)
        figures["append_p95_ms"] = appends(options.closes, Path(folder), options.seed)
    print(json.dumps(figures | {"command": "lstmc bench ingest --json", "machine": machine()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
