"""Freshness: from a bar's close to its forecast at a listener of the stream, 28 symbols on a private cluster whose hours
take ten seconds; beside it what the model alone needs for the same bars.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import numpy as np

from benchmarks.live_cluster import live_cluster
from benchmarks.machine import machine
from cluster.health import api_url
from configs.settings import Settings
from market.bar_store import BarStore
from market.forecasts import parse_utc
from market.market_clock import open_time_between
from market.symbols import CATALOGUE
from serve_app.auth import issue_token
from tuning.registry import Registry

SYMBOLS = tuple(CATALOGUE)[:28]
SPEED = 360.0  # an hour in ten seconds
FORWARD_ROUNDS = 11


def updates(settings: Settings) -> Iterator[tuple[float, dict[str, Any]]]:
    """(wall time of arrival, content) of every update of the stream."""
    headers = {"Authorization": f"Bearer {issue_token(settings, 'bench')}"}
    with httpx.stream(
        "GET", api_url(settings, "/api/v1/stream"), headers=headers, timeout=120, trust_env=False
    ) as answer:
        answer.raise_for_status()
        kind = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: ") and kind == "update":
                yield time.time(), json.loads(line.removeprefix("data: "))


def latencies(settings: Settings, closes: int) -> list[float]:
    """Wall milliseconds from the close to the arrival, for every symbol at each of so many closes."""
    clock, seen, found = settings.market_clock, set(), []
    for arrived, update in updates(settings):
        for key, forecast in update["forecasts"].items():
            as_of = parse_utc(forecast["as_of"])
            if (key, as_of) not in seen and not forecast["stale"]:
                seen.add((key, as_of))
                late = open_time_between(as_of, clock.now(arrived)).total_seconds() / settings.speed
                found.append((as_of, late * 1000))
        whole = sorted({as_of for as_of, _ in found})[1:]  # the first may have been under way when we came
        if len(whole) > closes:
            return [late for as_of, late in found if as_of in whole[:closes]]
    raise RuntimeError("The stream ended.")


def forward_ms(settings: Settings) -> float:
    """Median wall time of the champion's forecast of all symbols from stored bars, in this process."""
    registry = Registry.of(settings)
    champion = registry.champion("H1")
    assert champion is not None
    model, store = registry.load(champion.id), BarStore(settings.bars_path)
    bars = {symbol: store.tail(symbol, "H1", model.bars_needed) for symbol in SYMBOLS}
    spent = []
    for _ in range(FORWARD_ROUNDS):
        began = time.perf_counter()
        assert len(model.forecast(bars)) == len(SYMBOLS)
        spent.append((time.perf_counter() - began) * 1000)
    return median(spent)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lstmc bench freshness", description=__doc__)
    parser.add_argument("--closes", type=int, default=12)
    parser.add_argument("--poll", type=float, default=0.05, help="seconds between looks for closed bars")
    options = parser.parse_args(argv)
    flags = ["--symbols", ",".join(SYMBOLS), "--speed", str(SPEED), "--history-days", "180"]
    with (
        tempfile.TemporaryDirectory(prefix="lstmc-bench-") as folder,
        live_cluster(Path(folder) / "home", *flags, LSTMC_POLL_SECONDS=str(options.poll)) as settings,
    ):
        found = latencies(settings, options.closes)
        forward = forward_ms(settings)
    p50, p95 = (float(np.percentile(found, q)) for q in (50, 95))
    figures = {
        "p50_ms": round(p50, 1),
        "p95_ms": round(p95, 1),
        "forward_ms": round(forward, 1),
        "forward_ratio": round(p50 / forward, 2),
        "poll_ms": options.poll * 1000,
        "symbols": len(SYMBOLS),
        "closes": options.closes,
    }
    print(json.dumps(figures | {"command": "lstmc bench freshness --json", "machine": machine()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
