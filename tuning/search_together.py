"""A search of the nets' settings for a GPU: many trials on all inner folds at once, those of one shape as one program.

Nothing is pruned: the folds of a trial learn side by side, so leaving one out saves no time. Knows no cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

import numpy as np

from tuning.budget import BudgetSpent
from tuning.cross_validate import RunUnits
from tuning.learners.fitting import Lesson
from tuning.presets import Boosting, Nets
from tuning.search import INNER_FOLDS, Problem, Study, Trial, compared, losses_of, space, within_space

ROUND = 8  # trials that are proposed before any of them is known


def study_together(run_units: RunUnits) -> Study:
    """Optuna's proposals, ROUND at a time; each round is one unit on `run_units`. A round that time cuts off does not count."""

    def study(
        problem: Problem, default: list[np.ndarray], trials: int, seconds_left: Callable[[], float]
    ) -> list[Trial]:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        ranges, horizon = space(problem.default), max(problem.horizons)
        # Proposals of one round know nothing of each other: the pending ones count as bad, so that they spread.
        sampler = optuna.samplers.TPESampler(seed=problem.seed, n_startup_trials=ROUND, constant_liar=True)
        asked = optuna.create_study(sampler=sampler)
        point, loss = within_space(problem.default), compared(default, default, horizon)[0]
        asked.add_trial(optuna.trial.create_trial(params=point, distributions=ranges, value=loss))
        made: list[Trial] = []
        while len(made) < trials and seconds_left() > 0:
            proposed = [asked.ask(ranges) for _ in range(min(ROUND, trials - len(made)))]
            try:
                (losses,) = run_units(losses_together, [(problem, [problem.settings(one.params) for one in proposed])])
            except BudgetSpent:
                break
            for one, own in zip(proposed, losses, strict=True):
                figures = compared(own, default, horizon)
                state = "failed" if figures[0] == inf else "complete"
                made.append(Trial(len(made) + 1, one.params, state, INNER_FOLDS, *figures))
                if state == "complete":
                    asked.tell(one, figures[0])
                else:
                    asked.tell(one, state=optuna.trial.TrialState.FAIL)
        return made

    return study


def losses_together(problem: Problem, settings: Sequence[Boosting | Nets]) -> list[list[np.ndarray]]:
    """search.fold_losses of every trial and inner fold: [trials][folds]. On this process' GPU where it has one."""
    import torch

    from tuning.learners.batched import fit_nets_together, shape_key

    device = "cuda" if torch.cuda.is_available() else "cpu"
    views: list[list[list[tuple[np.ndarray, np.ndarray]]]] = [[[] for _ in problem.folds] for _ in settings]
    for family in problem.families:
        lessons = [Lesson(*fold.lessons[family], fold.train) for fold in problem.folds]
        groups: dict[tuple[object, ...], list[tuple[int, int, Nets]]] = {}
        for t, own in enumerate(settings):
            assert isinstance(own, Nets)
            for k, lesson in enumerate(lessons):
                groups.setdefault(shape_key(family, own, lesson, False), []).append((t, k, own))
        for group in groups.values():
            learnt = [lessons[k] for _, k, _ in group]
            models = fit_nets_together(
                family, [own for *_, own in group], [problem.seed] * len(group), learnt, device=device
            )
            for (t, k, _), model in zip(group, models, strict=True):
                own_symbols = np.arange(len(lessons[k].starts) - 1)
                view = model.predict(lessons[k].inputs, lessons[k].starts, own_symbols, problem.folds[k].test)
                views[t][k].append(view)
    return [[losses_of(problem, k, parts) for k, parts in enumerate(folds)] for folds in views]
