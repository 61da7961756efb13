"""A training run's ends: the bars it starts from, and the bundle it leaves with its report, skill and provenance.

Knows the bar store, the registry's folder and the learning side's fit; schedules nothing and promotes nothing.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from configs.settings import ROOT, Settings
from market.bar_store import BarStore
from market.errors import ModelError, NotEnoughBars
from market.forecasts import iso_utc, jsonable, parse_utc
from market.timeframes import Timeframe
from tuning.bundle import read_losses, read_report, save_bundle
from tuning.contests import losses_by_target
from tuning.cross_validate import RunUnits
from tuning.evaluate import finite, judged_report
from tuning.final_fit import fit_ensemble
from tuning.leak_battery import tail_forecast
from tuning.model_version import ModelVersion
from tuning.out_of_fold import OutOfFold
from tuning.presets import Preset
from tuning.promotion import GateResult
from tuning.registry import Registry
from tuning.shared_panel import shared_panel
from tuning.skill_cards import served_families, skill_cards


@dataclass(frozen=True)
class Data:
    """What a run is trained on. `version` names the store's state, so that the run can be repeated."""

    bars: dict[str, pa.Table]
    version: str
    excluded: dict[str, str]

    @property
    def rows(self) -> int:
        return sum(table.num_rows for table in self.bars.values())

    @property
    def until(self) -> datetime:
        """The newest close there is."""
        return max(_edge(table, "close_time", -1) for table in self.bars.values())


def read_data(settings: Settings, timeframe: Timeframe, preset: Preset, symbols: tuple[str, ...]) -> Data:
    """The store's newest state, read once and named. NotEnoughBars when there is nothing to train on."""
    store = BarStore(settings.bars_path)
    version, name = store.version(), store.data_version()
    table = (
        store.read(symbols=list(symbols), timeframe=timeframe.value, as_of_version=version) if version >= 0 else None
    )
    if table is None or table.num_rows == 0:
        raise NotEnoughBars(
            f"There are no {timeframe} bars in {settings.bars_path}.",
            hint="Backfill or import bars first: `lstmc bars backfill`.",
        )
    column = table["symbol"].to_numpy(zero_copy_only=False)
    tables = {s: table.filter(pa.array(column == s)) for s in symbols if (column == s).any()}
    bars, excluded = shared_panel(tables, preset)
    excluded |= {s: "there are no bars of it" for s in symbols if s not in tables}
    return Data(bars, name, excluded)


def champion_losses(
    registry: Registry, champion: ModelVersion | None, oof: OutOfFold, own_recipe: str
) -> dict[str, np.ndarray]:
    """The serving champion's stored out-of-fold losses on the rows of `oof`. target -> [n], NaN where it has none.

    An econometric champion's families are in every run and are baselines already. A champion of the same recipe has, by
    construction, the challenger's own losses: a refit on newer bars only has to pass the baselines again.
    """
    if champion is None or champion.kind != "stack":
        return {}
    folder = registry.path(champion.id)
    if read_report(folder).get("recipe") == own_recipe:
        return {}
    stored = read_losses(folder)
    index = {name: k for k, name in enumerate(champion.symbols)}
    number = np.array([index.get(name, -1) for name in oof.symbols])[oof.symbol]
    keys = stored.pop("time") * 64 + stored.pop("symbol")
    order = np.argsort(keys)
    asked = oof.time.astype("datetime64[us]").astype(np.int64) * 64 + number
    at = order[np.clip(np.searchsorted(keys, asked, sorter=order), 0, len(keys) - 1)]
    found = (keys[at] == asked) & (number >= 0)
    return {target: np.where(found, losses[at], np.nan) for target, losses in stored.items()}


def barred_by_live_loss(registry: Registry, timeframe: Timeframe, preset: Preset, data: Data) -> str:
    """Why a challenger of this recipe may not replace the champion yet; empty when it may.

    A champion of the same recipe was taken down by what happened live. Until the lockbox begins after that, the gate
    would judge by the very evidence that has failed.
    """
    for entry in registry.champion_history(timeframe.value):
        lost = entry.get("live_loss") or {}
        if lost.get("recipe") != recipe(preset):
            continue
        free = parse_utc(lost["known_until"]) + timedelta(days=preset.lockbox_days)
        if data.until < free:
            return (
                f"Not promoted: {entry['before']} of the same recipe was taken down for its live losses; its like is "
                f"judged on new evidence only, from {iso_utc(free)} on. "
            )
    return ""


