"""Live skill: the arithmetic of the evaluation on recorded forecasts, said from enough closes on, and bounded."""

from __future__ import annotations

import random
from datetime import timedelta

import numpy as np
import pytest

from actors.live_losses import CLOSES_KEPT, SPARE, LiveLosses, closes_needed, losses_of
from market.forecasts import QUANTILE_LEVELS
from tests.actors.test_live_judge import MONDAY, WALL, H, settled
from tuning.metrics import log_loss, pinball, qlike
from tuning.significance import hac_test, panel_mean

PAIRS = ("EURUSD", "GBPUSD")


def filled(n: int, **given: float) -> LiveLosses:
    kept = LiveLosses(PAIRS, (1, H), WALL)
    for seed, symbol in enumerate(PAIRS):
        kept.take(settled(n, seed=seed, symbol=symbol, **given))
    return kept


def test_losses_are_those_of_the_evaluation() -> None:
    rows = settled(40, sigma=0.006, p_up=0.6)
    rv = np.array([row.outcome["volatility"] for row in rows]) ** 2
    ret = np.array([row.outcome["return"] for row in rows])
    own = np.array([[row.horizon["quantiles"][str(level)] for level in QUANTILE_LEVELS] for row in rows])
    found = losses_of(rows)
    np.testing.assert_allclose(found[:, 0, 0], qlike(rv, np.full(len(rows), 0.006**2)))
    np.testing.assert_allclose(found[:, 0, 1], qlike(rv, np.full(len(rows), 0.004**2)))
    np.testing.assert_allclose(found[:, 1, 0], pinball(ret, own))
    np.testing.assert_allclose(found[:, 2, 0], log_loss((ret > 0).astype(float), np.full(len(rows), 0.6)))
    np.testing.assert_allclose(found[:, 2, 1], log_loss((ret > 0).astype(float), np.full(len(rows), 0.5)))


@pytest.mark.parametrize("target", [f"{kind}{bars}" for kind in ("rv", "r", "sign") for bars in (1, H)])
def test_live_skill_pools_symbols_per_close_and_tests_as_the_judge_does(target: str) -> None:
    figures = filled(300, sigma=0.006, p_up=0.55).figures()
    k = ("rv", "r", "sign").index(target.rstrip("0123456789"))
    bars = int(target.lstrip("rvsign"))
    rows = [row for seed, s in enumerate(PAIRS) for row in settled(300, seed=seed, symbol=s, sigma=0.006, p_up=0.55)]
    rows = [row for row in rows if row.horizon["bars"] == bars]
    time = np.array([row.as_of.replace(tzinfo=None) for row in rows], "datetime64[us]")
    (_, own), (_, other) = (panel_mean(losses_of(rows)[:, k, side], time) for side in (0, 1))
    figure = figures[target, None]
    assert figure.value == pytest.approx(1 - own.mean() / other.mean())
    assert figure.t == pytest.approx(hac_test(own - other, bars).t)
    assert (figure.n, figure.since, figure.reason) == (600, MONDAY, "")
    assert figure.coverage80 == pytest.approx(0.8)
    one = figures[target, "GBPUSD"]
    mine = losses_of([row for row in rows if row.symbol == "GBPUSD"])[:, k]
    assert one.value == pytest.approx(1 - mine[:, 0].mean() / mine[:, 1].mean())
    assert one.n == 300


def test_too_few_outcomes_say_how_many_are_needed() -> None:
    needed = closes_needed(H)
    few, enough = (filled(n, sigma=0.006).figures()["rv24", None] for n in (needed - 1, needed))
    assert (few.value, few.t, few.n) == (None, None, 2 * (needed - 1))
    assert few.reason == "95 closes have known outcomes of the forecast and its baseline; 96 are needed."
    assert enough.value is not None
    assert enough.t is not None
    empty = filled(0).figures()["rv24", "EURUSD"]
    assert (empty.value, empty.n, empty.since, empty.coverage80) == (None, 0, None, None)
    assert empty.reason.startswith("0 closes")


def test_the_baseline_itself_has_no_skill_and_no_t_out_of_rounding() -> None:
    rows = settled(300)
    for row in rows:
        row.horizon["volatility"] *= 1 + 1e-15
    kept = LiveLosses(("EURUSD",), (1, H), WALL)
    kept.take(rows)
    figure = kept.figures()["rv24", None]
    assert figure.value == pytest.approx(0, abs=1e-12)
    assert figure.t == 0.0


def test_the_order_of_outcomes_does_not_matter_and_a_hole_is_none() -> None:
    rows = [row for row in settled(200, sigma=0.006) if row.as_of != MONDAY + timedelta(hours=50)]
    straight, mixed = LiveLosses(("EURUSD",), (1, H), WALL), LiveLosses(("EURUSD",), (1, H), WALL)
    straight.take(rows)
    shuffled = rows.copy()
    random.Random(3).shuffle(shuffled)
    for first in range(0, len(shuffled), 7):
        mixed.take(shuffled[first : first + 7])
    assert straight.figures()["rv24", None].n == 199
    for key, figure in straight.figures().items():
        other = mixed.figures()[key]
        assert (figure.value, figure.n, figure.since) == (pytest.approx(other.value), other.n, other.since)


def test_the_newest_closes_count_and_memory_does_not_grow() -> None:
    n = CLOSES_KEPT + SPARE + 10
    rows = settled(n, sigma=0.006)
    kept, late = LiveLosses(("EURUSD",), (1, H), WALL), LiveLosses(("EURUSD",), (1, H), WALL)
    kept.take(rows)
    late.take(rows[2 * (n - CLOSES_KEPT) :])
    assert kept.figures() == late.figures()
    assert kept.skipped == SPARE
    assert len(kept.tenure_losses("rv24")[0]) + kept.skipped == n
    kept.take(rows[:2])  # far too old
    assert kept.figures() == late.figures()
