"""Training: five-fold LSTM and GRU against the usual loop (a window of 64 bars for every forecast, each fold from zero), and the
CPU and memory of a whole `evaluate`.

Same bars, folds, inputs, net, loss, optimizer and number of training examples. A fold of the usual loop that uses `--most` times our
CPU is ended there, and the ratio is a lower bound. Both are scored on the same out-of-sample rows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch

from benchmarks.machine import machine
from market.bar_files import read_bar_folder
from market.timeframes import Timeframe
from tuning.cross_validate import cross_validate, test_rows
from tuning.experiments import World, simulate
from tuning.features import lookback
from tuning.fold_baselines import fit_fold_baselines
from tuning.learners.sequence import RATIO_RANGE, Net, _loss
from tuning.lessons import make_lessons
from tuning.metrics import log_loss, qlike
from tuning.out_of_fold import OutOfFold
from tuning.panel import Panel, make_folds, make_panel, recent
from tuning.presets import Nets, Preset, load_preset
from tuning.scaling import YARDSTICK
from tuning.shared_panel import shared_panel
from tuning.stacking import logit, sigmoid
from tuning.windows import gather

FAMILIES = ("lstm", "gru")
WINDOW, BATCH = 64, 256
BACK = np.arange(1 - WINDOW, 1)
PROBE_STEPS = 20
WEEKS = 135  # of the simulated panel: 16,200 bars a symbol


@dataclass(frozen=True)
class FoldOfWindows:
    """What the usual loop learns from and is scored on, rows of the flat axis. labels [n, 3H] as in sequence._loss."""

    inputs: np.ndarray
    labels: np.ndarray
    owner: np.ndarray
    train: np.ndarray
    test: np.ndarray
    rv: np.ndarray
    yardstick: np.ndarray
    up: np.ndarray
    base: np.ndarray


def folds_of(bars: Mapping[str, pa.Table], preset: Preset) -> tuple[Panel, list[FoldOfWindows]]:
    """The same folds, baselines and inputs as cross_validate's."""
    h1 = Timeframe.H1
    scheme, look = preset.scheme(max(h1.horizons)), lookback(h1)
    panel = make_panel(recent(bars, scheme, look), h1, h1.horizons, look)
    long, short = max(h1.horizons), min(h1.horizons)
    made = []
    for fold in (f for f in make_folds(panel, scheme) if f.number >= 0):
        base = fit_fold_baselines(panel, fold.train, fold.test)
        _, inputs, _, ratio, up, offset = make_lessons(panel, base, FAMILIES)["lstm"]
        rows = test_rows(panel, fold, base)
        made.append(
            FoldOfWindows(
                inputs=inputs,
                labels=np.concatenate([np.clip(ratio, *RATIO_RANGE), up, offset], axis=1, dtype=np.float32),
                owner=panel.symbol,
                train=fold.train,
                test=rows,
                rv=panel.rv[long][rows],
                yardstick=base.log_rv[YARDSTICK][long][rows],
                up=(panel.ret[short][rows] > 0).astype(float),
                base=logit(base.base_rate[short])[panel.symbol[rows]],
            )
        )
    return panel, made


def ours(bars: Mapping[str, pa.Table], preset: Preset) -> OutOfFold:
    """What is measured: the product's own cross-validation of both nets."""
    return cross_validate(bars, Timeframe.H1, replace(preset, families=FAMILIES))


def losses(rv: np.ndarray, log_rv: np.ndarray, up: np.ndarray, p_up: np.ndarray) -> np.ndarray:
    """QLIKE of rv24 and log-loss of sign1. [2]"""
    return np.array([qlike(rv, np.exp(log_rv)).mean(), log_loss(up, p_up).mean()])


def usual_loop(
    family: str, fold: FoldOfWindows, horizons: tuple[int, ...], settings: Nets, seed: int, most: float
) -> tuple[np.ndarray, float, str]:
    """-> (losses [2], CPU seconds of training, why it stopped). What `most` CPU seconds allow is planned for: the learning
    rate's cycle ends with the last step."""
    steps = settings.steps * settings.batch * settings.body // BATCH
    _, few = trained(family, fold, horizons, settings, seed, PROBE_STEPS)
    allowed = int(most / few * PROBE_STEPS)
    net, spent = trained(family, fold, horizons, settings, seed, min(steps, allowed))
    return scored(net, fold, horizons), spent, "saw as many examples" if allowed >= steps else "used the most CPU"


