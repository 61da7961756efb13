"""Forecast: CPU of one symbol's forecast from a warm bundle of every family, of 28 symbols at once, and the memory of a
28-symbol retrain.

The bundle is a real one, fitted, saved and loaded; every family is given weight in it, so that every one has to run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from benchmarks.machine import machine
from configs.settings import make_settings, save_settings
from market.bar_store import BarStore
from market.symbols import CATALOGUE
from market.timeframes import Timeframe
from tuning.cross_validate import cross_validate
from tuning.ensemble import Ensemble
from tuning.experiments import World, simulate
from tuning.final_fit import fit_ensemble
from tuning.out_of_fold import OutOfFold
from tuning.presets import load_preset
from tuning.stack_folds import BASELINE, ECONOMETRIC

SYMBOLS = tuple(CATALOGUE)[:28]
LOOK_SECONDS = 0.2  # between two looks at the retrain's memory


def everything_counts(oof: OutOfFold, families: tuple[str, ...]) -> OutOfFold:
    """The same forecasts, equal weights for every family in every target."""
    weights = dict(oof.stack_weights)
    for h in oof.horizons:
        volatile = (BASELINE, *ECONOMETRIC, *(f for f in families if h in oof.families[f].log_rv))
        weights[f"rv{h}"] = dict.fromkeys(volatile, 1 / len(volatile))
        weights[f"sign{h}"] = dict.fromkeys(families, 1 / len(families))
    return replace(oof, stack_weights=weights)


def make_bundle(bars: dict[str, pa.Table], folder: Path) -> Ensemble:
    """The quick preset's shapes, with nets and trees that have learned little: what they cost to run is the same."""
    quick = load_preset("quick")
    preset = replace(quick, nets=replace(quick.nets, steps=3))
    oof = everything_counts(cross_validate(bars, Timeframe.H1, preset), preset.families)
    passed = {f"{kind}{h}": True for kind in ("rv", "r", "sign") for h in oof.horizons}
    fit_ensemble(bars, Timeframe.H1, preset, oof, passed).save(folder)
    loaded = Ensemble.load(folder)
    assert set(loaded.learners) == set(preset.families)
    return loaded


def cpu_ms(action: Callable[[], Any], rounds: int) -> float:
    """Median after a warm-up."""
    spent = []
    for _ in range(rounds + 3):
        began = time.process_time()
        action()
        spent.append((time.process_time() - began) * 1000)
    return round(float(np.median(spent[3:])), 2)


def forecasts(rounds: int, seed: int, folder: Path) -> dict[str, float]:
    bars = simulate(World(weeks=26, symbols=SYMBOLS), seed)
    model = make_bundle(bars, folder / "bundle")
    tails = {s: t.slice(t.num_rows - model.bars_needed) for s, t in bars.items()}
    one = {SYMBOLS[0]: tails[SYMBOLS[0]]}
    assert all(made[-1].volatility for made in model.forecast(tails).values())
    return {
        "one_symbol_ms": cpu_ms(lambda: model.forecast(one), rounds),
        "batched_ms": cpu_ms(lambda: model.forecast(tails), rounds),
        "symbols": len(tails),
        "bars_needed": model.bars_needed,
    }


def retrain_memory(weeks: int, seed: int, folder: Path) -> dict[str, float]:
    """Peak of the proportional memory of `python -m tuning.retrain --local` and its workers, in MB."""
    settings = make_settings(home=folder / "home", symbols=",".join(SYMBOLS), timeframes="H1")
    save_settings(settings)
    store = BarStore(settings.bars_path)
    store.append(pa.concat_tables(simulate(World(weeks=weeks, symbols=SYMBOLS), seed).values()))
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "tuning.retrain", "--preset", "quick", "--local"],
        env=os.environ | {"LSTMC_HOME": str(settings.home_path)},
    )
    peak, over = 0.0, threading.Event()
    while process.poll() is None:
        peak = max(peak, memory_mb(process.pid))
        over.wait(LOOK_SECONDS)
    assert process.returncode == 0, "the retrain failed"
    return {
        "retrain_peak_mb": round(peak),
        "retrain_bars": weeks * 120 * len(SYMBOLS),
        "retrain_wall_seconds": round(time.perf_counter() - began),
    }


def memory_mb(pid: int) -> float:
    total = 0.0
    try:
        parent = psutil.Process(pid)
        for one in (parent, *parent.children(recursive=True)):
            total += one.memory_full_info().pss / 2**20
    except psutil.Error:  # one of them has just ended
        pass
    return total


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lstmc bench forecast", description=__doc__)
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--weeks", type=int, default=135, help="of the retrain's panel; 0: no retrain")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="lstmc-bench-") as folder:
        figures: dict[str, Any] = forecasts(options.rounds, options.seed, Path(folder))
        if options.weeks:
            figures |= retrain_memory(options.weeks, options.seed, Path(folder))
    print(json.dumps(figures | {"command": "lstmc bench forecast --json", "machine": machine()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
