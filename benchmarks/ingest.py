"""Ingest: bars over HTTP as Arrow against JSON and against a served Arrow file, the store's append + read back of one close,
tails from memory, and a year's backfill from the simulator.

The three ways of transport carry the same bars and end in the same table, in turns, in one run.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import structlog
import uvicorn
from rich.console import Console
from rich.progress import Progress
from starlette.responses import Response

from actors.market_data import REPAIR_EVERY, MarketData
from benchmarks.machine import machine
from configs.settings import make_settings
from market.bar_store import BarStore
from market.bars import BAR_SCHEMA, bars_from_columns
from market.symbols import CATALOGUE
from market.timeframes import Timeframe
from mt5_actor_windows.actor import Mt5Actor
from mt5_actor_windows.admission import Admission
from mt5_actor_windows.api_keys import KeyRing, issue
from mt5_actor_windows.client import PIECE_BARS, HttpBarSource
from mt5_actor_windows.data_api import create_app
from mt5_actor_windows.listening import serve_in_thread

YEAR_OF_M1 = 52 * 5 * 1440
BINARY_ROUNDS = 5  # turns of Arrow and the file for one of JSON
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
        first, last = ((moment - START) // Timeframe.M1.delta for moment in (since or START, until or START))
        return self._bars.slice(first, last - first)

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


@contextmanager
def served_file(bars: pa.Table, folder: Path) -> Iterator[str]:
    """The bars as an Arrow stream file behind the fastest server that Python readily has; yields its URL.

    The file's bytes lie in memory and go out in one piece: its own FileResponse takes twice as long.
    """
    path = folder / "bars.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, bars.schema) as writer:
        writer.write_table(bars)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(Response(path.read_bytes()), log_level="warning", access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()


def transports(rows: int, rounds: int, folder: Path, seed: int) -> dict[str, float]:
    """Medians over rounds. `arrow_vs_json`: how many times faster Arrow is than JSON; `arrow_vs_file`: how many times longer
    Arrow takes than the same bytes from a file."""
    bars = made_bars("EURUSD", Timeframe.M1, 0, rows, seed)
    until = START + rows * Timeframe.M1.delta
    key, _ = issue(folder, "benchmark")
    served = serve_in_thread(create_app(HeldBars(bars), Admission(KeyRing(folder), per_minute=10**6)), "127.0.0.1", 0)
    address = f"http://127.0.0.1:{served.port}"
    source, client = HttpBarSource(address, key), httpx.Client(headers={"X-API-Key": key}, timeout=600, trust_env=False)

    def by_json() -> pa.Table:
        pieces = []
        for first in range(0, rows, PIECE_BARS):
            ends = [START + n * Timeframe.M1.delta for n in (first, min(first + PIECE_BARS, rows))]
            given = {"from": ends[0].isoformat(), "to": ends[1].isoformat(), "format": "json"}
            pieces.append(_from_json(client.get(f"{address}/mt5/history/EURUSD/M1", params=given).json()["bars"]))
        return pa.concat_tables(pieces)

    def by_file(file_url: str) -> pa.Table:
        with pa.ipc.open_stream(client.get(file_url).content) as reader:
            return reader.read_all()

    with served_file(bars, folder) as url:
        ways = {"arrow": lambda: source.closed_bars("EURUSD", "M1", START, until), "file": lambda: by_file(url)}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(BINARY_ROUNDS * rounds + 1):
            for name, way in ways.items():
                times[name].append(seconds(way, rows))
        text = [seconds(by_json, rows) / seconds(ways["arrow"], rows) for _ in range(rounds)]
    client.close()
    source.close()
    served.stop()
    arrow, file = (np.array(times[name][1:]) for name in ("arrow", "file"))  # the first round warms up
    return {
        "rows": rows,
        "arrow_seconds": round(float(np.median(arrow)), 3),
        "arrow_vs_json": round(float(np.median(text)), 1),
        "arrow_vs_file": round(float(np.median(arrow / file)), 2),
    }


def _from_json(found: list[dict[str, Any]]) -> pa.Table:
    text = pa.Table.from_pylist(found)
    stamps = {name for name in BAR_SCHEMA.names if pa.types.is_timestamp(BAR_SCHEMA.field(name).type)}
    columns = [
        text[name].cast(BAR_SCHEMA.field(name).type) if name in stamps else text[name] for name in BAR_SCHEMA.names
    ]
    return pa.table(columns, names=BAR_SCHEMA.names).cast(BAR_SCHEMA)


def backfill(days: int, folder: Path, seed: int, progress: bool) -> dict[str, float]:
    """A year of H1 of 28 symbols from the simulated terminal into an empty store; then tails for features from memory, and an
    hour's polls between closes, each with a slice of old bars."""
    symbols = list(CATALOGUE)[:28]
    settings = make_settings(home=folder / "home", symbols=",".join(symbols), seed=seed, history_days=days)
    source, store = Mt5Actor(settings), BarStore(folder / "home" / "bars")
    behind = [2 * REPAIR_EVERY]  # so that old bars are due when it is taken back
    now, tolerance = settings.market_clock.now, behind[0] + timedelta(hours=1)
    core = MarketData(
        [("local", source)], store, symbols, ("H1",), days, lambda: now() - behind[0], tolerance=tolerance
    )

    with Progress(console=Console(stderr=True), disable=not progress, transient=True) as bar:
        task = bar.add_task("backfill", total=len(symbols))
        begin = time.perf_counter()
        report = core.backfill(lambda symbol, done, total: bar.update(task, completed=done, description=symbol))
        took = time.perf_counter() - begin
    assert not report["reason"], report
    assert len(report["bars"]) == len(symbols), report
    tails = []
    for n in range(2000):
        begin = time.perf_counter()
        assert core.tail(symbols[n % len(symbols)], "H1", 512).num_rows == 512
        tails.append(time.perf_counter() - begin)
    behind[0] = timedelta(0)
    polls = []
    for _ in symbols:
        begin = time.perf_counter()
        core.poll()
        polls.append(time.perf_counter() - begin)
    source.close()
    return {
        "backfill_bars": report["added"],
        "backfill_seconds": round(took, 1),
        "tail_p95_ms": round(float(np.percentile(tails, 95)) * 1000, 3),
        "old_slice_p95_ms": round(float(np.percentile(polls, 95)) * 1000, 1),
    }


