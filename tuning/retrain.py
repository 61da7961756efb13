"""From stored bars to a judged model: cross-validate, judge, fit, bundle, register, promote if better.

    python -m tuning.retrain --preset quick [--symbols A,B] [--timeframe H1] [--budget 30m] [--local] [--json]

Runs inside a Ray job (the units are spread over the cluster) or, with --local, in processes of this machine. Settings
come from LSTMC_HOME. Exit 0 also when the champion stays: that is a result. 2: bad input, 3: no cluster, 5: models.
--budget is a wall: what does not fit is left out first, and what still runs when it is reached is ended.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

from configs.durations import parse_budget
from configs.settings import Settings, load_settings
from market.errors import BundleRefused, LstmcError, ModelError
from market.forecasts import jsonable
from market.symbols import symbols as known_symbols
from market.timeframes import Timeframe
from tuning.budget import BudgetSpent, Wall, within
from tuning.candidate import Data, barred_by_live_loss, build, champion_losses, make_report, read_data, recipe
from tuning.cross_validate import RunChains, cross_validate, in_process
from tuning.distributed import cluster, hard_stop, process_pool, slots, units_on_ray
from tuning.evaluate import finite
from tuning.leak_battery import leak_battery
from tuning.model_version import ModelVersion
from tuning.presets import Preset, load_preset
from tuning.progress import Progress
from tuning.promotion import GateResult, judge, judge_floor
from tuning.registry import Registry
from tuning.report_words import summary_lines
from tuning.run_plan import Workplace, planned
from tuning.search_on_ray import study_on_ray

# An econometric champion is refitted, ungated, once its bars are this much older than what there is now.
REFIT_AFTER = timedelta(days=7)


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `model`: what it made and registered, None when it made nothing."""

    timeframe: str
    promoted: bool
    why: str
    champion: str | None
    model: ModelVersion | None
    report: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        model = self.model.id if self.model else None
        chosen = {
            k: self.report[k]
            for k in ("targets", "family_cpu_seconds", "protocol", "search", "budget")
            if k in self.report
        }
        fields = {"timeframe": self.timeframe, "promoted": self.promoted, "why": self.why, "champion": self.champion}
        return finite(jsonable(fields | {"model": model} | chosen))

    def record(self, preset: Preset) -> dict[str, Any]:
        """What is kept of every run: enough to say why the champion stayed."""
        verdicts = {
            target: {key: v[key] for key in ("promoted", "skill", "t", "baseline", "why")}
            for target, v in self.report.get("targets", {}).items()
        }
        known = {"preset": preset.name, "promoted": self.promoted, "why": self.why, "champion": self.champion}
        known |= {"data_version": self.report.get("data_version"), "targets": verdicts}
        return known | {key: self.report[key] for key in ("budget",) if key in self.report}


def main(argv: list[str] | None = None) -> int:
    given = _parser().parse_args(argv)
    progress = Progress(sys.stderr)
    outcomes: list[Outcome] = []
    try:
        wall = Wall(parse_budget(given.budget).total_seconds() if given.budget else inf)
        settings = load_settings()
        timeframes = (
            [Timeframe.parse(given.timeframe)] if given.timeframe else [Timeframe.parse(t) for t in settings.timeframes]
        )
        symbols = tuple(s.code for s in known_symbols(given.symbols.split(","))) if given.symbols else settings.symbols
        preset = load_preset(given.preset)

        def stopped() -> None:
            """The wall is reached and something does not return: say so for what is not done."""
            for late in timeframes[len(outcomes) :]:
                outcomes.append(_kept(settings, late, preset, "The budget was spent, and the run was ended"))
            _print(outcomes, given.json)

        with hard_stop(wall, stopped), nullcontext() if given.local else cluster():
            for done, timeframe in enumerate(timeframes):
                part = wall.part(1 / (len(timeframes) - done))
                with _workplace(given.local, given.workers, part) as place:
                    outcomes.append(retrain(settings, timeframe, preset, symbols, place, progress, part))
    except LstmcError as error:
        print(f"retrain: {error}", file=sys.stderr)
        return error.exit_code
    _print(outcomes, given.json)
    return 0


