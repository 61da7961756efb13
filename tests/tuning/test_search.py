"""The search: what it may look at, what it keeps, what it tells."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pyarrow as pa
import pytest

from market.timeframes import Timeframe
from tuning import search as searching
from tuning.budget import BudgetSpent
from tuning.cross_validate import cross_validate, in_process
from tuning.experiments import World, simulate
from tuning.presets import Boosting, Nets, Preset, Search
from tuning.search import (
    INNER_FOLDS,
    Trial,
    choose,
    compared,
    local_study,
    make_problems,
    run_trial,
    search,
    space,
    training_part_of,
    within_space,
)

H1 = Timeframe.H1
SMALL = Preset(
    "small",
    ("lightgbm", "gru"),
    boosting=Boosting(trees=8, leaves=4, min_rows_in_leaf=200),
    nets=Nets(hidden=8, steps=4, warm_up=32, body=64, batch=8),
    search=Search(trials=4),
)


@pytest.fixture(scope="module")
def bars():
    return simulate(World(weeks=42, symbols=("EURUSD", "GBPUSD", "USDJPY")), seed=31)


@pytest.fixture(scope="module")
def problems(bars):
    return make_problems(bars, H1, SMALL)


def first_test_row(bars) -> np.datetime64:
    oof = cross_validate(bars, H1, replace(SMALL, families=()))
    return oof.time.min()


def garbled_from(bars, moment: np.datetime64):
    """The same bars, every price from `moment` on replaced by another walk."""
    out = {}
    for k, (symbol, table) in enumerate(bars.items()):
        late = table["close_time"].cast(pa.int64()).to_numpy().astype("datetime64[us]") >= moment
        factor = np.where(late, np.exp(np.cumsum(np.random.default_rng(k).normal(0, 0.01, len(late)))), 1.0)
        for name in ("open", "high", "low", "close"):
            table = table.set_column(
                table.schema.get_field_index(name), name, pa.array(table[name].to_numpy() * factor)
            )
        out[symbol] = table
    return out


def test_it_never_looks_at_an_outer_test_row_or_the_lockbox(bars, problems):
    moment = first_test_row(bars)
    for table in training_part_of(bars, H1, SMALL).values():
        assert table["close_time"].cast(pa.int64()).to_numpy().max() < moment.astype("datetime64[us]").astype(int)
    garbled = garbled_from(bars, moment)
    assert any(garbled[s]["close"] != bars[s]["close"] for s in bars)
    again = make_problems(garbled, H1, SMALL)
    for kind, problem in problems.items():
        for fold, other in zip(problem.folds, again[kind].folds, strict=True):
            for name in ("train", "test", "time", "rv", "yardstick", "up", "base"):
                np.testing.assert_array_equal(getattr(fold, name), getattr(other, name))
            for family in problem.families:
                for a, b in zip(fold.lessons[family], other.lessons[family], strict=True):
                    np.testing.assert_array_equal(a, b)


def test_the_inner_folds_are_purged_walk_forward_folds_of_that_part(problems):
    folds = problems["boosting"].folds
    assert len(folds) == INNER_FOLDS
    assert [k.time.min() for k in folds] == sorted(k.time.min() for k in folds)
    for fold in folds:
        assert len(np.intersect1d(fold.train, fold.test)) == 0
        assert np.isfinite(fold.rv).all()
        assert np.isfinite(fold.yardstick).all()


def test_a_kind_is_scored_on_its_own_families(problems):
    assert {kind: p.families for kind, p in problems.items()} == {"boosting": ("lightgbm",), "nets": ("gru",)}
    assert isinstance(problems["nets"].default, Nets)


@pytest.mark.parametrize("default", [Boosting(), Nets(), Nets(hidden=48), Nets(hidden=2), Boosting(trees=1, leaves=2)])
def test_the_default_lies_in_its_space(default):
    ranges = space(default)
    for name, value in within_space(default).items():
        assert ranges[name]._contains(ranges[name].to_internal_repr(value)), name
    if isinstance(default, Nets):
        assert all(h % 2 == 0 for h in range(ranges["hidden"].low, ranges["hidden"].high + 1, ranges["hidden"].step))


def test_local_trials_repeat_and_are_pruned_on_folds(problems):
    problem = problems["boosting"]
    default = [searching.fold_losses(problem, problem.default, k) for k in range(INNER_FOLDS)]
    first, second = (local_study(in_process)(problem, default, 5, lambda: inf) for _ in range(2))
    assert first == second, "same seed, same trials"
    assert [trial.number for trial in first] == [1, 2, 3, 4, 5]
    for trial in first:
        assert trial.folds == INNER_FOLDS or trial.state == "pruned"
        assert trial.settings.keys() == within_space(problem.default).keys()
    assert {trial.state for trial in first} == {"complete", "pruned"}


def test_it_ends_with_its_time(problems):
    problem, left = problems["boosting"], iter([9.0, 0.0])
    default = [searching.fold_losses(problem, problem.default, k) for k in range(INNER_FOLDS)]
    assert len(local_study(in_process)(problem, default, 5, lambda: next(left))) == 1

    def spent(function, arguments):
        raise BudgetSpent("over")

    assert local_study(spent)(problem, default, 5, lambda: inf) == []


def trial(number: int, loss: float, gain: float, error: float, state: str = "complete") -> Trial:
    return Trial(number, {}, state, 3, loss, gain, error)


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        ([], 0),
        ([(0.99, 0.01, 0.02)], 0),  # better by less than its standard error
        ([(0.99, 0.01, 0.005)], 1),
        ([(0.98, 0.02, 0.03), (0.99, 0.01, 0.005)], 0),  # the best is judged, not whoever would pass
        ([(0.90, 0.10, 0.01, "pruned")], 0),
        ([(inf, -inf, inf, "failed")], 0),
    ],
)
def test_the_default_stays_unless_beaten_by_more_than_the_standard_error(others, chosen):
    trials = [trial(0, 1.0, 0.0, 0.0), *(trial(k, *one) for k, one in enumerate(others, start=1))]
    assert choose(trials).number == chosen


def test_gain_and_error_are_those_of_the_difference():
    rng = np.random.default_rng(3)
    shared = rng.normal(1.0, 1.0, 4000)
    loss, gain, error = compared([shared - 0.1 + rng.normal(0, 0.1, 4000)], [shared, shared], 1)
    assert loss == pytest.approx(0.9, abs=0.05)
    assert gain == pytest.approx(0.1, abs=0.01)
    assert error == pytest.approx(0.1 / np.sqrt(4000), rel=0.5), "what both share cancels"
    assert compared([np.full(5, np.inf)], [np.zeros(5)], 1) == (inf, -inf, inf)


def test_a_setting_that_diverges_has_failed(problems, monkeypatch):
    problem = problems["nets"]
    monkeypatch.setattr(searching, "fold_losses", lambda *_: np.full(10, np.inf))
    made = run_trial(problem, [np.zeros(10)] * 3, 7, {"hidden": 8}, in_process, lambda trial: False)
    assert (made.state, made.folds) == ("failed", 1)


def test_what_was_chosen_and_everything_that_was_tried(bars):
    def study(problem, default, trials, seconds_left):
        """The third of three is far better, in boosting only."""
        gain = 0.5 if problem.kind == "boosting" else 0.001
        point = within_space(problem.default)
        return [
            trial(1, 2.0, -1.0, 0.01),
            trial(2, 1.5, -0.5, 0.01, "pruned"),
            Trial(3, point | {"learning_rate": 0.0123}, "complete", 3, 0.5, gain, 0.01),
        ]

    chosen, record = search(bars, H1, SMALL, study=study)
    assert chosen.boosting == replace(SMALL.boosting, learning_rate=0.0123)
    assert chosen.nets == SMALL.nets
    assert chosen.search is None
    assert {kind: one["chosen"] for kind, one in record.items()} == {"boosting": 3, "nets": 0}
    assert record["boosting"]["trials"] == 4
    assert record["boosting"]["pruned"] == 1
    assert [t["number"] for t in record["nets"]["tried"]] == [0, 1, 2, 3]
    assert record["nets"]["tried"][0]["settings"]["hidden"] == 8
    assert record["nets"]["default_loss"] == record["nets"]["tried"][0]["loss"]
    assert record["boosting"]["gain"] == 0.5
    assert record["boosting"]["to"] < str(first_test_row(bars))


def test_without_the_key_nothing_is_searched(bars):
    assert search(bars, H1, replace(SMALL, search=None)) == (replace(SMALL, search=None), {})


def test_a_short_history_keeps_the_settings_and_says_why(bars):
    short = {s: t.slice(t.num_rows - 2200) for s, t in bars.items()}
    chosen, record = search(short, H1, SMALL)
    assert chosen == replace(SMALL, search=None)
    assert "too few" in record["skipped"]
