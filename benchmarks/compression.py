"""Compression: what gzip and zstd cost and save on the API's bodies, and below which line speed that pays.

CPU-microseconds of one thread, the median of several rounds. A body's figures are made up from a seed, since repeated
ones would compress too well.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from benchmarks.machine import machine
from serve_app.examples import EXAMPLES
from serve_app.reply import COMPRESSED_FROM, compressed
from serve_app.representation import Representation, written
from serve_app.responses import HistoryBody, PredictionBody
from serve_app.tables import history_table


def varied(value: Any, draw: random.Random) -> Any:
    """`value` with other figures."""
    if isinstance(value, float):
        return value * draw.uniform(0.5, 2)
    if isinstance(value, Mapping):
        return {name: varied(inner, draw) for name, inner in value.items()}
    return [varied(inner, draw) for inner in value] if isinstance(value, list) else value


def bodies(seed: int) -> dict[str, bytes]:
    draw = random.Random(seed)
    horizon = EXAMPLES[PredictionBody]["horizons"][0]
    forecast = EXAMPLES[PredictionBody] | {"horizons": [horizon, horizon]}
    past = EXAMPLES[HistoryBody]["forecasts"][0] | {"horizons": [horizon, horizon | {"bars": 1}]}
    rows = [varied(past, draw) for _ in range(1000)]
    bars = [["2026-03-04T12:00:00Z", *(round(draw.uniform(1.08, 1.09), 5) for _ in range(4))] for _ in range(240)]
    table = history_table(rows)
    return {
        "1 forecast": orjson.dumps(varied(forecast, draw)),
        "240 bars": orjson.dumps(bars),
        "28 forecasts": orjson.dumps([varied(forecast, draw) for _ in range(28)]),
        "1000 past forecasts": orjson.dumps(rows),
        "1000 past forecasts as CSV": written(table, Representation.CSV).body,
        "1000 past forecasts as Arrow": written(table, Representation.ARROW).body,
    }


def cpu_us(action: Callable[[], object], rounds: int) -> float:
    def once() -> float:
        began = time.process_time_ns()
        action()
        return (time.process_time_ns() - began) / 1000

    return statistics.median(once() for _ in range(rounds))


def measure(body: bytes, rounds: int) -> dict[str, Any]:
    figures: dict[str, Any] = {"bytes": len(body), "compressed": len(body) >= COMPRESSED_FROM}
    for coding in ("gzip", "zstd"):
        packed, _ = compressed(body, [coding], at_least=0)
        us = cpu_us(lambda coding=coding: compressed(body, [coding], at_least=0), rounds)  # type: ignore[misc]
        pays_below = (len(body) - len(packed)) * 8 / us  # bits a microsecond are Mbit/s
        figures[coding] = {"bytes": len(packed), "cpu_us": round(us), "pays_below_mbit_s": round(pays_below)}
    return figures


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lstmc bench compression", description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    figures = {name: measure(body, options.rounds) for name, body in bodies(options.seed).items()}
    print(json.dumps(figures | {"command": "lstmc bench compression --json", "machine": machine()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