def _print(outcomes: list[Outcome], as_json: bool) -> None:
    for outcome in outcomes:
        print("\n".join(outcome_lines(outcome)), file=sys.stderr)
    if as_json:
        results = [outcome.to_dict() for outcome in outcomes]
        print(json.dumps(results[0] if len(results) == 1 else results), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tuning.retrain",
        description="Train on the stored bars and promote what passes the gate.",
        epilog="Example: ray job submit -- python -m tuning.retrain --preset quick",
    )
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--symbols", default="", help="comma-separated; default: all of the installation")
    parser.add_argument("--timeframe", default="", help="default: all of the installation")
    parser.add_argument("--budget", default="", help="the wall: 90s, 30m or 2h; what does not fit is left out")
    parser.add_argument("--local", action="store_true", help="in processes of this machine instead of the Ray cluster")
    parser.add_argument("--workers", type=int, default=2, help="processes with --local")
    parser.add_argument("--json", action="store_true", help="print the result on stdout")
    return parser


@contextmanager
def _workplace(local: bool, workers: int, wall: Wall) -> Iterator[Workplace]:
    if not local:
        yield Workplace(units_on_ray(wall.seconds_left), slots(), study_on_ray)
        return
    with process_pool(workers, wall.seconds_left) as run_units:
        yield Workplace(run_units or in_process, workers)


def retrain(
    settings: Settings,
    timeframe: Timeframe,
    preset: Preset,
    symbols: tuple[str, ...],
    place: Workplace,
    progress: Progress,
    wall: Wall | None = None,
) -> Outcome:
    """One run for one timeframe. One at a time: ModelError when another process trains the same timeframe."""
    with _only_one(settings, timeframe):
        try:
            return _run(settings, timeframe, preset, symbols, place, progress, wall or Wall())
        except BudgetSpent as error:
            return _kept(settings, timeframe, preset, error.message)


def _kept(settings: Settings, timeframe: Timeframe, preset: Preset, why: str) -> Outcome:
    """The outcome of a run that judged nothing, recorded."""
    registry = Registry.of(settings)
    pointer = registry.champion_pointer_or_none(timeframe.value)
    why = why if "champion stays" in why else f"{why}; the champion stays."
    outcome = Outcome(timeframe.value, False, why, pointer["id"] if pointer else None, None, {})
    registry.record_run(timeframe.value, outcome.record(preset))
    return outcome


def _run(
    settings: Settings,
    timeframe: Timeframe,
    preset: Preset,
    symbols: tuple[str, ...],
    place: Workplace,
    progress: Progress,
    wall: Wall,
) -> Outcome:
    started, registry = wall.now(), Registry.of(settings)
    registry.sweep()
    wall.check("the bars were read")
    data = read_data(settings, timeframe, preset, symbols)
    progress.line(f"{timeframe}: {len(data.bars)} symbols, {data.rows} bars ({data.version}), preset {preset.name}")
    progress.line("leak tests")
    leaks = {r.name: r.passed for r in leak_battery(data.bars, timeframe, preset)}
    folder = _search_folder(registry, timeframe, data, preset)
    fitting, tried = planned(data.bars, timeframe, preset, place, wall, progress, folder)
    for words in fitting.left_out:
        progress.line(f"left out, for want of time: {words}")
    preset, left_out = fitting.preset, list(fitting.left_out)
    wall.kept = fitting.kept
    oof = cross_validate(
        data.bars,
        timeframe,
        preset,
        run_units=within(place.run_units, wall),
        run_chains=_run_chains(preset, place, registry.root / f".nets-{timeframe}"),
        final_nets=True,
        on_progress=progress,
    )
    wall.kept = 0.0
    left_out += [f"{f}: its folds were not done in time" for f in preset.families if f not in oof.families]
    preset = replace(preset, families=tuple(f for f in preset.families if f in oof.families))
    wall.check("the gate")
    progress.line("the gate")
    champion = registry.sound_champion(timeframe.value, progress.line)
    gate = judge(oof, champion_losses(registry, champion, oof, recipe(preset)), leaks)
    floor = judge_floor(oof, leaks)
    lost = would_lose(champion, gate)
    barred = barred_by_live_loss(registry, timeframe, preset, data) if gate.promoted else ""
    promoted = gate.promoted and not lost and not barred
    refit = not (gate.promoted and not barred) and needs_refit(champion, data)
    report = make_report(oof, gate, floor, timeframe, preset, data, wall.now() - started)
    report |= finite(jsonable({"search": tried})) if tried else {}
    report |= {"budget": {"left_out": left_out}} if wall.finite else {}
    model = None
    if promoted or refit:
        progress.line("final fit")
        verdict = gate if promoted else NOBODY
        model = build(registry, data, timeframe, preset, oof, verdict, floor, place.run_units, report)
        progress.line("trial of the new model")
    stays = champion.id if champion else None
    with wall.settling:
        wall.check("promotion")
        if model is None:
            why = f"Not promoted: it would lose {', '.join(lost)}, which the champion serves. " if lost else barred
            outcome = Outcome(timeframe.value, False, why + gate.why, stays, None, report)
        else:
            why = gate.why if promoted else f"The econometric champion, refitted on newer bars. {barred}{gate.why}"
            try:
                registry.promote(model.id, why)
                outcome = Outcome(timeframe.value, promoted, why, model.id, model, report)
            except BundleRefused as error:  # its trial has failed: a result like any other, and the champion stays
                outcome = Outcome(timeframe.value, False, f"Not promoted: {error.message}", stays, model, report)
        registry.record_run(timeframe.value, outcome.record(preset))
    return outcome


