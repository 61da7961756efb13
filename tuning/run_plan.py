"""What a run can afford here: costs measured on the newest fold, settings searched for, the preset cut to the wall.

Knows bars and where units of work run; judges and stores nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from market.timeframes import Timeframe
from tuning.budget import MEASURING, BudgetSpent, Costs, Plan, Wall, plan, probe
from tuning.cross_validate import Progress, RunUnits, in_process, test_rows
from tuning.features import lookback, make_features
from tuning.fold_baselines import fit_fold_baselines
from tuning.learners.fitting import settings_of
from tuning.lessons import make_lessons
from tuning.panel import make_folds, make_panel, recent
from tuning.presets import Preset
from tuning.search import Study, search


@dataclass(frozen=True)
class Workplace:
    """Where units of work run, and how many at a time. `study`: who runs a search whose record lies in a folder; None:
    Optuna alone, in this process."""

    run_units: RunUnits = in_process
    slots: int = 1
    study: Callable[[Path], Study] | None = None

    @property
    def on_cluster(self) -> bool:
        return self.study is not None


def planned(
    bars: Mapping[str, pa.Table],
    timeframe: Timeframe,
    preset: Preset,
    place: Workplace,
    wall: Wall,
    tell: Progress,
    folder: Path,
) -> tuple[Plan, dict[str, Any]]:
    """-> (what fits, with the settings a search has chosen; the record of that search).

    folder: where a search on the cluster keeps what it has tried, until it is done.
    """
    if not preset.families or not (preset.search or wall.finite):
        return Plan(preset), {}
    left = wall.left()
    tell("what a fold costs here", 0, 1)
    wall.kept = (1 - MEASURING) * left if wall.finite else 0.0
    try:
        costs = measure(bars, timeframe, preset, place, wall.now) if wall.finite else None
    except BudgetSpent:
        wall.kept = 0.0
        said = f"all families: measuring what they cost took more than {MEASURING:.0%} of {left:.0f} s"
        return Plan(replace(preset, families=(), search=None), left_out=(said,)), {}
    wall.kept = 0.0
    first = plan(preset, costs, wall.left()) if costs else Plan(preset, search_seconds=wall.left())
    chosen, left_out = replace(preset, search=None), first.left_out[:1] if first.search_cut else ()
    tried: dict[str, Any] = {}
    if preset.search and not first.search_cut:
        wall.kept = wall.left() - first.search_seconds if wall.finite else 0.0
        study = place.study(folder) if place.study else None
        chosen, tried = search(
            bars,
            timeframe,
            preset,
            run_units=place.run_units,
            study=study,
            seconds_left=wall.seconds_left,
            on_progress=tell,
        )
        wall.kept = 0.0
        shutil.rmtree(folder, ignore_errors=True)
    if costs is None:
        return Plan(chosen), tried
    if chosen != replace(preset, search=None):
        wall.kept = (1 - MEASURING) * wall.left()
        try:
            costs = measure(bars, timeframe, chosen, place, wall.now)
        except BudgetSpent:
            chosen, left_out = (
                replace(preset, search=None),
                ("the settings found: what they cost was not known in time",),
            )
        wall.kept = 0.0
    fitting = plan(chosen, costs, wall.left())
    return replace(fitting, left_out=(*left_out, *fitting.left_out)), tried


def measure(
    bars: Mapping[str, pa.Table], timeframe: Timeframe, preset: Preset, place: Workplace, now: Callable[[], float]
) -> Costs:
    """Two short fits per family, side by side as in the run itself; the rest from the time that preparing them takes.

    The newest fold trains on the most bars, so no fold costs more.
    """
    began = now()
    scheme, look = preset.scheme(max(timeframe.horizons)), lookback(timeframe)
    panel = make_panel(recent(bars, scheme, look), timeframe, timeframe.horizons, look)
    folds = make_folds(panel, scheme)
    base = fit_fold_baselines(panel, folds[-1].train, folds[-1].test)
    rows = test_rows(panel, folds[-1], base)
    lessons = make_lessons(panel, base, preset.families, [make_features(s, timeframe) for s in panel.series])
    prepared = now() - began
    units = [(settings_of(f, preset), f, preset.seed, *lessons[f], folds[-1].train, rows) for f in preset.families]
    found = dict(zip(preset.families, place.run_units(probe, units), strict=True))
    return Costs(found, before=prepared * (len(folds) + 2), after=prepared * 3, slots=place.slots, folds=len(folds))
