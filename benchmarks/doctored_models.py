"""Models that are signed and intact and still unfit, made of the champion: one crashes its process, one never returns, one
forecasts NaN. All are plain data, as a bundle is; the first two use what LightGBM's reader of model text does not check.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuning.bundle import Bundle, save_bundle
from tuning.learners.boosting import Trees
from tuning.model_version import ModelVersion
from tuning.registry import Registry
from tuning.scaling import COMPARED, YARDSTICK

STATES = {"har_range": 6, "har_how": 3, "ewma_how": 1, "unconditional_how": 0}  # of each baseline, without its constant


@dataclass
class Doctored:
    """The champion's ensemble, its files changed by `change` after they were written."""

    bundle: Bundle
    change: Callable[[Path], None]

    @property
    def bars_needed(self) -> int:
        return self.bundle.bars_needed

    @property
    def spec_digest(self) -> str:
        return self.bundle.ensemble.spec_digest

    def forecast(self, bars: Mapping[str, Any]) -> Any:
        return self.bundle.forecast(bars)

    def save(self, folder: Path) -> None:
        self.bundle.ensemble.save(folder)
        self.change(folder)


def good(folder: Path, factor: float = 1.1) -> None:
    """Sound, and not the champion: its usual volatility is higher."""
    _edit(folder, lambda fields: _scale(fields["usual_volatility"], factor))


def nan(folder: Path) -> None:
    """Numbers too large for a float, which are read as infinity: the quantiles are 0 times it, which is no number."""
    file = folder / "ensemble.json"
    text, fields = file.read_text(), json.loads(file.read_text())
    for part in (fields["z_quantiles"], *(w for name, w in fields["weights"].items() if re.match(r"r\d", name))):
        whole = json.dumps(part, sort_keys=True, separators=(",", ":"))
        text = text.replace(whole, re.sub(r"(?<=[:\[,])-?[0-9.]+(e-?\d+)?(?=[,\]}])", "1e999", whole))
    file.write_text(text)


def crashing(folder: Path) -> None:
    """A tree that splits by a feature far behind the last one: it reads memory that is not there."""
    _add_tree(folder, lambda text: re.sub(r"split_feature=\d+", "split_feature=2000000000", text))


def hanging(folder: Path) -> None:
    """A tree whose first node is its own child."""
    _add_tree(folder, lambda text: re.sub(r"(left|right)_child=-\d+", r"\1_child=0", text))


def add(registry: Registry, champion: str, change: Callable[[Path], None]) -> ModelVersion:
    """A new model in the registry: the champion, changed."""
    bundle = registry.load(champion)
    names = ("timeframe", "kind", "symbols", "horizons", "trained_from", "trained_until", "data_version")
    with registry.staging() as folder:
        save_bundle(Doctored(bundle, change), {name: getattr(bundle.version, name) for name in names}, folder)
        return registry.add(folder)


def _edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = folder / "ensemble.json"
    fields = json.loads(file.read_text())
    change(fields)
    file.write_text(json.dumps(fields, sort_keys=True, separators=(",", ":")))


def _scale(by_horizon: dict[str, dict[str, float]], factor: float) -> None:
    for values in by_horizon.values():
        for symbol in values:
            values[symbol] *= factor


def _add_tree(folder: Path, damage: Callable[[str], str]) -> None:
    """One LightGBM tree with one split as a further learner, its text damaged."""
    import lightgbm

    fields = json.loads((folder / "ensemble.json").read_text())
    rng = np.random.default_rng(7)
    columns = len(fields["spec"]["names"]) + STATES[YARDSTICK] + len(fields["spec"]["horizons"]) * (2 + len(COMPARED))
    x = rng.normal(size=(200, columns)).astype(np.float32)
    settings = {"objective": "regression", "num_leaves": 2, "verbosity": -1, "num_threads": 1, "min_data_in_leaf": 5}
    booster = lightgbm.train(settings, lightgbm.Dataset(x, x[:, 0].copy()), 1)
    horizons = tuple(int(h) for h in fields["spec"]["horizons"])
    tree = Trees("lightgbm", horizons, {f"rv{horizons[-1]}": booster}).to_files()
    (folder / "lightgbm").mkdir()
    for name, content in tree.items():
        text = content.decode()
        (folder / "lightgbm" / name).write_text(damage(text) if name.endswith(".txt") else text)
    _edit(folder, _with_tree)


def _with_tree(fields: dict[str, Any]) -> None:
    """The learner's name, and the baselines that trees look at: the champion's with constant forecasts where it has none."""
    fields["learners"] = ["lightgbm"]
    for models in fields["baselines"].values():
        known = {model["family"] for model in models}
        for family in {YARDSTICK, *COMPARED} - known:
            flat = {h: [row[0]] + [0.0] * STATES[family] for h, row in models[0]["coefficients"].items()}
            models.append(models[0] | {"family": family, "coefficients": flat})