def _search_folder(registry: Registry, timeframe: Timeframe, data: Data, preset: Preset) -> Path:
    """Of these bars and settings alone, so that only the same run goes on with it; what others left is removed."""
    folder = registry.root / f".search-{timeframe}-{data.version}-{recipe(preset)}"
    for left in registry.root.glob(f".search-{timeframe}-*"):
        if left != folder:
            shutil.rmtree(left, ignore_errors=True)
    return folder


def _run_chains(preset: Preset, place: Workplace, storage: Path) -> RunChains | None:
    """One Ray Train run for the nets, where the preset asks for it and there is a cluster; else None: they are units."""
    if preset.trainer != "ray_train" or not place.on_cluster:
        return None
    from tuning.net_training import train_chains

    return partial(train_chains, storage=storage)


def econometric_champion(settings: Settings, timeframe: str | Timeframe) -> ModelVersion:
    """The first champion: econometric families only, seconds of work, in this process. Promoted if no sound one serves.

    NotEnoughBars when the store holds too little history.
    """
    timeframe = timeframe if isinstance(timeframe, Timeframe) else Timeframe.parse(timeframe)
    registry, preset = Registry.of(settings), load_preset("econometric")
    started = time.monotonic()
    data = read_data(settings, timeframe, preset, settings.symbols)
    oof = cross_validate(data.bars, timeframe, preset)
    leaks = {r.name: r.passed for r in leak_battery(data.bars, timeframe, preset)}
    floor = judge_floor(oof, leaks)
    report = make_report(oof, NOBODY, floor, timeframe, preset, data, time.monotonic() - started)
    model = build(registry, data, timeframe, preset, oof, NOBODY, floor, in_process, report)
    if registry.sound_champion(timeframe.value, Progress(sys.stderr).line) is None:
        registry.promote(model.id, "The econometric baseline: the first champion, until a challenger passes the gate.")
    return model


# A gate at which no learner stood.
NOBODY = GateResult({}, ())


def would_lose(champion: ModelVersion | None, gate: GateResult) -> list[str]:
    """Targets that the champion's stack serves and the challenger would give back to the baseline."""
    if champion is None or champion.kind != "stack":
        return []
    served = [target for target, card in champion.gate.items() if card.get("served_by") == "stack"]
    return [target for target in served if target not in gate.serves]


def needs_refit(champion: ModelVersion | None, data: Data) -> bool:
    """No champion at all, or an econometric one whose bars have grown old."""
    if champion is None:
        return True
    return champion.kind == "econometric" and data.until - champion.trained_until >= REFIT_AFTER


def outcome_lines(outcome: Outcome) -> list[str]:
    head = (
        f"{outcome.timeframe}: "
        + ("promoted " if outcome.promoted else "the champion stays ")
        + (outcome.champion or "")
    )
    lines = summary_lines(outcome.report) if outcome.report else []
    return ["", *lines, "", head.rstrip(), outcome.why]


@contextmanager
def _only_one(settings: Settings, timeframe: Timeframe) -> Iterator[None]:
    """A lock that ends with the process that holds it, however it ends."""
    folder = settings.registry_path
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f".training-{timeframe}.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ModelError(
                f"Another run is training {timeframe}.", hint="Wait for it, or see `lstmc status` for its job."
            ) from None
        yield


if __name__ == "__main__":
    sys.exit(main())
