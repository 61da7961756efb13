"""A search's trials as Ray Tune trials: Optuna proposes, ASHA prunes on inner folds, a killed driver's search goes on.

The thin shell of search.py. Only it, distributed.py and net_training.py import Ray in this room.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from tuning.cross_validate import in_process
from tuning.distributed import be_modest, slots
from tuning.search import INNER_FOLDS, Problem, Study, Trial, compared, run_trial, sampler, space, within_space


def study_on_ray(folder: Path) -> Study:
    """Trials run side by side in reused actors of one CPU. Tune's own record lies in `folder`, one folder per kind.

    When that is there already, left by a driver that was killed, its finished trials count and the others run again.
    `folder` must be of this run's bars and settings alone: Tune would go on with whatever it finds.
    """

    def study(
        problem: Problem, default: list[np.ndarray], trials: int, seconds_left: Callable[[], float]
    ) -> list[Trial]:
        from ray import tune

        left = seconds_left()
        if trials < 1 or left <= 0:
            return []
        until = time.time() + left
        place = folder / problem.kind
        run = tune.with_resources(tune.with_parameters(_run, problem=problem, default=default, until=until), {"cpu": 1})
        if tune.Tuner.can_restore(str(place)):
            tuner = tune.Tuner.restore(str(place), trainable=run, resume_unfinished=True)
        else:
            tuner = _new(run, problem, default, trials, left, folder)
        found = [_trial(number, result) for number, result in enumerate(tuner.fit(), start=1)]
        return [trial for trial in found if trial is not None]

    return study


def _new(run: Any, problem: Problem, default: list[np.ndarray], trials: int, left: float, folder: Path) -> Any:
    import optuna
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    proposals = OptunaSearch(
        space=space(problem.default),
        metric="loss",
        mode="min",
        sampler=sampler(problem, trials),
        points_to_evaluate=[within_space(problem.default)],
        evaluated_rewards=[compared(default, default, max(problem.horizons))[0]],
    )
    asha = ASHAScheduler(time_attr="training_iteration", max_t=INNER_FOLDS, grace_period=1, reduction_factor=2)
    return tune.Tuner(
        run,
        tune_config=tune.TuneConfig(
            metric="loss",
            mode="min",
            search_alg=proposals,
            scheduler=asha,
            num_samples=trials,
            max_concurrent_trials=slots(),
            time_budget_s=None if left == inf else left,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(name=problem.kind, storage_path=str(folder), verbose=0),
    )


def _run(config: dict[str, Any], problem: Problem, default: list[np.ndarray], until: float) -> None:
    """One trial: reports after each inner fold, where ASHA may end it. `until`, epoch seconds, binds a resumed search too."""
    from ray import tune

    be_modest()

    def tell(trial: Trial) -> bool:
        tune.report({"folds": trial.folds, "loss": trial.loss, "gain": trial.gain, "error": trial.error})
        return time.time() > until

    if time.time() <= until:
        run_trial(problem, default, 0, config, in_process, tell)


def _trial(number: int, result: Any) -> Trial | None:
    """Tune's last word on one trial; None when it never said one."""
    said = result.metrics or {}
    if result.error is None and "loss" not in said:
        return None  # not begun when time was over
    loss = float(said.get("loss", inf))
    folds = int(said.get("folds", 0))
    state = "failed" if result.error is not None or loss == inf else "complete" if folds == INNER_FOLDS else "pruned"
    return Trial(
        number, dict(result.config), state, folds, loss, float(said.get("gain", -inf)), float(said.get("error", inf))
    )
