"""A net family's chain over the walk-forward folds: each fold starts from the weights of the fold before it, never of a
later one, and so needs fewer steps. It can be left after any fold and taken up again with the same result.

Pure: arrays and bytes. Knows neither panels nor Ray.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from market.errors import InputError, ModelError
from tuning.learners.fitting import Lesson
from tuning.presets import Nets
from tuning.splits import Fold

if TYPE_CHECKING:
    from tuning.learners.sequence import SequenceModel

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
    from tuning.learners.sequence import fit_net

    if chain.links[state.done].is_idle:
        return _stepped_over(chain, state)
    began = time.process_time()
    model = fit_net(*_task(chain, state), start=_start(chain, state), device=device)
    return _extended(chain, state, model, began, 0.0)


def advance_all(
    chains: Sequence[Chain], states: Sequence[ChainState], device: str = "cpu", *, together: bool = False
) -> list[ChainState]:
    """`advance` for each. `together`, for a GPU: nets of one shape learn in one program, see learners/batched.py.

    A net without another of its shape is trained by itself; the CPU-seconds of a program are shared out equally.
    """
    if not together:
        return [advance(chain, state, device) for chain, state in zip(chains, states, strict=True)]
    from tuning.learners.batched import fit_nets_together, shape_key

    made: dict[int, ChainState] = {}
    groups: dict[tuple[object, ...], list[int]] = {}
    for k, (chain, state) in enumerate(zip(chains, states, strict=True)):
        if not chain.links[state.done].is_idle:
            family, settings, _, lesson = _task(chain, state)
            groups.setdefault(shape_key(family, settings, lesson, bool(state.net)), []).append(k)
    for group in (group for group in groups.values() if len(group) > 1):
        began = time.process_time()
        families, settings_of, seeds, lessons = zip(*(_task(chains[k], states[k]) for k in group), strict=True)
        starts = [_start(chains[k], states[k]) for k in group]
        models = fit_nets_together(families[0], settings_of, seeds, lessons, starts=starts, device=device)
        share = (time.process_time() - began) / len(group)
        for k, model in zip(group, models, strict=True):
            made[k] = _extended(chains[k], states[k], model, time.process_time(), share)
    return [made[k] if k in made else advance(chains[k], states[k], device) for k in range(len(chains))]


def _task(chain: Chain, state: ChainState) -> tuple[str, Nets, int, Lesson]:
    """What fit_net needs for the next link."""
    link = chain.links[state.done]
    lesson = Lesson(chain.horizons, link.inputs, chain.starts, link.ratio, link.up, link.offset, link.train)
    return chain.family, chain.settings, link_seed(chain.seed, state.done), lesson


def _start(chain: Chain, state: ChainState) -> SequenceModel | None:
    from tuning.learners.sequence import load_net

    return load_net(chain.family, state.net) if state.net else None


def _stepped_over(chain: Chain, state: ChainState) -> ChainState:
    nothing = np.empty((0, len(chain.horizons)))
    return ChainState([*state.views, (nothing, nothing)], [*state.cpu_seconds, 0.0], state.net)


def _extended(chain: Chain, state: ChainState, model: SequenceModel, began: float, spent: float) -> ChainState:
    """The state with the next link's forecasts. CPU-seconds: since `began`, and those `spent` before."""
    link, view = chain.links[state.done], None
    if link.test is not None:
        view = model.predict(link.inputs, chain.starts, np.arange(len(chain.starts) - 1), link.test)
    spent += time.process_time() - began
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
