"""Nets on a GPU: every fold of a family as one batched program, against the usual loop (a window of 64 bars for every
forecast, nn.LSTM or nn.GRU, each fold from zero) on the same GPU.

Same bars, folds, inputs, net, loss, optimizer and number of training examples; wall seconds of training on a GPU that has
nothing else to do, uploads and the CUDA graph's capture included. Both are scored on the same out-of-sample rows. First
the program's forecasts are compared with those of nets trained one by one on the CPU, without dropout. Exit 3 without a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.machine import machine
from benchmarks.train import (
    BATCH,
    FAMILIES,
    PROBE_STEPS,
    WEEKS,
    FoldOfWindows,
    folds_of,
    losses,
    scored,
    trained,
    write_simulated,
)
from market.bar_files import read_bar_folder
from market.errors import ClusterError, ModelError
from market.timeframes import Timeframe
from tuning.cross_validate import cross_validate
from tuning.learners.batched import fit_nets_together
from tuning.learners.fitting import Lesson
from tuning.learners.sequence import Net, SequenceModel, fit_net
from tuning.net_chain import Chain, ChainState, link_seed, run_chain
from tuning.presets import Nets, Preset, load_preset
from tuning.shared_panel import shared_panel
from tuning.stacking import sigmoid

COMPARED_STEPS = 10
MOST_DIFFERENCE = 1e-3  # of forecasts (log ratio, logit) after those: float32 sums in another order


def lessons_of(bars: Mapping[str, pa.Table], preset: Preset, folds: Sequence[FoldOfWindows]) -> list[Lesson]:
    """What the product teaches its nets on these folds; a fold before the first tested one is left out."""
    seen: list[Chain] = []

    def look(chains: Sequence[Chain]) -> list[ChainState]:
        seen.extend(chains)
        still = replace(preset.nets, steps=0, steps_warm=0)
        return [run_chain(replace(chain, settings=still)) for chain in chains]

    cross_validate(bars, Timeframe.H1, replace(preset, families=FAMILIES[:1]), run_chains=look)
    chain = seen[0]
    found = [
        Lesson(chain.horizons, link.inputs, chain.starts, link.ratio, link.up, link.offset, link.train)
        for link in chain.links
    ][-len(folds) :]
    for lesson, fold in zip(found, folds, strict=True):
        assert np.array_equal(lesson.rows, fold.train), "both learn from the same rows"
    return found


def largest_difference(family: str, settings: Nets, lessons: Sequence[Lesson], seed: int, device: str) -> float:
    """Of the forecasts of nets trained together on `device` and one by one on the CPU, without dropout, for a few steps."""
    few = replace(settings, steps=COMPARED_STEPS, dropout=0.0)
    seeds = [link_seed(seed, k) for k in range(len(lessons))]
    together = fit_nets_together(family, [few] * len(lessons), seeds, lessons, device=device)
    for model in together:
        model.net.cpu()
    apart = [fit_net(family, few, own, lesson) for own, lesson in zip(seeds, lessons, strict=True)]
    differences = []
    for one, other, lesson in zip(together, apart, lessons, strict=True):
        owner, rows = np.arange(len(lesson.starts) - 1), lesson.rows[:2000]
        made = zip(*(m.predict(lesson.inputs, lesson.starts, owner, rows) for m in (one, other)), strict=True)
        differences += [float(np.nanmax(np.abs(mine - theirs))) for mine, theirs in made]
    return max(differences)


def usual_loop(
    family: str,
    folds: Sequence[FoldOfWindows],
    horizons: tuple[int, ...],
    nets: Nets,
    seeds: Sequence[int],
    device: str,
) -> list[Net]:
    """Fold after fold, as many examples as ours."""
    steps = nets.steps * nets.batch * nets.body // BATCH
    given = zip(folds, seeds, strict=True)
    return [trained(family, fold, horizons, nets, seed, steps, device)[0] for fold, seed in given]


def seconds(action: Callable[[], Any]) -> tuple[Any, float]:
    """-> (what it gives, wall seconds until the GPU, if any, has done it)"""
    began = time.perf_counter()
    made = action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return made, time.perf_counter() - began


def score(model: SequenceModel, lesson: Lesson, fold: FoldOfWindows) -> np.ndarray:
    """As train.scored. [2]"""
    model.net.cpu()
    owner = np.arange(len(lesson.starts) - 1)
    log_ratio, excess = model.predict(lesson.inputs, lesson.starts, owner, fold.test)
    long, short = (lesson.horizons.index(h) for h in (max(lesson.horizons), min(lesson.horizons)))
    return losses(fold.rv, fold.yardstick + log_ratio[:, long], fold.up, sigmoid(fold.base + excess[:, short]))


def measure(bars: Mapping[str, pa.Table], preset: Preset, device: str) -> dict[str, Any]:
    """ModelError when the program's nets are not those trained one by one: its time would mean nothing."""
    preset = replace(preset, lockbox_days=0.0)
    panel, folds = folds_of(bars, preset)
    lessons = lessons_of(bars, preset, folds)
    nets = preset.nets
    seeds = [link_seed(preset.seed, k) for k in range(len(folds))]
    found: dict[str, Any] = {"folds": len(folds), "examples": nets.steps * nets.batch * nets.body}
    spent = {"together": 0.0, "usual": 0.0}
    for family in FAMILIES:
        difference = largest_difference(family, nets, lessons, preset.seed, device)
        if not difference <= MOST_DIFFERENCE:
            raise ModelError(
                f"{family}: nets trained together forecast otherwise than one by one, by {difference:.2g}.",
                hint="The batched program is wrong on this GPU; do not use it.",
            )
        trained(family, folds[0], panel.horizons, nets, preset.seed, PROBE_STEPS, device)  # libraries are loaded
        models, own = seconds(partial(fit_nets_together, family, [nets] * len(folds), seeds, lessons, device=device))
        apart, usual = seconds(partial(usual_loop, family, folds, panel.horizons, nets, seeds, device))
        print(f"{family}: together {own:.2f} s, usual loop {usual:.2f} s", file=sys.stderr, flush=True)
        spent["together"] += own
        spent["usual"] += usual
        scores = {
            "together": np.mean([score(*one) for one in zip(models, lessons, folds, strict=True)], axis=0),
            "usual": np.mean(
                [scored(net, fold, panel.horizons) for net, fold in zip(apart, folds, strict=True)], axis=0
            ),
        }
        found[family] = {
            "seconds": {"together": round(own, 2), "usual": round(usual, 2)},
            "largest_difference": difference,
            "qlike_rv24": {way: round(float(figures[0]), 5) for way, figures in scores.items()},
            "log_loss_sign1": {way: round(float(figures[1]), 5) for way, figures in scores.items()},
        }
    return {"gpu_ratio": round(spent["usual"] / spent["together"], 1)} | found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lstmc bench gpu_nets", description=__doc__)
    parser.add_argument("--bars", type=Path, default=None, help="folder of SYMBOL_H1 files; default: a simulated panel")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--weeks", type=int, default=WEEKS, help="of the simulated panel")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    if not torch.cuda.is_available():
        raise ClusterError(
            f"There is no GPU here that PyTorch {torch.__version__} can use, so nothing was measured.",
            hint="Run it on a node with an NVIDIA GPU and a CUDA build of PyTorch.",
        )
    with tempfile.TemporaryDirectory(prefix="lstmc-bench-") as made:
        folder = options.bars or Path(made)
        if options.bars is None:
            write_simulated(folder, options.weeks, options.seed)
        recorded = read_bar_folder(folder, timeframe="H1", received_at=datetime.now(UTC))
    preset = load_preset(options.preset)
    bars, _ = shared_panel({r.symbol: r.bars for r in recorded if r.bars.num_rows}, preset)
    words = sys.argv[1:] if argv is None else argv
    figures = measure(bars, preset, "cuda") | {
        "gpu": torch.cuda.get_device_name(),
        "command": " ".join(["lstmc bench gpu_nets", *words]),
        "machine": machine(),
    }
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
