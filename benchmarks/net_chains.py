"""Nets: chains over the folds against every fold from zero, on the same bars, folds and seeds. Judges nothing."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from market.bar_files import read_bar_folder
from market.timeframes import Timeframe
from tuning.cross_validate import RunChains, cross_validate
from tuning.learners.fitting import NET_FAMILIES
from tuning.metrics import log_loss, qlike
from tuning.net_chain import Chain, ChainState, run_chain
from tuning.out_of_fold import OutOfFold
from tuning.presets import load_preset
from tuning.shared_panel import shared_panel


def from_zero(chains: Sequence[Chain]) -> Iterator[ChainState]:
    """Every fold as a chain of its own, as if there were no fold before it."""
    for chain in chains:
        alone = [run_chain(replace(chain, links=(link,))) for link in chain.links]
        yield ChainState([a.views[0] for a in alone], [a.cpu_seconds[0] for a in alone], alone[-1].net)


def in_chains(chains: Sequence[Chain]) -> Iterator[ChainState]:
    return (run_chain(chain) for chain in chains)


def compare(folder: Path, preset_name: str, families: tuple[str, ...], seeds: list[int]) -> dict[str, Any]:
    """Out-of-sample losses (folds and lockbox) and CPU-seconds per family, means over seeds."""
    preset = replace(load_preset(preset_name), families=families)
    read = read_bar_folder(folder, timeframe="H1", received_at=datetime.now(UTC))
    bars, _ = shared_panel({r.symbol: r.bars for r in read}, preset)
    ways: dict[str, RunChains] = {"chain": in_chains, "from_zero": from_zero}
    figures: dict[str, Any] = {family: {way: [] for way in ways} for family in families}
    for seed in seeds:
        for way, run_chains in ways.items():
            out = cross_validate(bars, Timeframe.H1, replace(preset, seed=seed), run_chains=run_chains)
            for family in families:
                figures[family][way].append({"cpu_seconds": out.cpu_seconds[family], **losses(out, family)})
                print(f"seed {seed}, {way}, {family}: {figures[family][way][-1]}", file=sys.stderr, flush=True)
    means = {
        family: {way: {key: float(np.mean([run[key] for run in runs])) for key in runs[0]} for way, runs in two.items()}
        for family, two in figures.items()
    }
    spent = {way: sum(two[way]["cpu_seconds"] for two in means.values()) for way in ways}
    return {"families": means, "cpu_ratio": spent["from_zero"] / spent["chain"], "seeds": seeds}


def losses(out: OutOfFold, family: str) -> dict[str, float]:
    made = out.families[family]
    loss = {f"rv{h}": qlike(out.rv[h], np.exp(log_rv)) for h, log_rv in made.log_rv.items()}
    loss |= {f"sign{h}": log_loss(out.ret[h] > 0, p_up) for h, p_up in made.p_up.items()}
    parts = {"": out.fold >= 0, "lockbox_": out.fold < 0}
    return {
        prefix + name: float(values[part].mean()) for prefix, part in parts.items() for name, values in loss.items()
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.net_chains", description=__doc__)
    parser.add_argument("--bars", type=Path, required=True, help="folder of SYMBOL_H1.parquet | .csv")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--families", default=",".join(NET_FAMILIES))
    parser.add_argument("--seeds", default="7")
    given = parser.parse_args(argv)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    figures = compare(given.bars, given.preset, tuple(given.families.split(",")), seeds)
    words = sys.argv[1:] if argv is None else argv
    print(
        json.dumps(figures | {"command": " ".join(["python -m benchmarks.net_chains", *words]), "machine": machine()})
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
