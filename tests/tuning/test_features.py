"""Features know nothing of the future, need no more than their look-back, and are named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from market.timeframes import Timeframe
from tuning.features import feature_names, lookback, make_features, make_spec
from tuning.learners.baseline import fit_baselines
from tuning.learners.baseline import side_by_side as models_side_by_side
from tuning.scaling import CLIP, baseline_view, net_inputs, tree_inputs
from tuning.series import make_series, side_by_side
from tuning.targets import make_targets

H1 = Timeframe.H1


@pytest.fixture(scope="module")
def fed(make_bars):
    """kind -> function(table) -> [n, k]: plain features, and what trees and nets see with baselines fitted once."""
    table = make_bars(("EURUSD",), 2000)["EURUSD"]
    series = make_series(table, H1)
    models = fit_baselines(series, make_targets(series, H1.horizons).rv, np.arange(500, 1500), H1)
    return table, {
        "features": lambda bars: make_features(make_series(bars, H1), H1),
        "trees": lambda bars: tree_inputs(make_series(bars, H1), H1, models),
        "nets": lambda bars: net_inputs(make_series(bars, H1), H1, models),
    }


@pytest.mark.parametrize("kind", ["features", "trees", "nets"])
def test_bars_after_a_row_change_no_bit_of_it(fed, kind: str):
    table, functions = fed
    whole = functions[kind](table)
    for cut in (600, 1234, 1999):
        np.testing.assert_array_equal(functions[kind](table.slice(0, cut)), whole[:cut])


@pytest.mark.parametrize("kind", ["features", "trees", "nets"])
def test_the_tail_gives_the_bits_of_the_whole(fed, kind: str):
    table, functions = fed
    rows = 5
    tail = table.slice(table.num_rows - lookback(H1) - rows)
    np.testing.assert_array_equal(functions[kind](tail)[-rows:], functions[kind](table)[-rows:])


@pytest.mark.parametrize("timeframe", [Timeframe.M15, Timeframe.H1, Timeframe.H4, Timeframe.D1])
def test_columns_are_as_many_as_names_and_finite_past_the_look_back(make_bars, timeframe: Timeframe):
    table = make_bars(("USDJPY",), 1200, timeframe=timeframe)["USDJPY"]
    made = make_features(make_series(table, timeframe), timeframe)
    assert made.shape == (1200, len(feature_names(timeframe)))
    assert len(set(feature_names(timeframe))) == made.shape[1]
    assert np.isfinite(made[lookback(timeframe) :]).all()


def test_features_ignore_the_price_level(make_bars):
    table = make_bars(("EURUSD",), 700)["EURUSD"]
    scaled = table
    for name in ("open", "high", "low", "close"):
        place = table.schema.get_field_index(name)
        scaled = scaled.set_column(place, table.schema.field(place), pa.array(table[name].to_numpy() * 100.0))
    first, second = (make_features(make_series(t, H1), H1)[600:, :-1] for t in (table, scaled))  # all but the spread
    np.testing.assert_allclose(first, second, rtol=1e-6, atol=1e-6)


def test_flat_bars_give_numbers_not_infinities(make_bars):
    table = make_bars(("EURUSD",), 800)["EURUSD"]
    flat = table
    for name in ("open", "high", "low", "close"):
        place = table.schema.get_field_index(name)
        values = np.where(np.arange(800) > 640, 1.1, table[name].to_numpy())
        flat = flat.set_column(place, table.schema.field(place), pa.array(values))
    assert np.isfinite(make_features(make_series(flat, H1), H1)[lookback(H1) :]).all()


def test_net_inputs_are_bounded(fed):
    table, functions = fed
    made = functions["nets"](table)
    assert made.dtype == np.float32
    assert np.abs(made).max() <= CLIP
    assert 0.5 < made[600:, 0].std() < 2.0  # returns over their expected standard deviation


@pytest.mark.parametrize("skipped", [0, 7])
def test_the_last_rows_of_symbols_side_by_side_have_the_bits_of_each_alone(make_bars, skipped: int):
    tables = list(make_bars(("EURUSD", "GBPUSD", "USDJPY"), 1500).values())
    tables = [tables[0].slice(skipped, 1400), *(table.slice(0, 1400) for table in tables[1:])]
    alone = [make_series(table, H1) for table in tables]
    models = [fit_baselines(s, make_targets(s, H1.horizons).rv, np.arange(500, 1300), H1) for s in alone]
    series = side_by_side(tables, H1)
    together = {family: models_side_by_side([m[family] for m in models]) for family in models[0]}
    view = baseline_view(series, H1, together, last=31)
    nets, trees = net_inputs(series, H1, together, view)[:, 1:], tree_inputs(series, H1, together, view=view.tail(1))
    features = make_features(series, H1, 30)
    for k, one in enumerate(alone):
        np.testing.assert_array_equal(features[k], make_features(one, H1)[-30:])
        np.testing.assert_array_equal(trees[k], tree_inputs(one, H1, models[k])[-1:])
        np.testing.assert_array_equal(nets[k], net_inputs(one, H1, models[k])[-30:])


def test_the_digest_names_every_field():
    spec = make_spec(H1, 65)
    assert spec.digest == make_spec(H1, 65).digest
    assert len(spec.digest) == 64
    for change in ({"window": 66}, {"names": spec.names[:-1]}, {"lookback": 1}, {"horizons": (1,)}, {"version": 2}):
        assert dataclasses.replace(spec, **change).digest != spec.digest
