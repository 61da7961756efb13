"""Bets by hand, and the curves of forecasts whose worth is known."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tuning.test_promotion import made_up
from tuning.contests import contests
from tuning.direction_bets import direction_bets, drawdown, earnings
from tuning.promotion import judge
from tuning.report_bets import bet_words, break_even


def direction(oof):
    return next(c for c in contests(oof) if c.kind == "sign")


def test_drawdown_is_measured_from_the_highest_point_so_far_the_start_included():
    assert drawdown(np.array([-1.0, 3.0, -2.0, -1.0, 5.0])).tolist() == [1.0, 0.0, 2.0, 3.0, 0.0]
    assert drawdown(np.empty(0)).tolist() == []


def test_an_edge_above_its_spread_earns_what_the_gate_says():
    oof = made_up(direction=0.1, spread=1e-6)
    made = earnings(oof, direction(oof))
    gate = judge(oof).targets["sign1"]
    assert made.bets == gate.figures["bets"]
    assert made.gross.mean() == pytest.approx(gate.figures["gross_bp"])
    assert made.net.mean() == pytest.approx(gate.figures["net_bp"] * made.bets / gate.n)
    figures = direction_bets(oof)["sign1"]
    assert figures["basis"] == "net"
    assert figures["break_even_bp"] == pytest.approx(gate.figures["gross_bp"])
    assert figures["deflated_sharpe"] > 0.99
    assert figures["curve"]["net"][-1] == pytest.approx(made.net.sum(), rel=1e-3)


@pytest.mark.parametrize(
    ("spread", "reason"), [(np.nan, "the source has no spread"), (1.0, "no forecast expected more than its spread")]
)
def test_without_bets_the_curve_is_flat_and_says_why(spread, reason):
    figures = direction_bets(made_up(direction=0.1, spread=spread))["sign1"]
    assert (figures["bets"], figures["basis"], figures["reason"]) == (0, "gross", reason)
    assert set(figures["curve"]["net"]) == {0.0}
    assert figures["curve"]["gross"][-1] > 0, "what leaning would have earned before costs is still drawn"
    assert f"less than {figures['break_even_bp']:.2f} bp" in bet_words(figures)
    assert "does not pay at any cost" in break_even(figures | {"break_even_bp": -0.1})


def test_noise_is_deflated_by_the_number_of_trials():
    seed = 12
    oof = made_up(direction=0.0, seed=seed)
    rng = np.random.default_rng(seed)
    for k in range(6):
        family = type(oof.families["stack"])(p_up={1: 0.5 + 0.05 * rng.normal(size=len(oof))})
        oof.families[f"try{k}"] = family
    once, often = (
        direction_bets(oof)["sign1"],
        direction_bets(oof, dict.fromkeys((f"try{k}" for k in range(6)), 20))["sign1"],
    )
    assert (once["trials"], often["trials"]) == (7, 121), "seven families on one target, six of them with 20 settings"
    assert set(once["family_sharpe"]) == {"stack", *(f"try{k}" for k in range(6))}
    assert often["expected_best_sharpe_year"] > once["expected_best_sharpe_year"] > 0
    assert often["deflated_sharpe"] < once["deflated_sharpe"] < 0.95, f"seed {seed}"


def test_a_bet_of_24_bars_counts_a_24th_of_the_capital():
    oof = made_up(direction=0.1, spread=1e-6)
    long = made_up(direction=0.1, spread=1e-6)
    for part in (
        long.ret,
        long.rv,
        long.base_rate,
        *(f.p_up for f in long.families.values()),
        *(f.log_rv for f in long.families.values()),
    ):
        for h in list(part):
            part[24] = part.pop(h)
    long.quantiles = {name: {24: of[1]} for name, of in long.quantiles.items()}
    long.horizons = (24,)
    one, day = earnings(oof, direction(oof)), earnings(long, direction(long))
    assert day.bets == one.bets
    assert day.net.sum() == pytest.approx(one.net.sum() / 24)
