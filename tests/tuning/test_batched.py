"""Nets trained as one program are the nets that fit_net trains one by one, each untouched by the others.

Tolerance, in float32: 1e-5 on weights and forecasts after 12 steps, each of which moves a weight by about 0.02. The
attention's key biases are left out: a softmax does not see them, so their gradient is rounding noise, which AdamW scales
up to the learning rate.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import gpu_nets
from market.errors import ClusterError, InputError
from tests.tuning.tiny_chains import TINY, make_chain
from tuning.learners.batched import fit_nets_together, shape_key
from tuning.learners.fitting import NET_FAMILIES, Lesson
from tuning.learners.sequence import SequenceModel, fit_net, load_net
from tuning.net_chain import ChainState, advance, advance_all

SMALL = replace(TINY, hidden=8, steps=12, steps_warm=6, dropout=0.0)
SETTINGS = (SMALL, replace(SMALL, learning_rate=5e-3, weight_decay=0.2), replace(SMALL, weight_decay=0.0))
SEEDS = (3, 4, 5)
OWNER = np.arange(2)


def lessons_of(family: str = "lstm") -> list[Lesson]:
    chain = make_chain(family)
    return [Lesson(chain.horizons, k.inputs, chain.starts, k.ratio, k.up, k.offset, k.train) for k in chain.links[:3]]


def one_by_one(family: str, settings=SETTINGS, lessons=None, starts=(None,) * 3) -> list[SequenceModel]:
    given = zip(settings, SEEDS, lessons or lessons_of(), starts, strict=True)
    return [fit_net(family, own, seed, lesson, start=start) for own, seed, lesson, start in given]


def weights(model: SequenceModel) -> dict[str, torch.Tensor]:
    found = {name: w.detach().clone() for name, w in model.net.state_dict().items()}
    if model.family == "attention":
        hidden = model.settings.hidden
        found["body.qkv.bias"][hidden : 2 * hidden] = 0.0
    return found


def assert_close(made: list[SequenceModel], expected: list[SequenceModel], lessons=None) -> None:
    for one, other, lesson in zip(made, expected, lessons or lessons_of(), strict=True):
        torch.testing.assert_close(weights(one), weights(other), atol=1e-5, rtol=0)
        rows = np.concatenate([np.arange(200, 240), np.arange(600, 640)])
        for mine, theirs in zip(*(m.predict(lesson.inputs, lesson.starts, OWNER, rows) for m in (one, other))):  # noqa: B905
            np.testing.assert_allclose(mine, theirs, atol=1e-5)


def exactly(first: SequenceModel, second: SequenceModel) -> bool:
    return first.to_files() == second.to_files()


@pytest.mark.parametrize("family", NET_FAMILIES)
def test_together_they_are_what_they_are_one_by_one_from_zero_and_from_weights(family: str):
    expected = one_by_one(family)
    made = fit_nets_together(family, SETTINGS, SEEDS, lessons_of())
    assert_close(made, expected)
    warm = fit_nets_together(family, SETTINGS, SEEDS, lessons_of(), starts=expected)
    assert_close(warm, one_by_one(family, starts=expected))
    assert not exactly(warm[0], made[0])


@pytest.mark.parametrize("family", NET_FAMILIES)
def test_dropout_draws_what_each_net_would_draw_alone(family: str):
    rates = (0.3, 0.0, 0.1)
    settings = [replace(own, dropout=rate, layers=2) for own, rate in zip(SETTINGS, rates, strict=True)]
    expected = one_by_one(family, settings)
    assert_close(fit_nets_together(family, settings, SEEDS, lessons_of()), expected)
    none = one_by_one(family, [replace(own, dropout=0.0) for own in settings])
    differences = [
        max((a - b).abs().max().item() for a, b in zip(x.net.parameters(), y.net.parameters(), strict=True))
        for x, y in zip(expected, none, strict=True)
    ]
    assert min(differences[0], differences[2]) > 1e-4, "the masks matter"


@pytest.mark.parametrize("family", NET_FAMILIES)
def test_one_alone(family: str):
    lesson = lessons_of()[:1]
    expected = [fit_net(family, SMALL, 3, lesson[0])]
    assert_close(fit_nets_together(family, [SMALL], [3], lesson), expected, lesson)


@pytest.mark.parametrize("family", NET_FAMILIES)
def test_a_small_lesson_among_larger_ones_is_padded_without_a_trace(family: str):
    """Its batches hold fewer chunks, and its chunks fewer bars."""
    lessons, settings = lessons_of(), [replace(own, dropout=0.2) for own in SETTINGS]
    few = np.concatenate([np.arange(100, 111), np.arange(500, 511)])
    lessons[1] = replace(lessons[1], rows=few)
    made = fit_nets_together(family, settings, SEEDS, lessons)
    assert_close(made, one_by_one(family, settings, lessons), lessons)


@pytest.mark.parametrize("family", NET_FAMILIES)
def test_no_member_feels_another(family: str):
    settings = [replace(own, dropout=0.2) for own in SETTINGS]
    lessons = lessons_of()
    before = fit_nets_together(family, settings, SEEDS, lessons)
    lessons[1] = replace(lessons[1], inputs=-lessons[1].inputs, up=1 - lessons[1].up, ratio=3 * lessons[1].ratio)
    after = fit_nets_together(
        family, [settings[0], replace(settings[1], learning_rate=9.0), settings[2]], SEEDS, lessons
    )
    assert [exactly(a, b) for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_a_member_with_numbers_that_are_none_spoils_itself_only():
    lessons = lessons_of()
    before = fit_nets_together("gru", SETTINGS, SEEDS, lessons)
    lessons[1] = replace(lessons[1], inputs=np.full_like(lessons[1].inputs, np.nan))
    after = fit_nets_together("gru", SETTINGS, SEEDS, lessons)
    assert exactly(before[0], after[0])
    assert exactly(before[2], after[2])
    assert not torch.isfinite(after[1].net.head.weight).all()


@pytest.mark.parametrize("family", NET_FAMILIES)
def test_the_artefact_is_an_ordinary_one(family: str):
    made = fit_nets_together(family, SETTINGS, SEEDS, lessons_of())
    assert {name: w.shape for name, w in made[1].net.state_dict().items()} == {
        name: w.shape for name, w in fit_net(family, SETTINGS[1], 4, lessons_of()[1]).net.state_dict().items()
    }
    lesson, rows = lessons_of()[1], np.arange(200, 240)
    read = load_net(family, made[1].to_files())
    assert read.settings == SETTINGS[1]
    for mine, theirs in zip(*(m.predict(lesson.inputs, lesson.starts, OWNER, rows) for m in (made[1], read))):  # noqa: B905
        np.testing.assert_array_equal(mine, theirs)


def test_no_step_leaves_the_first_weights():
    still = [replace(own, steps=0) for own in SETTINGS]
    made = fit_nets_together("lstm", still, SEEDS, lessons_of())
    assert all(exactly(a, b) for a, b in zip(made, one_by_one("lstm", still), strict=True))


def test_the_callers_models_stay_as_they_were():
    starts = one_by_one("attention")
    before = [start.to_files() for start in starts]
    fit_nets_together("attention", SETTINGS, SEEDS, lessons_of(), starts=starts)
    assert [start.to_files() for start in starts] == before


@pytest.mark.parametrize("change", [{"hidden": 16}, {"steps": 13}, {"batch": 4}, {"layers": 2}, {"body": 8}])
def test_nets_of_two_shapes_are_refused(change: dict[str, int]):
    settings = [SMALL, replace(SMALL, **change), SMALL]
    with pytest.raises(InputError, match="one program"):
        fit_nets_together("lstm", settings, SEEDS, lessons_of())


def test_a_warm_net_and_one_from_zero_are_two_shapes():
    starts = [*one_by_one("lstm")[:2], None]
    with pytest.raises(InputError, match="one program"):
        fit_nets_together("lstm", SETTINGS, SEEDS, lessons_of(), starts=starts)
    assert shape_key("lstm", SETTINGS[0], lessons_of()[0], True) == shape_key(
        "lstm", SETTINGS[1], lessons_of()[1], True
    )


def test_chains_of_one_shape_advance_together_and_the_rest_alone(monkeypatch: pytest.MonkeyPatch):
    import tuning.learners.batched as batched

    groups = []

    def watched(family, settings, seeds, lessons, **how):
        groups.append((family, list(seeds)))
        return fit_nets_together(family, settings, seeds, lessons, **how)

    monkeypatch.setattr(batched, "fit_nets_together", watched)
    idle = make_chain("gru", settings=SMALL, seed=9)
    idle = replace(idle, links=(replace(idle.links[0], test=idle.links[0].test[:0]), *idle.links[1:]))
    chains = [make_chain("gru", settings=SMALL, seed=1), make_chain("lstm", settings=SMALL), idle]
    chains.append(make_chain("gru", settings=replace(SMALL, learning_rate=1e-2), seed=2))
    states = [ChainState() for _ in chains]
    for link in range(2):
        alone = [advance(chain, state) for chain, state in zip(chains, states, strict=True)]
        made = advance_all(chains, states, together=True)
        for one, other in zip(made, alone, strict=True):
            assert one.done == other.done == link + 1
            assert min(one.cpu_seconds) >= 0.0
            np.testing.assert_allclose(one.views[-1], other.views[-1], atol=1e-5)
        assert made[1].net == alone[1].net
        states = made
    # At the second link the idle chain starts from nothing: a shape of its own.
    assert [family for family, _ in groups] == ["gru", "gru"]
    assert [len(seeds) for _, seeds in groups] == [2, 2]


def test_chains_do_not_meet_unless_asked(monkeypatch: pytest.MonkeyPatch):
    import tuning.learners.batched as batched

    monkeypatch.setattr(batched, "fit_nets_together", None)
    chains = [make_chain("gru", seed=seed) for seed in (1, 2)]
    made = advance_all(chains, [ChainState(), ChainState()])
    assert [state.net for state in made] == [advance(chain, ChainState()).net for chain in chains]


def test_the_benchmark_says_that_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ClusterError, match="nothing was measured"):
        gpu_nets.main([])


def test_the_benchmark_sees_nets_that_differ(monkeypatch: pytest.MonkeyPatch):
    lessons = lessons_of()
    assert gpu_nets.largest_difference("gru", SMALL, lessons, 3, "cpu") < 1e-5
    wrong = lambda family, settings, seeds, *rest, **how: fit_nets_together(  # noqa: E731
        family, settings, [seed + 1 for seed in seeds], *rest, **how
    )
    monkeypatch.setattr(gpu_nets, "fit_nets_together", wrong)
    assert gpu_nets.largest_difference("gru", SMALL, lessons, 3, "cpu") > gpu_nets.MOST_DIFFERENCE


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: the CUDA graph and the fused cells")
@pytest.mark.parametrize("family", NET_FAMILIES)
def test_on_a_gpu_they_are_what_they_are_one_by_one(family: str):
    expected = one_by_one(family)
    made = fit_nets_together(family, SETTINGS, SEEDS, lessons_of(), device="cuda")
    for model in made:
        model.net.cpu()
    for one, other in zip(made, expected, strict=True):
        torch.testing.assert_close(weights(one), weights(other), atol=1e-3, rtol=0)