def appends(closes: int, folder: Path, seed: int, count: int) -> dict[str, float]:
    """Milliseconds of: append one H1 close of so many symbols to a store with a year of them, and read it back."""
    symbols, store, year = [f"S{n:05d}" for n in range(count)], BarStore(folder / "bars"), 6264
    store.append(pa.concat_tables([made_bars(symbol, Timeframe.H1, 0, year, seed) for symbol in symbols]))
    took = []
    for close in range(year, year + closes):
        batch = pa.concat_tables([made_bars(symbol, Timeframe.H1, close, 1, seed) for symbol in symbols])
        begin = time.perf_counter()
        added = store.append(batch).added.num_rows
        back = store.read(timeframe="H1", since=START + close * timedelta(hours=1)).num_rows
        took.append(time.perf_counter() - begin)
        assert (added, back) == (len(symbols), len(symbols))
    p50, p95, worst = (round(float(np.percentile(took, q)) * 1000, 1) for q in (50, 95, 100))
    return {"append_p50_ms": p50, "append_p95_ms": p95, "append_worst_ms": worst, "append_symbols": count}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lstmc bench ingest", description=__doc__)
    parser.add_argument(
        "--rows", type=int, default=YEAR_OF_M1, help="bars of one symbol; 365 days of M1 by default; 0: no transport"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of JSON, which takes long; the others take more turns")
    parser.add_argument("--days", type=int, default=365, help="of the backfill; 0: none")
    parser.add_argument("--closes", type=int, default=200)
    parser.add_argument("--symbols", type=int, default=28, help="of a close; the backfill is of 28")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # standard output is for the figures
    with tempfile.TemporaryDirectory(prefix="lstmc-bench-") as folder:
        figures: dict[str, float] = {}
        if options.rows:
            figures |= transports(options.rows, options.rounds, Path(folder), options.seed)
        figures |= appends(options.closes, Path(folder), options.seed, options.symbols)
        if options.days:
            figures |= backfill(options.days, Path(folder), options.seed, sys.stderr.isatty())
    print(json.dumps(figures | {"command": "lstmc bench ingest --json", "machine": machine()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
