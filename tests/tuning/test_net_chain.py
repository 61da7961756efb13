"""Chains over the folds: each link from the one before, never from a later one; left and taken up again, the same bytes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from market.errors import InputError, ModelError
from tests.tuning.tiny_chains import FOLDS, TINY, make_chain
from tuning.learners.fitting import NET_FAMILIES, Lesson
from tuning.learners.sequence import fit_net, load_net
from tuning.net_chain import (
    Chain,
    ChainState,
    advance,
    link_seed,
    require_time_order,
    run_chain,
    state_from_files,
    state_to_files,
)
from tuning.splits import Fold


def same(first: ChainState, second: ChainState) -> None:
    assert first.net == second.net
    assert first.done == second.done
    for one, other in zip(first.views, second.views, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])


def lesson_of(chain: Chain, k: int) -> Lesson:
    link = chain.links[k]
    return Lesson(chain.horizons, link.inputs, chain.starts, link.ratio, link.up, link.offset, link.train)


@pytest.mark.parametrize("family", NET_FAMILIES)
def test_the_first_link_starts_from_nothing_and_the_next_from_its_weights(family: str):
    chain = make_chain(family)
    first = advance(chain, ChainState())
    assert first.net == fit_net(family, TINY, chain.seed, lesson_of(chain, 0)).to_files()
    still = replace(chain, settings=replace(TINY, steps_warm=0))
    assert advance(still, first).net["net.safetensors"] == first.net["net.safetensors"], "no step, the same weights"
    second = advance(chain, first)
    assert second.net["net.safetensors"] != first.net["net.safetensors"]
    moved = [
        (a - b).abs().max().item()
        for a, b in zip(*(load_net(family, s.net).net.parameters() for s in (first, second)), strict=True)
    ]
    assert max(moved) < 3 * TINY.steps_warm * TINY.learning_rate * TINY.warm_rate, "AdamW moves a rate a step"


@pytest.mark.parametrize("family", NET_FAMILIES)
def test_left_after_any_fold_it_goes_on_to_the_same_bytes(family: str):
    chain = make_chain(family)
    whole = run_chain(chain)
    assert [view is None for view in whole.views] == [False] * FOLDS + [True]
    state = ChainState()
    while state.done < len(chain.links):
        state = state_from_files(chain, state_to_files(chain, advance(chain, state)))
    same(state, whole)


def test_a_later_fold_changes_no_earlier_one():
    chain = make_chain("gru")
    spoilt = [*chain.links[:2], *(replace(one, inputs=-one.inputs, up=1 - one.up) for one in chain.links[2:])]
    before, after = run_chain(chain), run_chain(replace(chain, links=tuple(spoilt)))
    for k in range(2):
        np.testing.assert_array_equal(before.views[k], after.views[k])
    assert not np.array_equal(before.views[2], after.views[2])


def test_a_fold_without_test_rows_hands_the_weights_on():
    chain = make_chain("lstm", final=False)
    empty = replace(chain.links[1], test=chain.links[1].test[:0])
    state = advance(replace(chain, links=(chain.links[0], empty)), advance(chain, ChainState()))
    assert state.net == advance(chain, ChainState()).net
    assert state.views[1][0].shape == (0, 2)


def test_a_chain_that_begins_with_such_a_fold_starts_from_nothing_after_it():
    chain = make_chain("lstm", final=False)
    empty = replace(chain.links[0], test=chain.links[0].test[:0])
    state = run_chain(replace(chain, links=(empty, chain.links[1])))
    assert state.net == fit_net("lstm", TINY, link_seed(chain.seed, 1), lesson_of(chain, 1)).to_files()
    assert np.isfinite(state.views[1][0][:, 1]).all()


def test_seeds_differ_and_repeat():
    first, again, other = (run_chain(make_chain("gru", seed=seed)) for seed in (3, 3, 4))
    same(first, again)
    assert first.net["net.safetensors"] != other.net["net.safetensors"]


@pytest.mark.parametrize("change", [{"seed": 4}, {"family": "lstm"}, {"settings": replace(TINY, hidden=8)}])
def test_a_checkpoint_of_another_chain_is_refused(change):
    chain = make_chain("gru")
    files = state_to_files(chain, advance(chain, ChainState()))
    with pytest.raises(ModelError, match="another chain"):
        state_from_files(replace(chain, **change), files)


def test_no_checkpoint_holds_a_pickle():
    chain = make_chain("attention")
    files = state_to_files(chain, run_chain(chain))
    assert set(files) == {"chain.json", "views.safetensors", "net.json", "net.safetensors"}


HOURS = np.arange("2024-01-01", "2024-01-11", dtype="datetime64[h]").astype("datetime64[us]")


def fold(number: int, train: range, test: range) -> Fold:
    nothing = np.empty(0, int)
    return Fold(number, np.array(train, int), np.array(test, int), nothing, nothing)


def test_labels_that_end_before_the_next_test_are_in_order():
    folds = [
        fold(0, range(0, 70), range(100, 130)),
        fold(1, range(20, 100), range(130, 160)),
        fold(-1, range(0), range(160, 180)),
    ]
    require_time_order(folds, HOURS, HOURS + np.timedelta64(24, "h"))


@pytest.mark.parametrize(
    "folds",
    [
        [fold(0, range(0, 77), range(100, 130))],  # the last label ends in the first test hour
        [fold(0, range(0, 70), range(100, 130)), fold(1, range(0, 107), range(130, 160))],
        [fold(1, range(0, 100), range(130, 160)), fold(0, range(0, 70), range(100, 130))],  # a later fold first
        [fold(1, range(0, 100), range(0)), fold(0, range(0, 70), range(100, 130))],  # untested, its weights go on
    ],
)
def test_weights_that_know_a_test_label_are_refused(folds):
    with pytest.raises(InputError, match="Weights trained on labels until"):
        require_time_order(folds, HOURS, HOURS + np.timedelta64(24, "h"))