def losses_to_keep(oof: OutOfFold) -> dict[str, np.ndarray]:
    """Losses by target with the rows they belong to: time (int64 us), symbol (int64)."""
    rows = {"time": oof.time.astype("datetime64[us]").astype(np.int64), "symbol": oof.symbol.astype(np.int64)}
    return rows | losses_by_target(oof)


def build(
    registry: Registry,
    data: Data,
    timeframe: Timeframe,
    preset: Preset,
    oof: OutOfFold,
    gate: GateResult,
    floor: GateResult,
    run_units: RunUnits,
    report: dict[str, Any],
) -> ModelVersion:
    """Fit on all bars, check that serving's tail gives the same forecast, save, register. ModelError when it does not."""
    passed = dict.fromkeys(gate.serves, True)
    ensemble = fit_ensemble(data.bars, timeframe, preset, oof, passed, floor=floor.passed, run_units=run_units)
    tail = tail_forecast(ensemble, data.bars)
    if not tail.passed:
        raise ModelError(
            f"The new model forecasts otherwise from the tail of the bars than from all of them ({tail.value:.2g}).",
            hint="A feature looks further back than it says. The champion stays.",
        )
    cards = skill_cards(oof, gate, floor)
    fields = {
        "timeframe": timeframe.value,
        "kind": "stack" if ensemble.learners else "econometric",
        "symbols": ensemble.symbols,
        "horizons": ensemble.horizons,
        "trained_from": min(_edge(t, "open_time", -_used(t, preset)) for t in data.bars.values()),
        "trained_until": data.until,
        "data_version": data.version,
        "skill": cards,
        "gate": gate_card(gate, floor),
        "code_commit": _code_commit(),
        "lock_hash": _lock_hash(),
    }
    with registry.staging() as folder:
        save_bundle(ensemble, fields, folder / "bundle", report=report, losses=losses_to_keep(oof))
        return registry.add(folder / "bundle")


def gate_card(gate: GateResult, floor: GateResult) -> dict[str, Any]:
    """What the gate said, per target, small enough to travel with the model. The whole of it is in its report.json."""
    card = {}
    for target, family in served_families(gate, floor).items():
        result = gate.targets.get(target) or floor.targets[target]
        kept = {
            k: v
            for k, v in asdict(result).items()
            if k in ("promoted", "why", "baseline", "loss", "baseline_loss", "skill", "t")
        }
        card[target] = finite(jsonable(kept)) | {"served_by": family}
    return card


def make_report(
    oof: OutOfFold,
    gate: GateResult,
    floor: GateResult,
    timeframe: Timeframe,
    preset: Preset,
    data: Data,
    seconds: float,
) -> dict[str, Any]:
    """As `evaluate` writes it, and the recipe that tells a refit from a new kind of model."""
    bars = {
        s: {"rows": t.num_rows, "from": _edge(t, "open_time", 0), "to": _edge(t, "close_time", -1)}
        for s, t in data.bars.items()
    }
    report = judged_report(oof, gate if gate.targets else floor, timeframe, preset) | {
        "bars": bars,
        "excluded": data.excluded,
        "data_version": data.version,
        "recipe": recipe(preset),
        "serves": served_families(gate, floor),
        "wall_seconds": round(seconds, 1),
    }
    return finite(jsonable(report))


def recipe(preset: Preset) -> str:
    """The training settings' digest; two models of one recipe differ by their bars only."""
    fields = json.dumps(asdict(replace(preset, name="", trainer="")), sort_keys=True)
    return hashlib.sha256(fields.encode()).hexdigest()[:16]


def _used(table: pa.Table, preset: Preset) -> int:
    """How many of a symbol's newest bars the final fit sees."""
    return min(table.num_rows, preset.max_train_bars or table.num_rows)


def _edge(table: pa.Table, column: str, row: int) -> datetime:
    moment: datetime = table[column][row].as_py()
    return moment.astimezone(UTC)


def _code_commit() -> str:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def _lock_hash() -> str:
    path = ROOT / "requirements.lock"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else "unknown"
