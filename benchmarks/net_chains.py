"""Nets: chains over the folds against every fold from zero, and what the place where they run costs. CPU-seconds.

Same bars, folds and seeds in one run. `--trainers` instead: the CPU of a whole small Ray that trains one tiny chain per
family as tasks and in a Ray Train run, beside the chains' own. Judges nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from market.bar_files import read_bar_folder
from market.timeframes import Timeframe
from tuning.cross_validate import RunChains, cross_validate, fit_unit
from tuning.learners.fitting import NET_FAMILIES
from tuning.metrics import log_loss, qlike
from tuning.net_chain import Chain, ChainState, Link, run_chain
from tuning.out_of_fold import OutOfFold
from tuning.presets import Nets, load_preset
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


def trainers() -> dict[str, Any]:
    """CPU-seconds of all processes of a Ray of two CPUs, started anew for each way, less those of an idle one."""
    from tuning.distributed import units_on_ray
    from tuning.net_training import train_chains

    chains = [tiny_chain(family) for family in NET_FAMILIES]

    def tasks() -> list[ChainState]:
        units = [(c.family, c.settings, c.seed, c.horizons, c.starts, c.links) for c in chains]
        return list(units_on_ray()(fit_unit, units))

    def ray_train() -> list[ChainState]:
        with tempfile.TemporaryDirectory(prefix="lstmc-bench-") as folder:
            return train_chains(chains, folder)

    figures = {}
    for way in (tasks, ray_train):
        spent, states = cpu_of_a_ray(way)
        own = sum(sum(state.cpu_seconds) for state in states)
        figures[way.__name__] = {"cpu_seconds": round(spent, 1), "of_chains": round(own, 2)}
    return figures


def tiny_chain(family: str) -> Chain:
    rng = np.random.default_rng(1)
    inputs, labels = rng.normal(size=(800, 5)).astype(np.float32), np.ones((800, 2), np.float32)
    links = tuple(
        Link(inputs, labels, labels, 0 * labels, np.arange(last), np.arange(last + 10, last + 40))
        for last in (300, 400, 500)
    )
    settings = Nets(hidden=4, steps=4, steps_warm=2, warm_up=8, body=16, batch=8)
    return Chain(family, settings, 1, (1, 4), np.array([0, 800]), links)


def cpu_of_a_ray(work: Callable[[], list[ChainState]]) -> tuple[float, list[ChainState]]:
    import ray

    with tempfile.TemporaryDirectory(prefix="lstmc-ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        ray.init("local", num_cpus=2, include_dashboard=False, _temp_dir=folder, log_to_driver=False)
        try:
            with cpu_of_children() as spent:
                states = work()
            return spent(), states
        finally:
            ray.shutdown()


@contextmanager
def cpu_of_children(every: float = 0.25) -> Iterator[Callable[[], float]]:
    """CPU-seconds that this process and all its children use meanwhile, those that end in it too (to within `every`)."""
    import psutil

    seen: dict[tuple[int, float], float] = {}
    ended = threading.Event()

    def look() -> float:
        me = psutil.Process()
        for one in (me, *me.children(recursive=True)):
            try:
                times = one.cpu_times()
                seen[one.pid, one.create_time()] = times.user + times.system
            except psutil.Error:
                continue
        return sum(seen.values())

    def watch() -> None:
        while not ended.wait(every):
            look()

    before = look()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: look() - before
    finally:
        ended.set()
        watcher.join()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lstmc bench net_chains", description=__doc__)
    parser.add_argument("--bars", type=Path, help="folder of SYMBOL_H1.parquet | .csv; not needed with --trainers")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--families", default=",".join(NET_FAMILIES))
    parser.add_argument("--seeds", default="7")
    parser.add_argument("--trainers", action="store_true", help="what Ray tasks and Ray Train cost beside the chains")
    given = parser.parse_args(argv)
    if not given.trainers and given.bars is None:
        parser.error("give --bars DIR or --trainers")
    seeds = [int(seed) for seed in given.seeds.split(",")]
    figures = (
        trainers() if given.trainers else compare(given.bars, given.preset, tuple(given.families.split(",")), seeds)
    )
    words = sys.argv[1:] if argv is None else argv
    print(json.dumps(figures | {"command": " ".join(["lstmc bench net_chains", *words]), "machine": machine()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
