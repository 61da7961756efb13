"""LightGBM and XGBoost on engineered features: gamma regression of rv / yardstick, log-loss on direction.

The gamma deviance with a log link is QLIKE itself. Base rates enter as initial scores, so that trees learn the rest
only. One thread, fixed seeds: the same lesson gives the same bytes. Knows no markets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tuning.presets import Boosting

if TYPE_CHECKING:
    from tuning.learners.fitting import Lesson

RATIO_RANGE = (0.02, 20.0)  # one shock does not own the trees
Booster = Any  # lightgbm.Booster | xgboost.Booster


@dataclass
class Trees:
    """One booster per view. `views`: "rv24" -> booster of log(rv / yardstick), "sign1" -> booster of the logit excess."""

    family: str
    horizons: tuple[int, ...]
    views: dict[str, Booster]

    @property
    def past(self) -> int:
        return 0

    def predict(
        self, inputs: np.ndarray, starts: np.ndarray, owner: np.ndarray, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """See fitting.Learner."""
        asked = np.ascontiguousarray(inputs[rows])
        log_ratio, excess = (np.full((len(rows), len(self.horizons)), np.nan) for _ in range(2))
        raw = _raw_scores(self.family)
        for column, h in enumerate(self.horizons):
            for out, name in ((log_ratio, f"rv{h}"), (excess, f"sign{h}")):
                if name in self.views:
                    out[:, column] = raw(self.views[name], asked)
        return log_ratio, excess

    def to_files(self) -> dict[str, bytes]:
        suffix, write = (".txt", _lightgbm_bytes) if self.family == "lightgbm" else (".ubj", _xgboost_bytes)
        files = {f"{name}{suffix}": write(booster) for name, booster in self.views.items()}
        return files | {"trees.json": json.dumps({"horizons": self.horizons, "views": sorted(self.views)}).encode()}


def fit_trees(family: str, settings: Boosting, seed: int, lesson: Lesson) -> Trees:
    """A volatility booster per horizon above one bar, a direction booster per horizon."""
    fit = _fit_lightgbm if family == "lightgbm" else _fit_xgboost
    views = {}
    for column, h in enumerate(lesson.horizons):
        step = settings.row_step if h > 1 else 1
        rows = thinned(lesson.rows, step)
        leaf = settings.min_rows_in_leaf * max(1, round(h / step / 2))  # overlapping labels count for less
        if h > 1:
            ratio = lesson.ratio[rows, column]
            used = rows[np.isfinite(ratio)]
            label = np.clip(lesson.ratio[used, column], *RATIO_RANGE)
            views[f"rv{h}"] = fit(settings, seed, lesson.inputs[used], label, None, leaf)
        used = rows[np.isfinite(lesson.up[rows, column]) & np.isfinite(lesson.offset[rows, column])]
        views[f"sign{h}"] = fit(
            settings, seed, lesson.inputs[used], lesson.up[used, column], lesson.offset[used, column], leaf
        )
    return Trees(family, lesson.horizons, views)


def thinned(rows: np.ndarray, step: int) -> np.ndarray:
    """Every `step`-th row: neighbours' labels overlap, so little is lost."""
    return rows[::step]


def load_trees(family: str, files: Mapping[str, bytes]) -> Trees:
    head = json.loads(files["trees.json"])
    read, suffix = (_lightgbm_from, ".txt") if family == "lightgbm" else (_xgboost_from, ".ubj")
    views = {name: read(files[f"{name}{suffix}"]) for name in head["views"]}
    return Trees(family, tuple(head["horizons"]), views)


def _fit_lightgbm(
    settings: Boosting, seed: int, x: np.ndarray, y: np.ndarray, offset: np.ndarray | None, leaf: int
) -> Booster:
    import lightgbm

    data = lightgbm.Dataset(x, y, init_score=offset, params={"max_bin": 63, "verbosity": -1, "num_threads": 1})
    common = {
        "learning_rate": settings.learning_rate,
        "num_leaves": settings.leaves,
        "min_data_in_leaf": leaf,
        "feature_fraction": 0.6,
        "lambda_l2": 10.0,
        "max_bin": 63,
        "num_threads": 1,
        "deterministic": True,
        "force_col_wise": True,
        "seed": seed,
        "verbosity": -1,
    }
    objective = {"objective": "gamma"} if offset is None else {"objective": "binary", "boost_from_average": False}
    return lightgbm.train(common | objective, data, settings.trees)


def _fit_xgboost(
    settings: Boosting, seed: int, x: np.ndarray, y: np.ndarray, offset: np.ndarray | None, leaf: int
) -> Booster:
    import xgboost

    data = xgboost.QuantileDMatrix(x, y, base_margin=offset, max_bin=64, nthread=1)
    common = {
        "learning_rate": settings.learning_rate,
        "max_leaves": settings.leaves,
        "max_depth": 0,
        "grow_policy": "lossguide",
        "tree_method": "hist",
        "max_bin": 64,
        "min_child_weight": leaf * (1.0 if offset is None else 0.25),
        "colsample_bytree": 0.6,
        "reg_lambda": 10.0,
        "nthread": 1,
        "seed": seed,
        "verbosity": 0,
    }
    objective = (
        {"objective": "reg:gamma", "base_score": 1.0}
        if offset is None
        else {"objective": "binary:logistic", "base_score": 0.5}
    )
    return xgboost.train(common | objective, data, settings.trees)


def _raw_scores(family: str) -> Callable[[Booster, np.ndarray], np.ndarray]:
    """Scores before the link function; initial scores of the training rows are not part of them."""
    if family == "lightgbm":
        return lambda booster, x: booster.predict(x, raw_score=True, num_threads=1)

    def margins(booster: Booster, x: np.ndarray) -> np.ndarray:
        return booster.inplace_predict(x, predict_type="margin")

    return margins


def _lightgbm_bytes(booster: Booster) -> bytes:
    return booster.model_to_string().encode()


def _lightgbm_from(content: bytes) -> Booster:
    import lightgbm

    return lightgbm.Booster(model_str=content.decode())


def _xgboost_bytes(booster: Booster) -> bytes:
    return bytes(booster.save_raw(raw_format="ubj"))


def _xgboost_from(content: bytes) -> Booster:
    import xgboost

    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(content))
    return booster
