"""Board: what so many symbols cost each HTTP replica: memory, CPU of a close, bytes of its event and of all forecasts."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil

from benchmarks.compression import varied
from benchmarks.machine import machine
from market.forecasts import BoardUpdate, iso_utc
from serve_app.board import Board, key_of
from serve_app.examples import EXAMPLES
from serve_app.responses import PredictionBody

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
BARS = 240
CLOSES = 9


def forecasts(symbols: list[str], close: datetime, draw: random.Random) -> dict[str, dict[str, Any]]:
    """As a close brings them: two horizons each, other figures every time."""
    horizon = EXAMPLES[PredictionBody]["horizons"][0]
    example = EXAMPLES[PredictionBody] | {"timeframe": "H1", "as_of": iso_utc(close), "horizons": [horizon, horizon]}
    served = {"skill", "data_age_seconds", "served_at"}
    fields = {name: value for name, value in example.items() if name not in served}
    return {key_of(symbol, "H1"): varied(fields, draw) | {"symbol": symbol} for symbol in symbols}


def bars(symbols: list[str], close: datetime, count: int, draw: random.Random) -> dict[str, list[list[Any]]]:
    times = [iso_utc(close - n * HOUR) for n in reversed(range(count))]
    return {key_of(s, "H1"): [[t, *(draw.uniform(1.08, 1.09) for _ in range(4))] for t in times] for s in symbols}


def measure(count: int, seed: int) -> dict[str, Any]:
    draw, symbols = random.Random(seed), [f"S{n:05d}" for n in range(count)]
    moment = [NOON + timedelta(seconds=20)]
    skill = {"H1": EXAMPLES[PredictionBody]["skill"]}
    status = {"started_at": iso_utc(NOON), "source": {"connected": True, "reason": ""}, "series": {}}
    before = psutil.Process().memory_info().rss
    board = Board(now=lambda: moment[0], timeframes=("H1",), bars_kept=BARS)
    first = BoardUpdate(
        1, forecasts(symbols, NOON, draw), skill=skill, bars=bars(symbols, NOON, BARS, draw), status=status
    )
    board.apply(first)
    listener = board.subscribe(signals=False)
    spent = []
    for n in range(1, CLOSES + 1):
        close = NOON + n * HOUR
        moment[0] = close + timedelta(seconds=20)
        update = replace(
            first, version=1 + n, forecasts=forecasts(symbols, close, draw), bars=bars(symbols, close, 1, draw)
        )
        listener.restart()
        began = time.process_time()
        assert board.apply(update)
        spent.append((time.process_time() - began) * 1000)
    event = listener.take()
    assert event is not None
    return {
        "board_mb": round((psutil.Process().memory_info().rss - before) / 2**20, 1),
        "close_ms": round(statistics.median(spent), 1),
        "event_kb": round(len(listener.body(event)) / 1e3, 1),
        "all_kb": round(len(board.forecasts("H1", symbols).body) / 1e3, 1),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lstmc bench board", description=__doc__)
    parser.add_argument("--symbols", default="28,1000")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    figures = {count: measure(int(count), options.seed) for count in options.symbols.split(",")}
    print(json.dumps(figures | {"command": "lstmc bench board --json", "machine": machine()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
