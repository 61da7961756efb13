"""The yardstick the learners see: from the training part only, looking back only."""

from __future__ import annotations

import numpy as np

from market.timeframes import Timeframe
from tuning.features import lookback
from tuning.learners.baseline import fit_baselines
from tuning.scaling import YARDSTICK, net_inputs, tree_inputs
from tuning.series import make_series
from tuning.targets import make_targets

H1 = Timeframe.H1


def test_bars_after_the_training_rows_do_not_move_the_yardstick(make_bars):
    table = make_bars(("EURUSD",), 2000)["EURUSD"]
    rows = np.arange(500, 1400)
    made = []
    for n in (1424 + 1, 2000):  # the last label just known, and much later
        series = make_series(table.slice(0, n), H1)
        models = fit_baselines(series, make_targets(series, H1.horizons).rv, rows, H1)
        made.append(
            (models[YARDSTICK].to_dict(), net_inputs(series, H1, models)[:1400], tree_inputs(series, H1, models)[:1400])
        )
    (model, nets, trees), (model_later, nets_later, trees_later) = made
    assert model == model_later
    np.testing.assert_array_equal(nets, nets_later)
    np.testing.assert_array_equal(trees, trees_later)


def test_inputs_are_complete_past_the_look_back(make_bars):
    series = make_series(make_bars(("EURUSD",), 1500)["EURUSD"], H1)
    models = fit_baselines(series, make_targets(series, H1.horizons).rv, np.arange(500, 1400), H1)
    assert np.isfinite(tree_inputs(series, H1, models)[lookback(H1) :]).all()
    assert (net_inputs(series, H1, models)[lookback(H1) :].std(axis=0) > 0).all()
