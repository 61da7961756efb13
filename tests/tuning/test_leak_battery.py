"""The battery against the pipeline that really trains: leaks planted into its features, labels, scalers and folds are caught.

Each leak is planted where the code would have it, not in the battery, and is caught by the test that is meant for it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from market.errors import NotEnoughBars
from market.timeframes import Timeframe
from tuning import cross_validate, ensemble, features, fold_baselines, leak_battery, panel, scaling, targets
from tuning.leak_tests import perturbed_future, with_other_future
from tuning.presets import Nets, load_preset
from tuning.rolling import lagged
from tuning.splits import Fold, purged_walk_forward
from tuning.worlds import World, simulate

SEED = 4
PRESET = load_preset("quick")
NAMES = ("truncated_future", "tail_equals_full", "target_shift", "permuted_labels", "perturbed_future")


@pytest.fixture(scope="module")
def bars():
    return simulate(World(weeks=20, symbols=("EURUSD",)), seed=SEED)


def failed(bars, preset=PRESET) -> set[str]:
    results = leak_battery.leak_battery(bars, Timeframe.H1, preset)
    assert tuple(r.name for r in results) == NAMES
    return {r.name for r in results if not r.passed}


def test_the_pipeline_passes_its_own_battery(bars):
    assert failed(bars) == set(), f"seed {SEED}"


def everywhere(monkeypatch, name, function) -> None:
    """Replace a function of tuning in every module that has imported it by name."""
    for module in (cross_validate, ensemble, features, fold_baselines, leak_battery, panel, scaling, targets):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, function)


def test_a_feature_that_looks_one_bar_ahead_is_caught(bars, monkeypatch):
    honest = features.make_features

    def ahead(series, timeframe):
        made = honest(series, timeframe)
        made[:, 0] = lagged(made[::-1, 0], 1)[::-1]  # momentum_1 of the next bar
        return made

    everywhere(monkeypatch, "make_features", ahead)
    assert failed(bars) >= {"truncated_future", "perturbed_future"}


def test_a_feature_scaled_by_all_rows_is_caught(bars, monkeypatch):
    honest = features.make_features

    def scaled(series, timeframe):
        made = honest(series, timeframe)
        return (made - np.nanmean(made, axis=0)) / np.nanstd(made, axis=0)

    everywhere(monkeypatch, "make_features", scaled)
    assert failed(bars) >= {"truncated_future", "tail_equals_full"}


def test_a_season_and_baselines_fitted_on_all_rows_are_caught(bars, monkeypatch):
    """The scaler of this pipeline is the baseline that learners forecast the rest of."""
    honest = fold_baselines.fit_baselines

    def on_all_rows(series, rv, rows, timeframe):
        return honest(series, rv, np.arange(rows.min(), len(series)), timeframe)

    monkeypatch.setattr(fold_baselines, "fit_baselines", on_all_rows)
    assert failed(bars) == {"perturbed_future"}


def test_a_base_rate_of_all_rows_is_caught(bars, monkeypatch):
    whole = {}
    honest = fold_baselines.share_of_ups

    def of_all(ret, horizon):
        made = whole["panel"].targets[0].ret[horizon]
        return honest(made, horizon)

    fit = fold_baselines.fit_fold_baselines

    def remembering(panel_, train, test):
        whole["panel"] = panel_
        return fit(panel_, train, test)

    monkeypatch.setattr(fold_baselines, "share_of_ups", of_all)
    monkeypatch.setattr(cross_validate, "fit_fold_baselines", remembering)
    assert failed(bars) == {"perturbed_future"}


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_target_off_by_one_is_caught(bars, monkeypatch, shift):
    honest = targets.lead
    monkeypatch.setattr(targets, "lead", lambda x, rows: honest(x, rows + shift))
    assert "target_shift" in failed(bars)


def test_a_variance_label_off_by_one_is_caught(bars, monkeypatch):
    """The return's label stays right."""
    honest = targets.rolling_sum
    monkeypatch.setattr(targets, "rolling_sum", lambda x, h: lagged(honest(x, h), 1))
    assert "target_shift" in failed(bars)


def test_an_indicator_with_infinite_memory_is_caught(bars, monkeypatch):
    honest = features.make_features

    def recursive(series, timeframe):
        made = honest(series, timeframe)
        level, column = 0.0, np.nan_to_num(made[:, 0])
        for t, x in enumerate(column):
            level = 0.999 * level + x
            made[t, 0] = level
        return made

    everywhere(monkeypatch, "make_features", recursive)
    assert failed(bars) == {"tail_equals_full"}, "it looks at no future"