def trained(
    family: str,
    fold: FoldOfWindows,
    horizons: tuple[int, ...],
    settings: Nets,
    seed: int,
    steps: int,
    device: str = "cpu",
) -> tuple[Net, float]:
    """The usual loop itself -> (net, CPU seconds). On a GPU the tables lie there before it begins."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    shuffle = np.random.default_rng(seed)
    net = Net(family, fold.inputs.shape[1], int(fold.owner.max()) + 1, len(horizons), settings).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=steps, pct_start=0.2)
    long = torch.tensor([h > 1 for h in horizons], device=device)
    assert fold.train.min() >= WINDOW - 1, "every window is whole"
    inputs, labels, owner = (torch.from_numpy(part).to(device) for part in (fold.inputs, fold.labels, fold.owner))
    back = torch.from_numpy(BACK).to(device)
    queue, began = np.empty(0, int), time.process_time()
    for _ in range(steps):
        if len(queue) < BATCH:
            queue = np.concatenate([queue, shuffle.permutation(fold.train)])
        rows, queue = torch.from_numpy(queue[:BATCH]).to(device), queue[BATCH:]
        scores = net(inputs[rows[:, None] + back], owner[rows])
        loss = _loss(scores[:, -1], labels[rows], long)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return net, time.process_time() - began


def scored(net: Net, fold: FoldOfWindows, horizons: tuple[int, ...]) -> np.ndarray:
    net.cpu().eval()
    parts = []
    with torch.inference_mode():
        for rows in np.array_split(fold.test, max(1, len(fold.test) // 2048)):
            x = torch.from_numpy(gather(fold.inputs, rows[:, None] + BACK))
            parts.append(net(x, torch.from_numpy(fold.owner[rows]))[:, -1].numpy())
    made = np.concatenate(parts).astype(float)
    long, short = horizons.index(max(horizons)), horizons.index(min(horizons))
    return losses(fold.rv, fold.yardstick + made[:, long], fold.up, sigmoid(fold.base + made[:, len(horizons) + short]))


def net_ratio(bars: Mapping[str, pa.Table], preset: Preset, most: float) -> dict[str, Any]:
    """CPU of the usual loop over ours, both nets, all folds; losses averaged over folds."""
    preset = replace(preset, lockbox_days=0.0)
    out = ours(bars, preset)
    panel, folds = folds_of(bars, preset)
    long, short = max(panel.horizons), min(panel.horizons)
    trained_folds = len(make_folds(panel, preset.scheme(long)))  # the burn-in is paid for, too
    cpu = {name: 0.0 for name in ("ours", "usual")}
    found: dict[str, Any] = {"stopped": {}}
    for family in FAMILIES:
        own, usual, stopped = [], [], []
        for k, fold in enumerate(folds):
            rows = out.fold == k
            assert np.array_equal(out.rv[long][rows], fold.rv), "both are scored on the same rows"
            made = out.families[family]
            own.append(losses(fold.rv, made.log_rv[long][rows], fold.up, made.p_up[short][rows]))
            limit = most * out.cpu_seconds[family] / trained_folds
            figures, spent, why = usual_loop(family, fold, panel.horizons, preset.nets, preset.seed, limit)
            print(f"{family}, fold {k + 1}: {spent:.1f} CPU-s, {why}", file=sys.stderr, flush=True)
            usual.append(figures)
            stopped.append(why)
            cpu["usual"] += spent
        cpu["ours"] += out.cpu_seconds[family] * len(folds) / trained_folds
        for name, values in (("ours", own), ("usual", usual)):
            qlike_rv24, log_loss_sign1 = np.mean(values, axis=0)
            found[f"{family}_{name}"] = {
                "qlike_rv24": round(float(qlike_rv24), 5),
                "log_loss_sign1": round(float(log_loss_sign1), 5),
            }
        found["stopped"][family] = {why: stopped.count(why) for why in dict.fromkeys(stopped)}
    return {
        "net_ratio": round(cpu["usual"] / cpu["ours"], 1),
        "net_cpu_seconds": {name: round(seconds, 1) for name, seconds in cpu.items()},
    } | found


def evaluation(folder: Path, preset: str) -> dict[str, float]:
    """`evaluate` in a process of its own, all families."""
    with tempfile.TemporaryDirectory(prefix="lstmc-bench-") as out:
        words = ["--bars", str(folder), "--out", out, "--preset", preset, "--workers", "1", "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "tuning.evaluate", *words], check=True, stdout=subprocess.PIPE, text=True
        )
    report = json.loads(done.stdout)
    return {key: report[key] for key in ("cpu_seconds", "peak_rss_mb")}


def write_simulated(folder: Path, weeks: int, seed: int) -> None:
    """SYMBOL_H1.parquet of seven majors."""
    for symbol, table in simulate(World(weeks=weeks), seed).items():
        opened = table["open_time"].cast(pa.int64()).to_numpy() // 1_000_000
        columns = {name: table[name] for name in ("open", "high", "low", "close", "tick_volume")}
        plain = pa.table({"time": opened} | columns | {"spread": table["spread_points"]})
        pyarrow.parquet.write_table(plain, folder / f"{symbol}_H1.parquet")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lstmc bench train", description=__doc__)
    parser.add_argument("--bars", type=Path, default=None, help="folder of SYMBOL_H1 files; default: a simulated panel")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--most", type=float, default=12.0, help="times our CPU that the usual loop may use in a fold")
    parser.add_argument("--nets-only", action="store_true", help="no evaluate")
    parser.add_argument("--weeks", type=int, default=WEEKS, help="of the simulated panel")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="lstmc-bench-") as made:
        folder = options.bars or Path(made)
        if options.bars is None:
            write_simulated(folder, options.weeks, options.seed)
        figures: dict[str, Any] = {} if options.nets_only else evaluation(folder, options.preset)
        recorded = read_bar_folder(folder, timeframe="H1", received_at=datetime.now(UTC))
    preset = load_preset(options.preset)
    bars, _ = shared_panel({r.symbol: r.bars for r in recorded if r.bars.num_rows}, preset)
    figures |= net_ratio(bars, preset, options.most) | {
        "symbols": len(bars),
        "bars": sum(t.num_rows for t in bars.values()),
    }
    print(json.dumps(figures | {"command": "lstmc bench train --json", "machine": machine()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
