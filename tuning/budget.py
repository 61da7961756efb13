"""A run's wall: how long is left, what of a preset still fits, and what goes first when it does not.

Pure: the clock is injected, costs are given. Where a unit is stopped that does not return is distributed.py's work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from threading import Lock
from typing import Any

import numpy as np

from market.errors import ModelError
from tuning.learners.fitting import NET_FAMILIES, TREE_FAMILIES, fit_and_predict
from tuning.presets import Boosting, Nets, Preset

# What goes first when time is short: the dearest of those that the trees most often make up for.
LEFT_OUT_FIRST = ("attention", "lstm", "gru", "xgboost", "lightgbm")
FEWEST_STEPS = 0.4  # of a net's steps; with fewer its learning rate's cycle is no longer what was chosen
MARGIN = 1.25  # of a measured cost: other work shares the machine
FEWEST_TRIALS = 3  # a search that has time for fewer is not begun
LAST_SECONDS = 1.0  # to end a unit and say so, before the whole run is ended
MEASURING = 0.25  # of the wall that measuring costs may take; where that is too little, learning fits even less
_PROBE = (2, 10)  # steps or trees


class BudgetSpent(ModelError):
    """The time given with --budget is over; the champion stays."""


class Wall:
    """When a run has to be over. `kept`: the last seconds of it, which units of work may not use."""

    def __init__(self, seconds: float = inf, *, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._deadline = now() + seconds
        self.kept = 0.0
        self.settling = Lock()  # held while a champion is replaced: nobody ends the run in between

    @property
    def finite(self) -> bool:
        return self._deadline < inf

    def left(self) -> float:
        """Seconds to the wall; negative behind it."""
        return self._deadline - self.now()

    def seconds_left(self) -> float:
        """Seconds that units of work may still use."""
        return self.left() - max(self.kept, LAST_SECONDS)

    def part(self, share: float) -> Wall:
        """A wall of its own after that share of what is left."""
        part = Wall(max(self.left(), 0.0) * share, now=self.now)
        part.settling = self.settling
        return part

    def check(self, before: str) -> None:
        if self.left() <= 0:
            raise BudgetSpent(f"The budget was spent before {before}; the champion stays.")


def within(
    run_units: Callable[..., Iterable[Any]], wall: Wall
) -> Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], Iterable[Any]]:
    """The same `run_units`, no unit begun once the wall's units are out of time: BudgetSpent between two results."""

    def run(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> Iterable[Any]:
        for done, result in enumerate(run_units(function, arguments), start=1):
            yield result
            if done < len(arguments) and wall.seconds_left() <= 0:
                raise BudgetSpent("The budget was spent between two units of work; the champion stays.")

    return run


@dataclass(frozen=True)
class UnitCost:
    """Wall seconds of one family on one fold, in a worker that has its neighbours: fixed + per_step * steps (or trees)."""

    fixed: float
    per_step: float

    def of(self, steps: int) -> float:
        return self.fixed + self.per_step * steps


@dataclass(frozen=True)
class Costs:
    """`before`: seconds of baselines and stack, `after`: of judging and saving, both in this process. `slots`: units at a time;
    `folds`: how many there are, burn-in and lockbox included."""

    units: Mapping[str, UnitCost]
    before: float
    after: float
    slots: int
    folds: int


@dataclass(frozen=True)
class Plan:
    """What fits. `kept`: seconds after cross-validation, for judging, the final fit and saving. `left_out`: what does not
    fit, in words; with `search_cut` its first entry is the search."""

    preset: Preset
    search_seconds: float = 0.0
    kept: float = 0.0
    left_out: tuple[str, ...] = ()
    search_cut: bool = False


def plan(preset: Preset, costs: Costs, left: float) -> Plan:
    """Cut the preset to `left` seconds: the search first, then the nets' steps, then families by LEFT_OUT_FIRST."""
    said: list[str] = []
    seconds = 0.0
    if preset.search is not None:
        seconds = min(preset.search.share * left, left - _needed(preset, costs))
        wanted = FEWEST_TRIALS * _trial(preset, costs)
        if seconds < wanted:
            said.append(f"the search: {wanted:.0f} s would be needed, {max(seconds, 0.0):.0f} s were left for it")
            seconds = 0.0
    search_cut = bool(said)
    fitting, dropped = _shortened(preset, costs, left), []
    while fitting.families and (wanted := _needed(fitting, costs)) > left:
        last = next(f for f in LEFT_OUT_FIRST if f in fitting.families)
        said.append(f"{last}: {wanted:.0f} s would be needed with it, {left:.0f} s were left")
        dropped.append(last)
        families = tuple(f for f in preset.families if f not in dropped)
        fitting = _shortened(replace(preset, families=families), costs, left)
    if set(fitting.families) & set(NET_FAMILIES) and fitting.nets.steps < preset.nets.steps:
        said.append(f"{preset.nets.steps - fitting.nets.steps} of the nets' {preset.nets.steps} steps")
    return Plan(fitting, seconds, _after(fitting, costs), tuple(said), search_cut)


def _trial(preset: Preset, costs: Costs) -> float:
    """One setting on three inner folds, all families."""
    return MARGIN * 3 * max(_work(preset, costs) / costs.slots, _longest(preset, costs))


def _needed(preset: Preset, costs: Costs) -> float:
    trees = [costs.units[f].of(preset.boosting.trees) for f in preset.families if f in TREE_FAMILIES]
    chains = [_chain(costs.units[f], preset.nets, costs.folds) for f in preset.families if f in NET_FAMILIES]
    units = max((costs.folds * sum(trees) + sum(chains)) / costs.slots, *trees, *chains, 0.0)
    return costs.before + MARGIN * units + _after(preset, costs)


def _chain(unit: UnitCost, nets: Nets, folds: int) -> float:
    """Seconds of a net family on all folds, one after another, the final fit among them."""
    return unit.of(nets.steps) + folds * unit.of(nets.steps_warm)


def _after(preset: Preset, costs: Costs) -> float:
    """Judging and saving, and the final fit of the trees; a net's is the end of its chain."""
    trees = [costs.units[f].of(preset.boosting.trees) for f in preset.families if f in TREE_FAMILIES]
    return MARGIN * (max(sum(trees) / costs.slots, *trees, 0.0) + costs.after)


def _work(preset: Preset, costs: Costs) -> float:
    """Seconds of all families on one fold, one after another, each from zero."""
    return sum(costs.units[f].of(_steps(f, preset)) for f in preset.families)


def _longest(preset: Preset, costs: Costs) -> float:
    return max((costs.units[f].of(_steps(f, preset)) for f in preset.families), default=0.0)


def _steps(family: str, preset: Preset) -> int:
    return preset.boosting.trees if family in TREE_FAMILIES else preset.nets.steps


def _shortened(preset: Preset, costs: Costs, left: float) -> Preset:
    """The most steps of the nets that fit, no fewer than FEWEST_STEPS of them."""
    steps = preset.nets.steps
    if not set(preset.families) & set(NET_FAMILIES) or _needed(preset, costs) <= left:
        return preset
    fewest = max(int(np.ceil(FEWEST_STEPS * steps)), 1)

    def cut(n: int) -> Preset:
        warm = max(preset.nets.steps_warm * n // steps, 1)
        return replace(preset, nets=replace(preset.nets, steps=n, steps_warm=warm))

    full, low = _needed(preset, costs), _needed(cut(fewest), costs)
    if low > left or full <= low:
        return cut(fewest)
    return cut(fewest + int((steps - fewest) * (left - low) / (full - low)))  # costs are about linear in the steps


def probe(settings: Boosting | Nets, family: str, *unit: Any) -> UnitCost:
    """A unit of work that measures one: two short fits of the family on a fold. `unit`: the rest of fit_and_predict's."""

    def seconds(steps: int) -> float:
        shorter: Boosting | Nets
        if isinstance(settings, Boosting):
            shorter = replace(settings, trees=steps)
        else:
            shorter = replace(settings, steps=steps)
        began = time.perf_counter()
        fit_and_predict(family, shorter, *unit)
        return time.perf_counter() - began

    few, more = _PROBE
    seconds(few)  # loads the libraries
    short, long = seconds(few), seconds(more)
    per_step = max(long - short, 0.0) / (more - few)
    return UnitCost(max(short - few * per_step, 0.0), per_step)
