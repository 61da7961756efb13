"""A net family's chain over the walk-forward folds: each fold starts from the weights of the fold before it, never of a
later one, and so needs fewer steps. It can be left after any fold and taken up again with the same result.

Pure: arrays and bytes. Knows neither panels nor Ray.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from market.errors import InputError, ModelError
from tuning.learners.fitting import Lesson
from tuning.presets import Nets
from tuning.splits import Fold

View = tuple[np.ndarray, np.ndarray]  # log ratio [len(test), H], logit excess [len(test), H]


@dataclass(frozen=True)
class Link:
    """One fold: arrays as in fitting.Lesson, and the rows to forecast; None for the final fit, which forecasts nothing."""

    inputs: np.ndarray
    ratio: np.ndarray
    up: np.ndarray
    offset: np.ndarray
    train: np.ndarray
    test: np.ndarray | None

    @property
    def is_idle(self) -> bool:
        """A fold with nothing to forecast trains nothing and hands the weights on."""
        return self.test is not None and len(self.test) == 0


@dataclass(frozen=True)
class Chain:
    """One family over the folds in time order. The final fit, if any, is the last link."""

    family: str
    settings: Nets
    seed: int
    horizons: tuple[int, ...]
    starts: np.ndarray
    links: tuple[Link, ...]

    @property
    def name(self) -> str:
        return f"{self.family}, seed {self.seed}, {json.dumps(asdict(self.settings), sort_keys=True)}"


@dataclass
class ChainState:
    """What a chain has after its first `done` links.

    views: the forecasts of each of them that has test rows (None: the final fit); cpu_seconds of each. `net`: the
    files of the last trained net, empty before the first.
    """

    views: list[View | None] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    net: dict[str, bytes] = field(default_factory=dict)

    @property
    def done(self) -> int:
        return len(self.views)


def require_time_order(folds: Sequence[Fold], moment: np.ndarray, label_end: np.ndarray) -> None:
    """InputError unless every label that a fold or one before it was trained on ends before the fold's first test row.

    moment, label_end: datetime64 [n], by flat row. Weights carry what they were trained on into all later folds.
    """
    known = np.datetime64("0000-01-01", "us")
    for fold in folds:
        if len(fold.train):
            known = max(known, label_end[fold.train].max())
        if len(fold.test) and known >= moment[fold.test].min():
            raise InputError(
                f"Weights trained on labels until {known} would be handed to a fold tested from {moment[fold.test].min()}.",
                hint="A chain runs over purged walk-forward folds in time order.",
            )


def advance(chain: Chain, state: ChainState, device: str = "cpu") -> ChainState:
    """Train and forecast the next link -> the state after it; `state` itself stays as it was."""
    from tuning.learners.sequence import fit_net, load_net

    link, seed = chain.links[state.done], link_seed(chain.seed, state.done)
    if link.is_idle:
        nothing = np.empty((0, len(chain.horizons)))
        return ChainState([*state.views, (nothing, nothing)], [*state.cpu_seconds, 0.0], state.net)
    began = time.process_time()
    start = load_net(chain.family, state.net) if state.net else None
    lesson = Lesson(chain.horizons, link.inputs, chain.starts, link.ratio, link.up, link.offset, link.train)
    model = fit_net(chain.family, chain.settings, seed, lesson, start=start, device=device)
    view = None
    if link.test is not None:
        view = model.predict(link.inputs, chain.starts, np.arange(len(chain.starts) - 1), link.test)
    spent = time.process_time() - began
    return ChainState([*state.views, view], [*state.cpu_seconds, spent], model.to_files())


def run_chain(chain: Chain, state: ChainState | None = None, device: str = "cpu") -> ChainState:
    """Every link that `state` lacks, one after another."""
    state = state or ChainState()
    while state.done < len(chain.links):
        state = advance(chain, state, device)
    return state


def link_seed(seed: int, link: int) -> int:
    """The chain's own seed for its first link, an unrelated one for each later."""
    return seed if link == 0 else int(np.random.SeedSequence((seed, link)).generate_state(1)[0])


def state_to_files(chain: Chain, state: ChainState) -> dict[str, bytes]:
    """A checkpoint: file name -> content, no pickle."""
    from safetensors.numpy import save

    views = {
        f"{side}.{k}": np.ascontiguousarray(part)
        for k, view in enumerate(state.views)
        if view is not None
        for side, part in zip(("log_ratio", "excess"), view, strict=True)
    }
    head = {"chain": chain.name, "done": state.done, "cpu_seconds": state.cpu_seconds}
    return {"chain.json": json.dumps(head).encode(), "views.safetensors": save(views), **state.net}


def state_from_files(chain: Chain, files: Mapping[str, bytes]) -> ChainState:
    """What `state_to_files` wrote. ModelError when it belongs to another chain."""
    from safetensors.numpy import load

    head, kept = json.loads(files["chain.json"]), load(files["views.safetensors"])
    if head["chain"] != chain.name:
        raise ModelError(f"A checkpoint of another chain: {head['chain']}.", hint="Give every run a name of its own.")
    views = [
        (kept[f"log_ratio.{k}"], kept[f"excess.{k}"]) if f"excess.{k}" in kept else None for k in range(head["done"])
    ]
    net = {name: content for name, content in files.items() if name.startswith("net.")}
    return ChainState(views, head["cpu_seconds"], net)
