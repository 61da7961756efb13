"""Rolling sums: right, and the same bits wherever the series starts."""

from __future__ import annotations

import numpy as np
import pytest

from tuning.rolling import ewma, lagged, rolling_maxima, rolling_mean, rolling_minima, rolling_sum, rolling_sums

X = np.random.default_rng(5).normal(size=700)


@pytest.mark.parametrize("window", [1, 2, 3, 7, 24, 120, 480])
def test_against_the_plain_definition(window: int):
    views = np.lib.stride_tricks.sliding_window_view(X, window)
    weights = 0.94 ** np.arange(window)[::-1]
    expected = {
        rolling_sum: views.sum(axis=1),
        rolling_mean: views.mean(axis=1),
        lambda x, k: rolling_maxima(x, (k,))[k]: views.max(axis=1),
        lambda x, k: rolling_minima(x, (k,))[k]: views.min(axis=1),
        ewma: views @ weights / weights.sum(),
    }
    for function, values in expected.items():
        made = function(X, 0.94, window) if function is ewma else function(X, window)
        assert np.isnan(made[: window - 1]).all()
        np.testing.assert_allclose(made[window - 1 :], values, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("window", [3, 24, 120])
def test_the_tail_has_the_bits_of_the_whole(window: int):
    for start in (1, 50, 333):
        np.testing.assert_array_equal(
            rolling_sum(X[start:], window)[window - 1 :], rolling_sum(X, window)[start + window - 1 :]
        )
        np.testing.assert_array_equal(
            ewma(X[start:], 0.94, window)[window - 1 :], ewma(X, 0.94, window)[start + window - 1 :]
        )


def test_a_missing_value_spoils_only_its_own_windows():
    x = X.copy()
    x[0] = np.nan
    assert np.flatnonzero(np.isnan(rolling_sum(x, 24))).tolist() == list(range(24))


def test_a_window_longer_than_the_series_is_all_missing():
    assert np.isnan(rolling_sum(X[:5], 6)).all()
    np.testing.assert_array_equal(lagged(X[:2], 5), [np.nan, np.nan])


@pytest.mark.parametrize("last", [1, 5, 690, 700])
def test_the_last_rows_of_series_side_by_side_have_the_bits_of_each_alone(last: int):
    together = np.stack([X, X[::-1], X**2])
    windows = (1, 3, 24, 120)
    for function in (rolling_sums, rolling_maxima, rolling_minima):
        made = function(together, windows, last)
        for k, x in enumerate(together):
            for window, values in function(x, windows).items():
                np.testing.assert_array_equal(made[window][k], values[-last:])
    np.testing.assert_array_equal(ewma(together, 0.94, 24, last)[1], ewma(together[1], 0.94, 24)[-last:])
    np.testing.assert_array_equal(lagged(together, 3)[2], lagged(together[2], 3))
