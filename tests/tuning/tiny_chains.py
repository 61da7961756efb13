"""Chains of a few steps over made-up folds, for tests of where and how they run."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tuning.net_chain import Chain, Link
from tuning.presets import Nets

TINY = Nets(hidden=4, steps=6, steps_warm=3, warm_up=8, body=16, batch=8, learning_rate=2e-2)
STARTS = np.array([0, 400, 800])
FOLDS = 4


def make_chain(family: str, *, settings: Nets = TINY, seed: int = 3, final: bool = True) -> Chain:
    """Four folds, each trained on all bars before it, and the final fit. Input 0 drives the ratio at horizon 4."""
    rng = np.random.default_rng(12)
    n = int(STARTS[-1])
    inputs = rng.normal(size=(n, 5)).astype(np.float32)
    ratio = np.stack([np.full(n, np.nan), np.exp(0.5 * inputs[:, 0]) * rng.gamma(8, 1 / 8, n)], axis=1)
    up = (rng.random((n, 2)) < 0.5).astype(np.float32)
    offset = np.zeros((n, 2), np.float32)
    links = []
    for k in range(FOLDS):
        train, test = (pooled(0, 160 + 40 * k), pooled(170 + 40 * k, 205 + 40 * k))
        scale = np.float32(1 + 0.01 * k)  # every fold has a yardstick of its own
        links.append(Link(inputs * scale, ratio.astype(np.float32) * scale, up, offset, train, test))
    if final:
        links.append(Link(inputs, ratio.astype(np.float32), up, offset, pooled(0, 390), None))
    return Chain(family, settings, seed, (1, 4), STARTS, tuple(links))


def pooled(first: int, last: int) -> np.ndarray:
    """Rows first .. last of either symbol."""
    return np.concatenate([np.arange(first, last), STARTS[1] + np.arange(first, last)])


@dataclass(frozen=True)
class Watched(Link):
    """Writes down each time it is begun; a deadly one kills its process with `kill -9`, the first time.

    It dies once Ray Train has taken in what its workers reported before, so that the fold to go on from is known.
    """

    log: Path
    number: int
    is_deadly: bool

    @property
    def is_idle(self) -> bool:
        is_first = not self.log.exists() or str(self.number) not in self.log.read_text().split()
        with open(self.log, "a") as file:
            file.write(f"{self.number}\n")
        if self.is_deadly and is_first:
            from ray import train

            train.get_all_reported_checkpoints(consistency_mode=train.CheckpointConsistencyMode.COMMITTED)
            os.kill(os.getpid(), signal.SIGKILL)
        return False
