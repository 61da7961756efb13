"""Labels on four closes, worked out by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from market.timeframes import Timeframe
from tuning.leak_tests import target_shift
from tuning.series import make_series
from tuning.targets import NEVER, lead, make_targets


def test_returns_and_variances_by_hand(make_bars):
    series = make_series(make_bars(("EURUSD",), 6)["EURUSD"], Timeframe.H1)
    targets = make_targets(series, (1, 2))
    r = np.diff(np.log(series.close))
    np.testing.assert_allclose(targets.ret[1], [*r, np.nan])
    np.testing.assert_allclose(targets.ret[2], [*(r[:-1] + r[1:]), np.nan, np.nan])
    np.testing.assert_allclose(targets.rv[1], [*r**2, np.nan])
    np.testing.assert_allclose(targets.rv[2], [*(r[:-1] ** 2 + r[1:] ** 2), np.nan, np.nan])


def test_a_label_ends_with_the_bar_it_needs_last(make_bars):
    series = make_series(make_bars(("EURUSD",), 6)["EURUSD"], Timeframe.H1)
    end = make_targets(series, (1, 2)).label_end
    assert list(end[:4]) == list(series.close_time[2:])
    assert list(end[4:]) == [NEVER, NEVER]


@pytest.mark.parametrize("horizon", [1, 24])
@pytest.mark.parametrize("kind", ["ret", "rv"])
def test_labels_answer_to_the_closes_ahead_and_to_nothing_else(make_bars, horizon: int, kind: str):
    def labels(bars: pa.Table) -> np.ndarray:
        targets = make_targets(make_series(bars, Timeframe.H1), (horizon,))
        return getattr(targets, kind)[horizon]

    bars = make_bars(("EURUSD",), 120)["EURUSD"]
    if kind == "ret":  # a variance answers to the close before its first return as well, which is close t itself
        assert target_shift(labels, bars, horizon, at=(40, 77)).passed
    moved = labels(bars.slice(0, 100))
    np.testing.assert_array_equal(moved[: 100 - horizon], labels(bars)[: 100 - horizon])
    assert np.isnan(moved[100 - horizon :]).all()


def test_lead_past_the_end_is_missing():
    np.testing.assert_array_equal(lead(np.array([1.0, 2.0]), 3), [np.nan, np.nan])
