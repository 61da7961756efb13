"""Trials that learn together are scored as trials one by one are, and end with their time."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest

from market.timeframes import Timeframe
from tuning import search_on_ray, search_together
from tuning.budget import BudgetSpent
from tuning.cross_validate import in_process
from tuning.experiments import World, simulate
from tuning.presets import Nets, Preset
from tuning.search import INNER_FOLDS, Problem, fold_losses, make_problems, within_space
from tuning.search_together import losses_together, study_together

NETS = Nets(hidden=8, steps=4, warm_up=16, body=32, batch=8)
SMALL = Preset("small", ("lstm", "gru"), nets=NETS)


@pytest.fixture(scope="module")
def problem() -> Problem:
    bars = simulate(World(weeks=42, symbols=("EURUSD", "GBPUSD")), seed=31)
    return make_problems(bars, Timeframe.H1, SMALL)["nets"]


@pytest.fixture(scope="module")
def default(problem: Problem) -> list[np.ndarray]:
    return [fold_losses(problem, NETS, k) for k in range(INNER_FOLDS)]


def test_they_are_scored_as_one_by_one(problem: Problem, default: list[np.ndarray]):
    wide = replace(NETS, hidden=10, dropout=0.0)
    made = losses_together(problem, [NETS, wide, replace(NETS, learning_rate=1e-2)])
    for own, expected in zip(made[0], default, strict=True):
        np.testing.assert_allclose(own, expected, atol=1e-5)
    np.testing.assert_allclose(made[1][2], fold_losses(problem, wide, 2), atol=1e-5)
    assert np.abs(made[2][0] - made[0][0]).max() > 1e-4


def test_trials_repeat_and_each_is_of_its_own_settings(problem: Problem, default, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(search_together, "ROUND", 2)
    first, second = (study_together(in_process)(problem, default, 3, lambda: inf) for _ in range(2))
    assert first == second, "same seed, same trials"
    assert [(t.number, t.state, t.folds) for t in first] == [(k, "complete", INNER_FOLDS) for k in (1, 2, 3)]
    assert all(t.settings.keys() == within_space(NETS).keys() for t in first)
    last = first[2]
    again = [fold_losses(problem, problem.settings(last.settings), k) for k in range(INNER_FOLDS)]
    assert last.loss == pytest.approx(float(np.concatenate(again).mean()), abs=1e-5)


def test_a_loss_that_is_no_number_fails_that_trial_alone(problem: Problem, default: list[np.ndarray]):
    def run_units(function, arguments):
        (_, settings) = arguments[0]
        yield [default if k else [np.full_like(one, np.inf) for one in default] for k in range(len(settings))]

    made = study_together(run_units)(problem, default, 3, lambda: inf)
    assert [t.state for t in made] == ["failed", "complete", "complete"]


def test_they_end_with_their_time(problem: Problem, default, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(search_together, "ROUND", 2)
    left = iter([9.0, 0.0])
    rounds = lambda function, arguments: iter([[default] * len(arguments[0][1])])  # noqa: E731
    assert len(study_together(rounds)(problem, default, 5, lambda: next(left))) == 2

    def spent(function, arguments):
        raise BudgetSpent("over")

    assert study_together(spent)(problem, default, 5, lambda: inf) == []


def test_a_cluster_with_a_free_gpu_searches_there(problem: Problem, default, monkeypatch: pytest.MonkeyPatch, tmp_path):
    asked = []

    def units_on_ray(seconds_left, gpus):
        asked.append(gpus)
        return lambda function, arguments: iter([[default] * len(arguments[0][1])])

    monkeypatch.setattr(search_on_ray, "has_free_gpu", lambda: True)
    monkeypatch.setattr(search_on_ray, "units_on_ray", units_on_ray)
    assert len(search_on_ray.study_on_ray(tmp_path)(problem, default, 3, lambda: inf)) == 3
    assert asked == [1]
