"""What report.json says beyond the gate's verdicts: calibration, bets, what was tried, folds, figures too good to be true.

Reads out-of-fold forecasts and judged figures; decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from market.timeframes import Timeframe
from tuning.contests import contests
from tuning.direction_bets import direction_bets
from tuning.features import lookback
from tuning.metrics import auc
from tuning.out_of_fold import OutOfFold
from tuning.panel import Panel, make_folds, make_panel, recent
from tuning.presets import Preset
from tuning.promotion import SUSPICIOUS
from tuning.reliability import calibration
from tuning.splits import BURN_IN, Fold

# PROTOCOL's column "suspect a leak"; volatility relative to HAR + hour-of-week, .24 against .276, so that it holds on any bars
SUSPECT = {
    "qlike_gain": 0.13,
    "pinball_skill": SUSPICIOUS["r"],
    "auc": SUSPICIOUS["sign"],
    "auc_ex_rollover": 0.55,
    "accuracy": 0.55,
}
AROUND = 30  # bars shown before the purged and embargoed ones, and after the first test bar


def evidence(
    oof: OutOfFold, report: Mapping[str, Any], bars: Mapping[str, pa.Table], timeframe: Timeframe, preset: Preset
) -> dict[str, Any]:
    """New keys of report.json; `report` holds targets and leak_tests already."""
    tried = what_was_tried(oof, report, preset)
    direction = direction_figures(oof)
    scheme = preset.scheme(max(timeframe.horizons))
    panel = make_panel(recent(bars, scheme, lookback(timeframe)), timeframe, timeframe.horizons, lookback(timeframe))
    folds = [fold for fold in make_folds(panel, scheme) if fold.number != BURN_IN]
    return {
        "calibration": calibration(oof, "stack"),
        "direction": direction,
        "bets": direction_bets(oof, tried["settings"]),
        "tried": tried,
        "fold_weights": {t: {str(k): w for k, w in by.items() if k != BURN_IN} for t, by in oof.fold_weights.items()},
        "folds": [fold_period(panel, fold) for fold in folds],
        "purge_example": purge_example(panel, folds[0]),
        "suspicious": suspicious(report["targets"], direction, report["leak_tests"]),
    }


def what_was_tried(oof: OutOfFold, report: Mapping[str, Any], preset: Preset) -> dict[str, Any]:
    """Families, their settings, and how many settings of each a search has tried (report["search"]; 1 without one)."""
    kinds = [kind for kind in (report.get("search") or {}).values() if isinstance(kind, Mapping) and "trials" in kind]
    return {
        "families": [name for name in oof.families if name != "stack"],
        "targets": [f"{kind}{h}" for h in sorted(oof.horizons, reverse=True) for kind in ("rv", "r", "sign")],
        "boosting": asdict(preset.boosting),
        "nets": asdict(preset.nets),
        "seed": preset.seed,
        "settings": {family: int(kind["trials"]) for kind in kinds for family in kind["families"]},
    }


def direction_figures(oof: OutOfFold) -> dict[str, dict[str, dict[str, float]]]:
    """Direction target -> family -> AUC, AUC outside the rollover hours, accuracy, over the test folds."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in oof.families:
        for contest in contests(oof, name):
            if contest.kind != "sign":
                continue
            rows = (oof.fold >= 0) & np.isfinite(contest.forecast) & np.isfinite(contest.actual)
            up, p, outside = contest.actual, contest.forecast, rows & ~oof.rollover
            found.setdefault(contest.target, {})[name] = {
                "auc": auc(up[rows], p[rows]),
                "auc_ex_rollover": auc(up[outside], p[outside]),
                "accuracy": float(((p[rows] > 0.5) == (up[rows] > 0.5)).mean()) if rows.any() else float("nan"),
            }
    return found


def suspicious(
    targets: Mapping[str, Any], direction: Mapping[str, Any], leak_tests: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Figures beyond SUSPECT, of the stack and of every family, each with what the leak battery says to it."""
    cells: list[tuple[str, str, str, float]] = []
    for target, v in targets.items():
        losses = {name: loss for name, loss in v["family_losses"].items() if loss is not None and np.isfinite(loss)}
        against = {"rv": ("har_how", "qlike_gain"), "r": ("unconditional_history", "pinball_skill")}
        floor, limit = against.get(target.rstrip("0123456789"), ("", ""))
        if losses.get(floor):
            cells += [(target, name, limit, 1 - loss / losses[floor]) for name, loss in losses.items()]
    for target, families in direction.items():
        cells += [(target, name, figure, value) for name, of in families.items() for figure, value in of.items()]
    said = leak_words(leak_tests)
    return [
        {
            "target": target,
            "family": name,
            "figure": figure,
            "value": value,
            "limit": SUSPECT[figure],
            "explanation": said,
        }
        for target, name, figure, value in cells
        if np.isfinite(value) and value > SUSPECT[figure]
    ]


def leak_words(leak_tests: Mapping[str, Mapping[str, Any]]) -> str:
    """The battery's verdict as an explanation, or that there is none."""
    failed = [name.replace("_", " ") for name, test in leak_tests.items() if not test["passed"]]
    if failed:
        return f"A leak: {', '.join(failed)} failed. The figure is worth nothing."
    if not leak_tests:
        return "Unexplained: no leak test was run."
    names = ", ".join(name.replace("_", " ") for name in leak_tests)
    return f"No leak found by {names}. What is left is what these bars are like; look at them before believing it."


def fold_period(panel: Panel, fold: Fold) -> dict[str, Any]:
    """First and last as-of close of a fold's training and test rows, and how many rows were left out between them."""
    train, test = panel.time[fold.train], panel.time[fold.test]
    days = {"train_from": train.min(), "train_to": train.max(), "test_from": test.min(), "test_to": test.max()}
    rows = {"train": len(train), "purged": len(fold.purged), "embargoed": len(fold.embargoed), "test": len(test)}
    return (
        {"fold": fold.number} | {name: f"{day.astype('datetime64[s]')}Z" for name, day in days.items()} | {"rows": rows}
    )


def purge_example(panel: Panel, fold: Fold) -> dict[str, Any]:
    """One symbol's bars around a fold's first test bar, as the splitter really cut them: bars from it, and their part."""
    horizon = max(panel.horizons)
    parts = {name: panel.own_rows(getattr(fold, name), 0) for name in ("train", "embargoed", "purged", "test")}
    if not len(parts["test"]):
        return {}
    start = int(parts["test"][0])
    shown = {
        name: [int(row) - start for row in rows if -(AROUND + 2 * horizon) <= row - start <= AROUND + horizon]
        for name, rows in parts.items()
    }
    return {"horizon": horizon, "symbol": panel.symbols[0], "bars": shown}
