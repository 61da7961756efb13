"""Boosted trees and nets: they learn what is there, give the same bytes again, and survive being written down."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from market.errors import InputError
from tuning.learners.attention import Attention
from tuning.learners.fitting import NET_FAMILIES, TREE_FAMILIES, Lesson, fit_and_predict, fit_learner, load_learner
from tuning.learners.sequence import Net, SequenceModel
from tuning.presets import LEARNERS, Boosting, Nets

BOOSTING = Boosting(trees=25, leaves=6, learning_rate=0.2, min_rows_in_leaf=30, row_step=2)
NETS = Nets(hidden=8, steps=60, warm_up=8, body=32, batch=16, learning_rate=2e-2)
SETTINGS = dict.fromkeys(TREE_FAMILIES, BOOSTING) | dict.fromkeys(NET_FAMILIES, NETS)
STARTS = np.array([0, 1500, 3000])
TRAIN = np.r_[20:1200, 1520:2700]
TEST = np.r_[1200:1490, 2700:2990]


@pytest.fixture(scope="module")
def lesson() -> Lesson:
    """Input 0 drives the log ratio at horizon 4, input 1 the odds at horizon 1; the rest is noise."""
    rng = np.random.default_rng(12)
    n = int(STARTS[-1])
    inputs = rng.normal(size=(n, 5)).astype(np.float32)
    ratio = np.stack([rng.gamma(1, 1, n), np.exp(0.5 * inputs[:, 0]) * rng.gamma(8, 1 / 8, n)], axis=1)
    odds = 1 / (1 + np.exp(-1.2 * inputs[:, 1]))
    up = np.stack([rng.random(n) < odds, rng.random(n) < 0.5], axis=1).astype(np.float32)
    ratio[-4:], up[-4:] = np.nan, np.nan
    return Lesson((1, 4), inputs, STARTS, ratio.astype(np.float32), up, np.zeros((n, 2), np.float32), TRAIN)


@pytest.fixture(scope="module")
def learned(lesson: Lesson):
    return {family: fit_learner(family, SETTINGS[family], 3, lesson) for family in LEARNERS}


def predict(learner, lesson: Lesson):
    return learner.predict(lesson.inputs, STARTS, np.array([0, 1]), TEST)


@pytest.mark.parametrize("family", LEARNERS)
def test_it_learns_what_is_there_on_rows_it_has_not_seen(learned, lesson: Lesson, family: str):
    log_ratio, excess = predict(learned[family], lesson)
    assert np.corrcoef(log_ratio[:, 1], lesson.inputs[TEST, 0])[0, 1] > 0.7
    assert np.corrcoef(excess[:, 0], lesson.inputs[TEST, 1])[0, 1] > 0.7
    ratio = lesson.ratio[TEST, 1]
    assert np.mean(ratio * np.exp(-log_ratio[:, 1]) + log_ratio[:, 1]) < np.mean(ratio)  # QLIKE against the yardstick


@pytest.mark.parametrize("family", LEARNERS)
def test_one_bar_variance_is_left_to_the_baseline(learned, lesson: Lesson, family: str):
    log_ratio, excess = predict(learned[family], lesson)
    assert np.isnan(log_ratio[:, 0]).all()
    assert np.isfinite(excess).all()


@pytest.mark.parametrize("family", LEARNERS)
def test_written_down_and_read_again_it_says_the_same(learned, lesson: Lesson, family: str):
    files = learned[family].to_files()
    assert all(isinstance(content, bytes) for content in files.values())
    again = load_learner(family, files)
    for first, second in zip(predict(learned[family], lesson), predict(again, lesson), strict=True):
        np.testing.assert_array_equal(first, second)
    assert again.to_files() == files


@pytest.mark.parametrize("family", LEARNERS)
def test_the_same_lesson_and_seed_give_the_same_bytes(learned, lesson: Lesson, family: str):
    assert fit_learner(family, SETTINGS[family], 3, lesson).to_files() == learned[family].to_files()


@pytest.mark.parametrize("family", LEARNERS)
def test_labels_outside_the_training_rows_change_nothing(learned, lesson: Lesson, family: str):
    ratio, up = lesson.ratio.copy(), lesson.up.copy()
    outside = np.setdiff1d(np.arange(len(ratio)), TRAIN)
    ratio[outside], up[outside] = 7.0, 1.0
    changed = Lesson(lesson.horizons, lesson.inputs, STARTS, ratio, up, lesson.offset, TRAIN)
    assert fit_learner(family, SETTINGS[family], 3, changed).to_files() == learned[family].to_files()


@pytest.mark.parametrize("family", LEARNERS)
def test_inputs_after_a_row_do_not_reach_its_forecast(learned, lesson: Lesson, family: str):
    inputs = lesson.inputs.copy()
    inputs[1300:1500] = 5.0
    rows = np.arange(1250, 1300)
    before = learned[family].predict(lesson.inputs, STARTS, np.array([0, 1]), rows)
    after = learned[family].predict(inputs, STARTS, np.array([0, 1]), rows)
    for first, second in zip(before, after, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("family", NET_FAMILIES)
def test_a_net_serves_one_symbol_as_it_serves_all(learned, lesson: Lesson, family: str):
    both = learned[family].predict(lesson.inputs, STARTS, np.array([0, 1]), STARTS[1:] - 1)
    alone = learned[family].predict(lesson.inputs[-33:], np.array([0, 33]), np.array([1]), np.array([32]))
    for first, second in zip(both, alone, strict=True):
        np.testing.assert_allclose(first[1], second[0], atol=1e-6)


def test_a_net_warms_up_alike_wherever_its_chunk_begins(learned, lesson: Lesson):
    """Attention sees a fixed window: the same row forecast from two chunk grids is the same forecast."""
    net = learned["attention"]
    owner = np.array([0, 1])
    first = net.predict(lesson.inputs, STARTS, owner, np.arange(1200, 1300))[1][50:]
    second = net.predict(lesson.inputs, STARTS, owner, np.arange(1250, 1300))[1]
    np.testing.assert_allclose(first, second, atol=1e-5)


@pytest.mark.parametrize("wanted", [1, 3, 8, 21])
def test_attention_over_a_few_wanted_bars_is_attention_over_many(wanted: int):
    torch.manual_seed(4)
    body = Attention(5, 8, 2, 8, 0.0).eval()
    x = torch.randn(3, 8 + 32, 5)
    with torch.no_grad():
        torch.testing.assert_close(body(x[:, -8 - wanted :])[:, -wanted:], body(x)[:, -wanted:], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("family", ["lightgbm", "lstm"])
def test_a_unit_of_work_is_fit_then_predict(learned, lesson: Lesson, family: str):
    arrays = (lesson.horizons, lesson.inputs, STARTS, lesson.ratio, lesson.up, lesson.offset, TRAIN, TEST)
    log_ratio, excess, seconds = fit_and_predict(family, SETTINGS[family], 3, *arrays)
    for first, second in zip((log_ratio, excess), predict(learned[family], lesson), strict=True):
        np.testing.assert_array_equal(first, second)
    assert seconds > 0


def test_read_only_arrays_from_an_object_store_are_enough(lesson: Lesson):
    arrays = [a.copy() for a in (lesson.inputs, STARTS, lesson.ratio, lesson.up, lesson.offset, TRAIN, TEST)]
    for array in arrays:
        array.flags.writeable = False
    for family in LEARNERS:
        settings = (
            Boosting(trees=2, min_rows_in_leaf=30)
            if family in TREE_FAMILIES
            else Nets(hidden=4, steps=2, warm_up=8, body=32)
        )
        fit_and_predict(family, settings, 3, lesson.horizons, *arrays)


@pytest.mark.parametrize(("family", "kept"), [("lstm", 1.0), ("gru", 2.5)])
def test_what_is_served_has_as_long_a_memory_as_what_was_judged(lesson: Lesson, family: str, kept: float):
    """A net that forgets slowly: one row from its own tail against the same row in the middle of a test fold."""
    settings = Nets(hidden=8, warm_up=16, body=64)
    torch.manual_seed(5)
    net = Net(family, 5, 2, 2, settings)
    with torch.no_grad():
        net.head.weight.normal_()
        net.body.cells.bias_hh_l0[8:16] += kept  # the gate that keeps the state
    model = SequenceModel(family, (1, 4), 5, 2, settings, net)
    judged, _ = predict(model, lesson)
    served = []
    for row in TEST[:200]:
        tail = np.arange(row - model.past, row + 1)
        made, _ = model.predict(lesson.inputs[tail], np.array([0, len(tail)]), np.array([0]), np.array([len(tail) - 1]))
        served.append(made[0, 1])
    difference = np.array(served) - judged[:200, 1]
    assert np.sqrt(np.mean(difference**2)) < 0.02 * judged[:200, 1].std()


def test_an_unknown_family_lists_the_known():
    with pytest.raises(InputError, match="lightgbm, xgboost, lstm, gru, attention"):
        fit_learner("prophet", NETS, 1, None)  # type: ignore[arg-type]
