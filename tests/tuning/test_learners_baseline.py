"""The econometric baselines: season, fit, calendar, and the known order of their quality on recorded bars."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from market.errors import NotEnoughBars
from market.timeframes import Timeframe
from tuning.learners.baseline import (
    BASELINES,
    Season,
    VarianceModel,
    fit_baselines,
    fit_gamma,
    fit_season,
    lookback,
)
from tuning.series import make_series
from tuning.targets import make_targets

H1 = Timeframe.H1


@pytest.fixture(scope="module")
def fitted(make_bars):
    series = make_series(make_bars(("EURUSD",), 3000)["EURUSD"], H1)
    targets = make_targets(series, H1.horizons)
    return series, targets, fit_baselines(series, targets.rv, np.arange(500, 2000), H1)


def test_the_season_ahead_is_the_sum_over_the_next_traded_places():
    season = Season(np.array([1.0, 2.0, 3.0, 4.0, 99.0]), np.array([True, True, True, True, False]))
    assert season.ahead(2).tolist() == [5.0, 7.0, 5.0, 3.0, 3.0]  # place 4 is never traded: 3 is followed by 0
    assert season.ahead(8).tolist() == [20.0] * 5


def test_a_place_that_is_hardly_ever_traded_is_not_expected():
    position = np.tile(np.arange(120), 30)
    squared = np.ones(len(position))
    position = np.append(position, 121)
    season = fit_season(position, np.append(squared, 1.0), H1)
    assert np.flatnonzero(season.traded).tolist() == list(range(120))


def test_the_season_finds_the_busy_hours(fitted):
    _, _, models = fitted
    factor = models["har_how"].season.factor[:120].reshape(5, 24)
    hour_utc = (np.arange(24) + 22) % 24  # place 0 is 17:00 New York, 22:00 UTC in winter
    busy, quiet = factor[:, np.isin(hour_utc, (13, 14, 15))].mean(), factor[:, np.isin(hour_utc, (1, 2, 3))].mean()
    assert busy > 2.5 * quiet
    assert factor.mean() == pytest.approx(1.0)


def test_gamma_regression_recovers_its_coefficients_with_zeros_in_the_labels():
    rng = np.random.default_rng(0)
    x = np.stack([np.ones(20_000), rng.normal(size=20_000), rng.normal(size=20_000)], axis=1)
    y = np.exp(x @ [-9.0, 0.5, -0.2]) * rng.gamma(0.5, 2.0, 20_000)
    y[:50] = 0.0
    np.testing.assert_allclose(fit_gamma(x, y), [-9.0, 0.5, -0.2], atol=0.05)


@pytest.mark.parametrize("family", BASELINES)
@pytest.mark.parametrize("h", H1.horizons)
def test_forecasts_are_means_on_the_training_rows(fitted, family: str, h: int):
    series, targets, models = fitted
    rows = np.arange(500, 2000)
    ratio = targets.rv[h][rows] * np.exp(-models[family].log_rv(series)[h][rows])
    assert ratio.mean() == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("family", BASELINES)
def test_a_forecast_needs_its_look_back_and_nothing_older(fitted, family: str):
    series, _, models = fitted
    need = lookback(H1)
    tail = replace(series, **{f.name: getattr(series, f.name)[-need:] for f in fields(series) if f.name != "symbol"})
    tail.log_return[0] = np.nan  # as make_series would have it
    for h, values in models[family].log_rv(series).items():
        assert models[family].log_rv(tail)[h][-1] == values[-1]


def test_a_model_survives_json_to_the_bit(fitted):
    series, _, models = fitted
    for model in models.values():
        again = VarianceModel.from_dict(json.loads(json.dumps(model.to_dict())))
        for h, values in model.log_rv(series).items():
            np.testing.assert_array_equal(again.log_rv(series)[h], values)


def test_too_few_rows_is_an_error(fitted):
    series, targets, _ = fitted
    with pytest.raises(NotEnoughBars, match="99 training rows, 100 are needed"):
        fit_baselines(series, targets.rv, np.arange(500, 599), H1)