def test_a_look_back_that_is_told_too_short_is_caught(bars, monkeypatch):
    honest = features.lookback
    monkeypatch.setattr(leak_battery, "lookback", lambda timeframe: honest(timeframe) - 3)
    assert failed(bars) == {"tail_equals_full"}


def past_its_purge(time, label_end, scheme, *, warm_up=0):
    """Trains up to the bar before the test, labels and all."""
    made = purged_walk_forward(time, label_end, scheme, warm_up=warm_up)
    return [replace(f, train=np.sort(np.concatenate([f.train, f.purged, f.embargoed]))) for f in made]


def test_a_fold_that_trains_past_its_purge_is_caught(bars, monkeypatch):
    monkeypatch.setattr(panel, "purged_walk_forward", past_its_purge)
    assert failed(bars) == {"perturbed_future"}


def test_a_purge_one_bar_too_short_is_caught(bars, monkeypatch):
    """One training label ends one bar inside the test: the smallest leak there is."""
    horizon = max(Timeframe.H1.horizons)

    def trained_until(bars_too_many):
        def cut(time, label_end, scheme, *, warm_up=0):
            made = purged_walk_forward(time, label_end, scheme, warm_up=warm_up)
            ends = [int(f.test.min()) - horizon + 1 + bars_too_many for f in made]
            return [replace(f, train=np.arange(f.train.min(), end)) for f, end in zip(made, ends, strict=True)]

        return cut

    monkeypatch.setattr(panel, "purged_walk_forward", trained_until(0))
    assert failed(bars) == set(), "the last label ends with the first test bar's own close"
    monkeypatch.setattr(panel, "purged_walk_forward", trained_until(1))
    assert failed(bars) == {"perturbed_future"}


def shuffled(time, label_end, scheme, *, warm_up=0):
    """Folds of random rows: what a shuffled K-fold does."""
    made = purged_walk_forward(time, label_end, scheme, warm_up=warm_up)
    rows = np.random.default_rng(SEED).permutation(len(time))
    parts = np.array_split(rows, len(made))
    empty = np.empty(0, int)
    return [
        Fold(f.number, np.sort(np.setdiff1d(rows, part)), np.sort(part), empty, empty)
        for f, part in zip(made, parts, strict=True)
    ]


def test_a_shuffled_split_is_caught_by_every_test_that_splits(bars, monkeypatch):
    monkeypatch.setattr(panel, "purged_walk_forward", shuffled)
    monkeypatch.setattr(leak_battery, "purged_walk_forward", shuffled)
    assert failed(bars) >= {"perturbed_future"}


def test_nets_that_are_cross_validated_know_no_future_either(bars):
    """The battery tests a tree family only, for its cost; nets get the same test here."""
    preset = replace(
        PRESET, families=("lstm", "gru", "attention"), folds=2, test_share=0.3, lockbox_days=0.0, max_train_bars=None,
        min_train_bars=300, nets=Nets(hidden=8, steps=12, warm_up=16, body=32, batch=8),
    )  # fmt: skip
    result = leak_battery.perturbed_pipeline(bars["EURUSD"], Timeframe.H1, preset, np.random.default_rng(SEED))
    assert result.passed, f"seed {SEED}: {result}"
    assert int(result.detail.split()[0]) > 40, "the families of nets are among them"


def test_too_few_bars_for_the_test_is_not_a_pass(bars):
    table = bars["EURUSD"]
    result = perturbed_future(lambda given: {"x": np.full(3, np.nan)}, table, 10, np.random.default_rng(SEED))
    assert not result.passed
    assert "too few bars" in result.detail
    short = {"EURUSD": table.slice(0, 700)}
    with pytest.raises(NotEnoughBars):
        cross_validate.cross_validate(short, Timeframe.H1, PRESET)
    assert "perturbed_future" in failed(short)


def test_another_future_changes_everything_after_its_row_and_nothing_before(bars):
    table = bars["EURUSD"]
    other = with_other_future(table, 1000, np.random.default_rng(SEED))
    assert other.slice(0, 1001) == table.slice(0, 1001)
    for name in ("open", "high", "low", "close", "spread_points"):
        assert (other[name].to_numpy()[1001:] != table[name].to_numpy()[1001:]).all(), name
    assert (other["high"].to_numpy() >= other["low"].to_numpy()).all()


def test_an_unknown_spread_stays_unknown_in_another_future(bars):
    table = bars["EURUSD"].slice(0, 300)
    place = table.schema.get_field_index("spread_points")
    field = table.schema.field(place)
    table = table.set_column(place, field, pa.array([None] * 290 + [15] * 10, field.type))
    other = with_other_future(table, 100, np.random.default_rng(SEED))
    assert other["spread_points"].null_count == 290
    assert min(other["spread_points"].to_pylist()[290:]) > 15
