"""The gate on made-up out-of-fold forecasts whose quality is known by construction."""

from __future__ import annotations

import numpy as np
import pytest

from market.forecasts import QUANTILE_LEVELS
from tuning.contests import ECONOMETRIC, losses_by_target
from tuning.metrics import pinball
from tuning.out_of_fold import FamilyForecasts, OutOfFold
from tuning.promotion import GateResult, judge, judge_floor
from tuning.report_words import verdict
from tuning.skill_cards import served_families

SYMBOLS = ("AUDUSD", "EURGBP", "GBPUSD", "USDCAD", "USDCHF", "USDJPY", "XAUUSD")
Z = np.array([-1.645, -1.282, -0.674, 0.0, 0.674, 1.282, 1.645])


def made_up(
    *,
    symbols=SYMBOLS,
    timestamps=1200,
    skill=0.0,
    direction=0.0,
    spread=np.nan,
    lucky_symbol_only=False,
    rollover_only=False,
    lockbox_skill=None,
    seed=11,
):
    """Normal returns with a known variance. Baselines know it up to noise of 0.5; the stack's noise is 0.5 - skill.
    direction: half-width of the true probability around one half, all of it known to the stack."""
    rng = np.random.default_rng(seed)
    s, t = len(symbols), timestamps
    n = s * t
    time = np.repeat(np.datetime64("2019-01-01T00", "us") + np.arange(t) * np.timedelta64(3600_000_000, "us"), s)
    symbol = np.tile(np.arange(s), t)
    fold = np.repeat(np.minimum(np.arange(t) * 6 // t, 5), s)
    fold[fold == 5] = -1
    rollover = np.repeat((np.arange(t) % 24) >= 19, s)
    log_variance = -11.0 + 0.7 * np.repeat(rng.normal(size=t), s) + 0.2 * rng.normal(size=n)
    lean = direction * np.sign(rng.normal(size=n))
    if rollover_only:
        lean[~rollover] = 0.0
    size = np.abs(rng.normal(size=n)) * np.exp(0.5 * log_variance)
    ret = np.where(rng.random(n) < 0.5 + lean, size, -size)
    rv = np.exp(log_variance) * rng.chisquare(8, n) / 8
    families = {name: FamilyForecasts(log_rv={1: log_variance + 0.5 * rng.normal(size=n)}) for name in ECONOMETRIC}
    # The combination of all six is nearly perfect here: the stack must beat it too, so let them share their errors.
    shared = rng.normal(size=n)
    for name in ECONOMETRIC:
        families[name].log_rv[1] = log_variance + 0.48 * shared + 0.05 * rng.normal(size=n)
    noise = np.full(n, 0.5 - skill)
    if lucky_symbol_only:
        noise = np.where(symbol == 0, 0.0, 0.5)
    if lockbox_skill is not None:
        noise[fold == -1] = 0.5 - lockbox_skill
    stack_log_rv = log_variance + noise * (0.96 * shared + 0.1 * rng.normal(size=n))
    p_up = 0.5 + lean + 0.001 * rng.normal(size=n)
    families["stack"] = FamilyForecasts(log_rv={1: stack_log_rv}, p_up={1: p_up})
    har = families["har_how"].log_rv[1]
    return OutOfFold(
        symbols=symbols,
        horizons=(1,),
        symbol=symbol,
        time=time,
        fold=fold,
        rollover=rollover,
        spread=np.full(n, spread),
        rv={1: rv},
        ret={1: ret},
        families=families,
        quantiles={
            "unconditional": {1: np.tile(Z * np.exp(-5.4), (n, 1))},
            "har_how": {1: Z * np.exp(0.5 * har)[:, None]},
            "stack": {1: Z * np.exp(0.5 * stack_log_rv)[:, None]},
        },
        base_rate={1: np.full(n, 0.5) + 0.002 * rng.normal(size=n)},
    )


def failed(result):
    return {c.name for c in result.conditions if not c.passed}


def test_real_skill_is_promoted_and_says_so():
    gate = judge(made_up(skill=0.4, direction=0.1, spread=1e-6))
    assert gate.passed == {"rv1": True, "r1": True, "sign1": True}
    assert gate.promoted
    rv = gate.targets["rv1"]
    assert rv.t < -2
    assert rv.skill > 0.05
    assert rv.why.startswith("rv1 promoted: +")
    assert set(rv.per_symbol) == set(SYMBOLS)


def test_no_skill_is_not_promoted_and_the_reason_is_one_sentence():
    gate = judge(made_up(skill=0.0))
    assert not gate.promoted
    assert not any(gate.passed.values())
    why = gate.targets["rv1"].why
    assert "not promoted" in why
    assert "needed -2" in why
    assert why.endswith(".")
    assert "\n" not in why


def test_the_named_baseline_is_the_best_and_the_stack_must_beat_all_of_them():
    oof = made_up(skill=0.4)
    oof.families["ewma_how"].log_rv[1] = oof.families["stack"].log_rv[1].copy()
    result = judge(oof).targets["rv1"]
    assert result.baseline == "ewma_how"
    assert result.t == 0.0
    assert failed(result) >= {"better_than_ewma_how"}


def test_beating_har_by_a_constant_when_unconditional_is_as_good():
    oof = made_up(skill=0.4)
    oof.quantiles["unconditional"][1] = oof.quantiles["stack"][1]
    result = judge(oof).targets["r1"]
    assert result.baseline == "unconditional"
    assert not result.promoted
    assert result.figures["pinball_skill_window"] == 0.0


def test_pinball_skill_is_over_all_history_and_over_the_training_window():
    oof = made_up(skill=0.4)
    oof.quantiles["unconditional_history"] = {h: 2.0 * q for h, q in oof.quantiles["unconditional"].items()}
    figures = judge(oof).targets["r1"].figures
    window, history = (
        pinball(oof.ret[1], oof.quantiles[name][1])[oof.fold >= 0].mean()
        for name in ("unconditional", "unconditional_history")
    )
    assert figures["pinball_skill_window"] == pytest.approx(1 - figures["pinball"] / window)
    assert figures["pinball_skill"] == pytest.approx(1 - figures["pinball"] / history)
    assert (
        "unconditional_history" not in judge(oof).targets["r1"].figures["baseline_losses"]
    )  # the gate asks the harder one


def test_one_lucky_symbol_does_not_carry_the_panel():
    result = judge(made_up(lucky_symbol_only=True)).targets["rv1"]
    assert result.t < -2, "the panel's average is significantly better"
    assert "better_on_most_symbols" in failed(result)


@pytest.mark.parametrize(("count", "enough"), [(1, False), (2, False), (3, True)])
def test_too_few_symbols_to_tell_skill_from_luck(count, enough):
    result = judge(made_up(symbols=SYMBOLS[:count], skill=0.4)).targets["rv1"]
    assert result.promoted is enough
    assert ("too few to tell skill from luck" in result.why) is not enough


def test_a_lockbox_loss_above_the_baseline_blocks():
    result = judge(made_up(skill=0.4, lockbox_skill=-0.6)).targets["rv1"]
    assert failed(result) == {"lockbox"}


def test_no_lockbox_no_promotion():
    oof = made_up(skill=0.4)
    oof.fold[oof.fold == -1] = 4
    assert failed(judge(oof).targets["rv1"]) == {"lockbox"}


def test_the_serving_champion_must_be_beaten_too():
    oof = made_up(skill=0.4)
    own = losses_by_target(oof)
    result = judge(oof, champion_losses=own).targets["rv1"]
    assert failed(result) == {"better_than_champion"}
    worse = {name: losses * 1.2 + 0.01 for name, losses in own.items()}
    assert judge(oof, champion_losses=worse).targets["rv1"].promoted


def test_a_failed_leak_test_blocks_every_target():
    gate = judge(made_up(skill=0.4, direction=0.1, spread=1e-6), leak_tests={"truncated_future": False})
    assert not any(gate.passed.values())
    assert "leak test truncated future failed" in gate.targets["rv1"].why


def test_nan_constant_and_crossing_forecasts():
    oof = made_up(skill=0.4)
    oof.families["stack"].log_rv[1][::50] = np.nan
    assert "no_nan" in failed(judge(oof).targets["rv1"])
    oof = made_up(skill=0.4)
    oof.families["stack"].log_rv[1][oof.symbol == 3] = -11.0
    assert "not_constant" in failed(judge(oof).targets["rv1"])
    oof = made_up(skill=0.4)
    oof.quantiles["stack"][1][5] = oof.quantiles["stack"][1][5][::-1]
    assert failed(judge(oof).targets["r1"]) == {"monotone_quantiles"}


def test_a_first_fold_that_only_fits_the_stack_is_no_missing_forecast():
    oof = made_up(skill=0.4)
    oof.families["stack"].log_rv[1][oof.fold == 0] = np.nan
    assert judge(oof).targets["rv1"].promoted


def test_direction_that_lives_in_the_rollover_hours():
    result = judge(made_up(direction=0.15, rollover_only=True, spread=1e-6)).targets["sign1"]
    assert result.t < -2
    assert "better_outside_rollover" in failed(result)
    assert result.figures["auc"] > result.figures["auc_ex_rollover"]


def test_direction_without_a_known_spread_has_no_net_figure_and_says_why():
    result = judge(made_up(direction=0.1)).targets["sign1"]
    assert failed(result) == {"net_of_spread"}
    fields = result.to_dict()
    assert fields["net_bp"] is None
    assert fields["net_bp_reason"] == "the source has no spread"
    assert fields["gross_bp"] > 0


def test_direction_that_does_not_pay_for_its_spread():
    fields = judge(made_up(direction=0.1, spread=0.05)).targets["sign1"].to_dict()
    assert fields["net_bp_reason"] == "no forecast expected more than its spread"
    assert not fields["promoted"]


def test_a_suspiciously_good_direction_warns():
    result = judge(made_up(direction=0.3, spread=1e-6)).targets["sign1"]
    assert result.figures["auc"] > 0.58
    assert "look for a leak" in result.warnings[0]


def test_no_skill_is_rarely_promoted_over_seeds():
    promoted = [seed for seed in range(20) if any(judge(made_up(timestamps=600, seed=seed)).passed.values())]
    assert len(promoted) <= 1, f"seeds {promoted}"


def test_quantile_levels_are_the_ones_the_coverage_is_read_from():
    assert QUANTILE_LEVELS[1] == 0.10
    result = judge(made_up(skill=0.5)).targets["r1"]
    assert result.figures["cov80"] == pytest.approx(0.8, abs=0.02)
    assert result.figures["cov90"] == pytest.approx(0.9, abs=0.02)


def test_the_result_is_json():
    import json

    text = json.dumps(judge(made_up()).to_dict(), allow_nan=False)
    assert '"better_than_har_how"' in text


def test_learners_must_add_to_the_econometric_stack():
    oof = made_up(skill=0.4)
    oof.families["econometric_stack"] = FamilyForecasts(log_rv={1: oof.families["stack"].log_rv[1].copy()})
    oof.quantiles["econometric_stack"] = {1: oof.quantiles["stack"][1].copy()}
    gate = judge(oof)
    assert failed(gate.targets["rv1"]) == failed(gate.targets["r1"]) == {"better_than_econometric_stack"}
    assert gate.targets["rv1"].baseline in ECONOMETRIC, "the combination guards, it is not the named baseline"
    floor = judge_floor(oof)
    assert floor.passed == {"rv1": True, "r1": True}
    assert floor.targets["rv1"].baseline in ("unconditional", "har_how")


def test_the_floor_of_a_panel_without_learners_is_the_stack_itself():
    assert judge_floor(made_up(skill=0.0)).passed == {"rv1": False, "r1": False, "sign1": False}
    assert judge_floor(made_up(skill=0.4)).targets["rv1"].promoted


@pytest.mark.parametrize("horizon", [1, 24])
def test_a_direction_that_passes_alone_carries_the_bundle(horizon):
    oof = made_up(direction=0.1, spread=1e-6)
    oof.horizons = (horizon,)
    for by_horizon in (oof.rv, oof.ret, oof.base_rate, *oof.quantiles.values()):
        by_horizon[horizon] = by_horizon.pop(1)
    for family in oof.families.values():
        family.log_rv = {horizon: family.log_rv[1]}
        if family.p_up:
            family.p_up = {horizon: family.p_up[1]}
    gate = judge(oof)
    sign = f"sign{horizon}"
    assert gate.passed == {f"rv{horizon}": False, f"r{horizon}": False, sign: True}
    assert gate.promoted
    assert gate.serves == {sign}
    assert gate.primary == (f"rv{horizon}", f"r{horizon}")
    assert gate.why == gate.targets[sign].why
    assert gate.why.startswith(f"{sign} promoted: +")


def test_where_nothing_carries_every_carrier_says_why():
    gate = judge(made_up(skill=0.0))
    assert gate.carriers == ("rv1", "r1", "sign1")
    assert gate.why == " ".join(gate.targets[name].why for name in gate.carriers)


def test_a_shorter_horizon_alone_carries_no_bundle_and_is_not_served():
    gate = GateResult(judge(made_up(skill=0.4)).targets, ("rv24", "r24"))
    assert gate.passed["rv1"]
    assert not gate.promoted
    assert gate.serves == frozenset()
    assert served_families(gate, judge_floor(made_up(skill=0.0)))["rv1"] == "har_how"
    lines = verdict({"promoted": gate.promoted, "targets": gate.to_dict()})
    assert lines[0] == "Nothing was promoted: rv1, r1 passed, but a shorter horizon alone carries no model."


def test_a_price_that_does_not_move_has_no_skill():
    oof = made_up(skill=0.4)
    still = oof.symbol == 3
    oof.ret[1][still] = 0.0
    for quantiles in oof.quantiles.values():
        quantiles[1][still] = 0.0
    result = judge(oof).targets["r1"]
    assert np.isnan(result.per_symbol[SYMBOLS[3]]["skill"])
    assert failed(result) == {"not_constant"}
    oof.ret[1][:] = 0.0
    for quantiles in oof.quantiles.values():
        quantiles[1][:] = 0.0
    assert not judge(oof).targets["r1"].promoted
