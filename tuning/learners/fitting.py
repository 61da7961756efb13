"""Units of work: fit one family on one fold, forecast its test rows. Pure functions of numpy arrays, one thread each.

All learners forecast the rest that the yardstick leaves: log(rv / f) for horizons above one bar, and logit(p_up) minus
the base rate's. Which families there are is known here and nowhere else.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from market.errors import InputError
from tuning.presets import Boosting, Nets

TREE_FAMILIES = ("lightgbm", "xgboost")
NET_FAMILIES = ("lstm", "gru", "attention")


@dataclass(frozen=True)
class Lesson:
    """What a learner is taught, on the flat axis of a panel (symbol-major; symbol s owns starts[s] : starts[s + 1]).

    In `predict` the blocks between `starts` may be other symbols, or fewer: `owner` [blocks] holds their numbers s.

    inputs [n, F] float32; ratio [n, H]: rv / yardstick, NaN unknown; up [n, H]: 1 or 0, NaN unknown; offset [n, H]:
    logit of the base rate; rows: training rows, ascending.
    """

    horizons: tuple[int, ...]
    inputs: np.ndarray
    starts: np.ndarray
    ratio: np.ndarray
    up: np.ndarray
    offset: np.ndarray
    rows: np.ndarray


class Learner(Protocol):
    @property
    def past(self) -> int:
        """Rows before an asked row that `predict` looks at."""
        ...

    def predict(
        self, inputs: np.ndarray, starts: np.ndarray, owner: np.ndarray, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """-> (log(rv / yardstick), logit(p_up) - base logit), each [len(rows), H]; NaN where the family has no view."""
        ...

    def to_files(self) -> dict[str, bytes]:
        """The artefact: file name -> content, no pickle."""
        ...


def fit_learner(family: str, settings: Boosting | Nets, seed: int, lesson: Lesson) -> Learner:
    """Fit one family; the same lesson and seed give the same bytes."""
    if family in TREE_FAMILIES:
        from tuning.learners.boosting import fit_trees

        assert isinstance(settings, Boosting)
        return fit_trees(family, settings, seed, lesson)
    if family in NET_FAMILIES:
        from tuning.learners.sequence import fit_net

        assert isinstance(settings, Nets)
        return fit_net(family, settings, seed, lesson)
    raise InputError(f"Unknown family {family!r}.", hint=f"Known: {', '.join(TREE_FAMILIES + NET_FAMILIES)}.")


def load_learner(family: str, files: Mapping[str, bytes]) -> Learner:
    """The learner whose `to_files` gave `files`."""
    if family in TREE_FAMILIES:
        from tuning.learners.boosting import load_trees

        return load_trees(family, files)
    from tuning.learners.sequence import load_net

    return load_net(family, files)


def fit_and_predict(
    family: str,
    settings: Boosting | Nets,
    seed: int,
    horizons: tuple[int, ...],
    inputs: np.ndarray,
    starts: np.ndarray,
    ratio: np.ndarray,
    up: np.ndarray,
    offset: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, float]:
    """One unit: arrays as in Lesson -> (log ratio [len(test), H], logit excess [len(test), H], CPU seconds)."""
    if len(test) == 0:
        nothing = np.empty((0, len(horizons)))
        return nothing, nothing, 0.0
    began = time.process_time()
    learner = fit_learner(family, settings, seed, Lesson(horizons, inputs, starts, ratio, up, offset, train))
    log_ratio, excess = learner.predict(inputs, starts, np.arange(len(starts) - 1), test)
    return log_ratio, excess, time.process_time() - began


def fit_to_files(
    family: str,
    settings: Boosting | Nets,
    seed: int,
    horizons: tuple[int, ...],
    inputs: np.ndarray,
    starts: np.ndarray,
    ratio: np.ndarray,
    up: np.ndarray,
    offset: np.ndarray,
    train: np.ndarray,
) -> dict[str, bytes]:
    """One unit of the final fit: the artefact's files."""
    return dict(
        fit_learner(family, settings, seed, Lesson(horizons, inputs, starts, ratio, up, offset, train)).to_files()
    )


def settings_of(family: str, preset: Any) -> Boosting | Nets:
    return preset.boosting if family in TREE_FAMILIES else preset.nets
