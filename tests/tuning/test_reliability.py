"""Shares and their bands on forecasts whose reliability is known by construction."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.tuning.test_promotion import SYMBOLS, made_up
from tuning.evaluate import finite
from tuning.reliability import SESSIONS, calibration, coverage_by_group, hac_share, probability_bins, session_of

HOUR = np.timedelta64(3600, "s")


def hours(n: int) -> np.ndarray:
    return np.datetime64("2023-01-02T00", "us") + np.arange(n) * HOUR


def test_a_share_of_independent_rows_has_about_the_binomial_band():
    seed, n = 1, 4000
    hits = np.random.default_rng(seed).random(n) < 0.8
    found = hac_share(hits, np.ones(n, bool), hours(n), 1)
    assert found.value == hits.mean()
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * np.sqrt(0.16 / n), rel=0.25), f"seed {seed}"
    assert (found.n, found.timestamps) == (n, n)


def test_rows_that_move_together_widen_the_band():
    seed, n = 2, 2000
    shared = np.repeat(np.random.default_rng(seed).random(n) < 0.8, 7)  # seven symbols, one shock
    time = np.repeat(hours(n), 7)
    found = hac_share(shared, np.ones(7 * n, bool), time, 1)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * np.sqrt(0.16 / n), rel=0.3), f"seed {seed}"
    slow = np.repeat(np.random.default_rng(seed).random(n // 24 + 1) < 0.8, 24)[:n]  # a day, one outcome
    wide = hac_share(slow, np.ones(n, bool), hours(n), 24)
    assert (wide.high - wide.low) / 2 > 3 * 1.96 * np.sqrt(0.16 / n), f"seed {seed}"


def test_the_band_holds_the_truth_as_often_as_it_says():
    """Overlapping outcomes in one session only, which leaves holes between its bars."""
    seed, runs, n = 3, 300, 3000
    rng, rows, inside = np.random.default_rng(seed), np.arange(n) % 24 < 8, 0
    for _ in range(runs):
        shocks = np.convolve(rng.normal(size=n + 23), np.ones(24), mode="valid") / np.sqrt(24)
        found = hac_share(shocks < 0.8416, rows, hours(n), 24)  # 80 % of a standard normal
        inside += found.low <= 0.8 <= found.high
    assert 0.89 <= inside / runs <= 0.99, f"seed {seed}: {inside} of {runs}"


@pytest.mark.parametrize("value", [True, False])
def test_a_share_of_all_or_none_is_not_certain(value):
    found = hac_share(np.full(50, value), np.ones(50, bool), hours(50), 1)
    assert found.low == (1.0 - found.high if value else 0.0) or found.low < 1.0
    assert found.high - found.low > 0.02


def test_no_rows_have_no_share():
    found = hac_share(np.ones(5, bool), np.zeros(5, bool), hours(5), 1)
    assert np.isnan(found.value)
    assert found.n == 0


@pytest.mark.parametrize(
    ("utc", "session"),
    [
        ("2023-01-03T22:00", "Rollover"),  # 17:00 New York in winter
        ("2023-01-03T23:00", "Rollover"),
        ("2023-01-04T00:00", "Asia"),
        ("2023-01-04T08:00", "London"),
        ("2023-07-04T07:00", "London"),  # the same New York hour in summer
        ("2023-01-04T13:00", "New York"),
        ("2023-01-04T19:00", "Rollover"),
    ],
)
def test_sessions_are_told_in_new_york(utc, session):
    assert session_of(np.array([utc], "datetime64[us]")).tolist() == [session]


def test_sessions_are_the_whole_day_and_the_rollover_is_the_gate_s():
    from tuning.series import is_rollover

    assert sorted(hour for hours_ in SESSIONS.values() for hour in hours_) == list(range(24))
    time = hours(24 * 5)
    assert ((session_of(time) == "Rollover") == is_rollover(time)).all()


def test_intervals_that_are_too_narrow_are_seen_in_the_session_where_they_are():
    oof = made_up(timestamps=3000)
    q = oof.quantiles["stack"][1].copy()
    q[session_of(oof.time) == "London"] *= 0.5
    found = coverage_by_group(oof, q, 1, 0.8)
    assert found["session"]["London"]["high"] < 0.7
    assert found["session"]["Asia"]["low"] <= 0.8 <= found["session"]["Asia"]["high"] + 0.02
    assert set(found["symbol"]) == set(SYMBOLS)
    assert found["all"]["all"]["n"] == sum(one["n"] for one in found["symbol"].values())


def test_probabilities_that_are_right_lie_in_their_bands_and_constant_ones_make_one_group():
    oof = made_up(direction=0.1, timestamps=3000)
    bins = probability_bins(oof, oof.families["stack"].p_up[1], 1)
    assert all(one["low"] - 0.01 <= one["said"] <= one["high"] + 0.01 for one in bins)
    assert {round(one["value"], 1) for one in bins} == {0.4, 0.6}
    flat = probability_bins(oof, np.full(len(oof), 0.5), 1)
    assert len(flat) == 1
    assert flat[0]["n"] == int((oof.fold >= 0).sum())


def test_calibration_has_every_kind_and_is_json():
    oof = made_up()
    found = finite(calibration(oof, "stack"))
    assert set(found) == {"r1", "sign1"}
    assert set(found["r1"]["coverage"]) == {"80", "90"}
    assert [one["level"] for one in found["r1"]["quantiles"]] == [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]
    json.dumps(found, allow_nan=False)
