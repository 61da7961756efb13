"""From a panel and a fold's baselines to the arrays that learners are taught with. Fits nothing."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tuning.fold_baselines import FoldBaselines
from tuning.learners.fitting import NET_FAMILIES, TREE_FAMILIES
from tuning.panel import Panel
from tuning.scaling import YARDSTICK, net_inputs, tree_inputs
from tuning.stacking import logit

# horizons, inputs [n, F], starts [symbols + 1], ratio [n, H], up [n, H], offset [n, H]: see fitting.Lesson
LessonArrays = tuple[tuple[int, ...], np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def make_lessons(
    panel: Panel,
    fitted: FoldBaselines,
    families: Iterable[str],
    features: list[np.ndarray] | None = None,
) -> dict[str, LessonArrays]:
    """family -> arrays; families of one kind share the same objects, so that a store holds them once.

    `features`: make_features per symbol, when known; they do not depend on the fold.
    """
    ratio, up, offset = _labels(panel, fitted)
    lessons: dict[str, LessonArrays] = {}
    for kind, make in ((TREE_FAMILIES, _tree_table), (NET_FAMILIES, _net_table)):
        used = [family for family in families if family in kind]
        if used:
            inputs = make(panel, fitted, features)
            for family in used:
                lessons[family] = (panel.horizons, inputs, panel.starts, ratio, up, offset)
    return lessons


def _labels(panel: Panel, fitted: FoldBaselines) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ratio, up and offset, each [n, H] float32 with NaN where unknown."""
    ratio = [panel.rv[h] * np.exp(-fitted.log_rv[YARDSTICK][h]) for h in panel.horizons]
    up = [np.where(np.isfinite(panel.ret[h]), panel.ret[h] > 0, np.nan) for h in panel.horizons]
    offset = [logit(fitted.base_rate[h])[panel.symbol] for h in panel.horizons]
    made = (np.stack(part, axis=1).astype(np.float32) for part in (ratio, up, offset))
    first, second, third = made
    return first, second, third


def _tree_table(panel: Panel, fitted: FoldBaselines, features: list[np.ndarray] | None) -> np.ndarray:
    parts = []
    for s, series in enumerate(panel.series):
        known = features[s] if features is not None else None
        models = fitted.models.get(s)
        parts.append(tree_inputs(series, panel.timeframe, models, known) if models else None)
    return _stacked(panel, parts, np.nan)


def _net_table(panel: Panel, fitted: FoldBaselines, features: list[np.ndarray] | None) -> np.ndarray:
    parts = []
    for s, series in enumerate(panel.series):
        models = fitted.models.get(s)
        parts.append(net_inputs(series, panel.timeframe, models) if models else None)
    return _stacked(panel, parts, 0.0)


def _stacked(panel: Panel, parts: list[np.ndarray | None], missing: float) -> np.ndarray:
    """Symbols one under another; a symbol without models is all `missing`. [n, F]"""
    width = next((part.shape[1] for part in parts if part is not None), 0)
    filled = [
        np.full((len(series), width), missing, np.float32) if part is None else part
        for series, part in zip(panel.series, parts, strict=True)
    ]
    return np.concatenate(filled)
