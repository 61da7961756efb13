"""Live skill over a year of outcomes: what a restart reads, what a bar costs before its forecast is out and after; JSON.

    python -m benchmarks.live_record [--symbols 28] [--closes 6240] [--url postgresql://...]

A made-up ledger with real rows: signed, settled, as large as those of a serving cluster. `from_zero` is what a ledger
costs once whose forecasts do not yet say what their widths had learned.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from actors.live_record import LiveRecord
from actors.prediction_ledger import PredictionLedger
from benchmarks.machine import machine
from market.bars import bars_from_columns
from market.forecasts import QUANTILE_LEVELS, BaselineForecast, Forecast, HorizonForecast, SkillCard
from market.market_clock import add_open_time
from market.symbols import CATALOGUE
from market.timeframes import Timeframe
from tuning.model_version import ModelVersion

START = datetime(2024, 1, 1, 12, tzinfo=UTC)
HORIZONS = (1, 24)
SIGMA = 1e-3  # of an hour
Z = (-1.64, -1.28, -0.67, 0.0, 0.67, 1.28, 1.64)
APPENDED_AT_ONCE = 100  # closes
CARDS = tuple(
    SkillCard(f"{kind}{bars}", metric, "har_how", 0.03, -2.5, 5712, START, START, True)
    for bars in HORIZONS
    for kind, metric in (("rv", "qlike"), ("r", "pinball"), ("sign", "log_loss"))
)


class Ledger:
    """One year of one model, whose volatility forecasts err by 20 % at random, its baseline's by 25 %."""

    def __init__(self, url: str, symbols: int, closes: int) -> None:
        self.ledger = PredictionLedger(url, "benchmark", wall=lambda: START, market_now=lambda: START)
        self.symbols, self.closes = tuple(CATALOGUE)[:symbols], closes
        self.version = ModelVersion(
            "h1-benchmark", "H1", "stack", self.symbols, HORIZONS, START, START, "bars@1", "d", CARDS, {}
        )
        self.rng = np.random.default_rng(7)
        self.times = [START]
        while len(self.times) < closes + 25:
            self.times.append(add_open_time(self.times[-1], timedelta(hours=1)))
        steps = self.rng.normal(0, SIGMA, (symbols, len(self.times)))
        self.prices = 1.1 * np.exp(np.cumsum(steps, axis=1))

    def forecast(self, symbol: int, close: int) -> Forecast:
        horizons = []
        for bars in HORIZONS:
            base = SIGMA * bars**0.5
            own, limit = base * np.exp(self.rng.normal(0, (0.2, 0.25)))
            said, baseline = (
                dict(zip(map(str, QUANTILE_LEVELS), (s * z for z in Z), strict=True)) for s in (own, limit)
            )
            cards = tuple(card for card in CARDS if card.target.lstrip("rvsign") == str(bars))
            end = self.times[close] + timedelta(hours=bars)
            told = BaselineForecast("har_how", float(limit), baseline, 0.5)
            horizons.append(HorizonForecast(bars, end, float(own), 1.0, said, said, 0.5, cards, baseline=told))
        code, price = self.symbols[symbol], float(self.prices[symbol, close])
        as_of = self.times[close]
        return Forecast(code, "H1", as_of, price, tuple(horizons), self.version.id, "bars@1", as_of, "simulated")

    def bars(self, symbol: int, first: int, last: int) -> pa.Table:
        opens = np.array(
            [t.replace(tzinfo=None) - timedelta(hours=1) for t in self.times[first:last]], "datetime64[us]"
        )
        close = self.prices[symbol, first:last]
        return bars_from_columns(
            self.symbols[symbol], Timeframe.H1, opens, close, close, close, close, received_at=START
        )

    def fill(self) -> None:
        for first in range(0, self.closes - 1, APPENDED_AT_ONCE):
            last = min(first + APPENDED_AT_ONCE, self.closes - 1)
            self.ledger.append(self.forecast(s, c) for c in range(first, last) for s in range(len(self.symbols)))
            self.ledger.settle(*self.tails(last))

    def tails(self, last: int) -> list[pa.Table]:
        """The newest 241 bars of each symbol, as the forecaster has them."""
        return [self.bars(s, max(0, last - 241), last) for s in range(len(self.symbols))]


def seconds(action: Callable[[], Any]) -> dict[str, float]:
    """Wall, and what this process itself used of it."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return {"wall_s": round(time.perf_counter() - wall, 3), "cpu_s": round(time.process_time() - cpu, 3)}


def serve(made: Ledger, record: LiveRecord, close: int) -> None:
    """One bar's forecasts with the widths of now, on record."""
    forecasts = []
    for s, code in enumerate(made.symbols):
        one = made.forecast(s, close)
        adapted = tuple(record.adapt(code, "H1", one.last_close, h) for h in one.horizons)
        forecasts.append(replace(one, horizons=adapted))
    made.ledger.append(forecasts)


def judge(record: LiveRecord) -> None:
    record.refresh("H1")
    record.verdicts("H1")


def measure(made: Ledger) -> dict[str, Any]:
    found: dict[str, Any] = {}
    record = LiveRecord(made.ledger, made.symbols)
    found["from_zero"] = seconds(lambda: record.catch_up(made.version, START))
    serve(made, record, made.closes - 1)
    again, tails = LiveRecord(made.ledger, made.symbols), made.tails(made.closes + 1)
    found["restart"] = seconds(lambda: again.catch_up(made.version, START))
    found["settle_bar"] = seconds(lambda: made.ledger.settle(*tails))
    found["learn_bar"] = seconds(lambda: again.catch_up(made.version, START))
    found["after_announcing"] = seconds(lambda: judge(again))
    figure = again.figure("H1", "rv24", None)
    assert figure is not None
    assert figure.value is not None
    assert figure.value > 0, "the made-up model is better than its baseline"
    found["live"] = {"value": figure.value, "t": figure.t, "n": figure.n}
    found["verify"] = seconds(lambda: made.ledger.verify())
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live_record", description=__doc__)
    parser.add_argument("--symbols", type=int, default=28)
    parser.add_argument("--closes", type=int, default=6240, help="a year of H1")
    parser.add_argument("--url", default="", help="of an empty database; default: SQLite in a temporary folder")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="lstmc-bench-") as folder:
        made = Ledger(given.url or f"sqlite:///{Path(folder) / 'ledger.sqlite'}", given.symbols, given.closes)
        said: dict[str, Any] = {"symbols": given.symbols, "closes": given.closes, "fill": seconds(made.fill)}
        said |= measure(made)
        made.ledger.close()
    command = f"python -m benchmarks.live_record --symbols {given.symbols} --closes {given.closes}"
    database = "PostgreSQL" if given.url.startswith("postgres") else "SQLite"
    print(json.dumps(said | {"database": database, "command": command, "machine": machine()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
