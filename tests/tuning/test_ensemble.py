"""What serves: fallbacks where the gate said no, bytes that survive the disk, tails that are enough."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from market.errors import BundleRefused
from market.forecasts import QUANTILE_LEVELS, HorizonForecast
from market.timeframes import Timeframe
from tuning.cross_validate import cross_validate
from tuning.ensemble import Ensemble
from tuning.final_fit import fit_ensemble
from tuning.leak_battery import tail_forecast
from tuning.presets import Boosting, Nets, Preset

H1 = Timeframe.H1
SMALL = Preset(
    "small",
    families=("lightgbm", "xgboost", "lstm", "attention"),
    boosting=Boosting(trees=6, leaves=4, min_rows_in_leaf=50),
    nets=Nets(hidden=4, steps=4, warm_up=16, body=32, batch=8),
)
ALL = ("rv1", "r1", "sign1", "rv24", "r24", "sign24")


@pytest.fixture(scope="module")
def out(two_symbols):
    return cross_validate(two_symbols, H1, replace(SMALL, families=()))


@pytest.fixture(scope="module")
def econometric(two_symbols, out) -> Ensemble:
    return fit_ensemble(two_symbols, H1, replace(SMALL, families=()), out, dict.fromkeys(ALL, True))


@pytest.fixture(scope="module")
def stacked(two_symbols, out) -> Ensemble:
    """Every family in use, whatever it is worth: weights are set by hand."""
    weights = {
        "rv1": {"har_range": 1.0},
        "rv24": {"har_range": 0.4, "lightgbm": 0.2, "xgboost": 0.2, "lstm": 0.1, "attention": 0.1},
        "sign1": {"lightgbm": 0.3, "xgboost": 0.3, "lstm": 0.2, "base_rate": 0.2},
        "sign24": {"attention": 0.5, "base_rate": 0.5},
    }
    families = dict(out.families)
    for family in SMALL.families:  # their out-of-fold forecasts stand in for learners that found nothing
        families[family] = replace(out.families["har_range"], p_up={})
    chosen = replace(out, stack_weights=weights, families=families)
    return fit_ensemble(two_symbols, H1, SMALL, chosen, dict.fromkeys(ALL, True))


@pytest.mark.parametrize("name", ["econometric", "stacked"])
def test_a_forecast_is_complete_and_consistent(request, two_symbols, name: str):
    ensemble: Ensemble = request.getfixturevalue(name)
    for symbol, horizons in ensemble.forecast(two_symbols).items():
        close = two_symbols[symbol]["close"][-1].as_py()
        assert [one.bars for one in horizons] == [1, 24]
        for one in horizons:
            assert 0 < one.volatility < 0.1
            assert 0.2 < one.volatility_ratio < 5
            assert list(one.quantiles) == [str(level) for level in QUANTILE_LEVELS]
            values = list(one.quantiles.values())
            assert values == sorted(values)
            assert one.price_quantiles["0.5"] == pytest.approx(close * np.exp(one.quantiles["0.5"]))
            assert 0 < one.p_up < 1
            assert one.reason == ""


def test_the_target_time_steps_over_the_weekend(econometric, two_symbols):
    as_of = two_symbols["EURUSD"]["close_time"]
    friday = next(k for k in range(3000, 3200) if as_of[k].as_py().weekday() == 4 and as_of[k].as_py().hour == 20)
    made = econometric.forecast({"EURUSD": two_symbols["EURUSD"].slice(0, friday + 1)})["EURUSD"]
    hours = [(one.target_time - as_of[friday].as_py()).total_seconds() / 3600 for one in made]
    assert hours[1] == 24 + 48


@pytest.mark.parametrize("name", ["econometric", "stacked"])
def test_loaded_from_disk_it_forecasts_the_same_bytes(request, two_symbols, tmp_path: Path, name: str):
    ensemble: Ensemble = request.getfixturevalue(name)
    ensemble.save(tmp_path)
    loaded = Ensemble.load(tmp_path)
    assert loaded.forecast(two_symbols) == ensemble.forecast(two_symbols)
    assert loaded.spec_digest == ensemble.spec_digest
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} <= {".json", ".txt", ".ubj", ".safetensors"}


@pytest.mark.parametrize("name", ["econometric", "stacked"])
def test_the_tail_is_enough(request, two_symbols, name: str):
    ensemble: Ensemble = request.getfixturevalue(name)
    tail = {symbol: table.slice(table.num_rows - ensemble.bars_needed) for symbol, table in two_symbols.items()}
    assert ensemble.forecast(tail) == ensemble.forecast(two_symbols)
    assert tail_forecast(ensemble, two_symbols).passed


def test_a_model_that_asks_for_too_few_bars_is_caught(stacked, two_symbols):
    """`forecast` itself never looks further back than `bars_needed`: the whole history has to be asked for."""
    hasty = replace(stacked, spec=replace(stacked.spec, window=1))
    result = tail_forecast(hasty, two_symbols)
    assert not result.passed


def test_one_symbol_alone_gets_what_it_gets_in_company(stacked, two_symbols):
    for symbol, together in stacked.forecast(two_symbols).items():
        alone = stacked.forecast({symbol: two_symbols[symbol]})[symbol]
        for first, second in zip(together, alone, strict=True):
            _assert_alike(first, second)


def test_symbols_with_histories_of_different_length_get_what_they_get_alone(stacked, two_symbols):
    bars = two_symbols | {"EURUSD": two_symbols["EURUSD"].slice(900)}
    whole = stacked.forecast_from_all(bars)
    for symbol, horizons in stacked.forecast(two_symbols).items():
        for first, second in zip(whole[symbol], horizons, strict=True):
            _assert_alike(first, second)


def _assert_alike(first: HorizonForecast, second: HorizonForecast) -> None:
    assert first.target_time == second.target_time
    assert first.volatility == pytest.approx(second.volatility, rel=1e-6)
    assert first.p_up == pytest.approx(second.p_up, rel=1e-6)
    assert first.quantiles == pytest.approx(second.quantiles, rel=1e-6)
    assert first.price_quantiles == pytest.approx(second.price_quantiles, rel=1e-6)
    assert first.baseline.quantiles == pytest.approx(second.baseline.quantiles, rel=1e-6)


def test_fitted_twice_it_is_the_same_artefact(econometric, two_symbols, out, tmp_path: Path):
    again = fit_ensemble(two_symbols, H1, replace(SMALL, families=()), out, dict.fromkeys(ALL, True))
    for ensemble, folder in ((econometric, tmp_path / "a"), (again, tmp_path / "b")):
        ensemble.save(folder)
    assert (tmp_path / "a" / "ensemble.json").read_bytes() == (tmp_path / "b" / "ensemble.json").read_bytes()


def test_what_did_not_pass_falls_back_to_the_baseline(two_symbols, out):
    ensemble = fit_ensemble(two_symbols, H1, replace(SMALL, families=()), out, {"rv24": True})
    assert ensemble.weights["rv24"] == out.stack_weights["rv24"]
    assert ensemble.weights["r24"] == ensemble.weights["rv1"] == {"har_how": 1.0}
    for symbol, horizons in ensemble.forecast(two_symbols).items():
        for one in horizons:
            assert one.p_up == pytest.approx(ensemble.base_rate[one.bars][symbol])


def test_a_symbol_too_short_for_the_final_fit_leaves_the_others_as_they_were(make_bars):
    """The quantiles of the symbols that stay come from their own out-of-fold rows, whatever number they had there."""
    whole = make_bars(("AUDUSD", "EURUSD", "GBPUSD"), 3200)
    short = whole | {"AUDUSD": whole["AUDUSD"].slice(3200 - 560)}  # 78 rows past the look-back
    preset = replace(SMALL, families=())
    out = cross_validate(short, H1, preset)
    assert out.symbols[0] == "AUDUSD"
    fitted = fit_ensemble(short, H1, preset, out, dict.fromkeys(ALL, True))
    alone = {s: t for s, t in short.items() if s != "AUDUSD"}
    expected = fit_ensemble(alone, H1, preset, cross_validate(alone, H1, preset), dict.fromkeys(ALL, True))
    assert fitted.symbols == expected.symbols == ("EURUSD", "GBPUSD")
    assert fitted.z_quantiles == expected.z_quantiles


def test_learners_without_weight_are_not_fitted(two_symbols, out):
    ensemble = fit_ensemble(two_symbols, H1, SMALL, out, dict.fromkeys(ALL, True))
    assert ensemble.learners == {}


def test_unknown_symbols_and_short_tails_say_so(econometric, two_symbols):
    table = two_symbols["EURUSD"]
    made = econometric.forecast({"EURUSD": table.slice(0, 40), "USDJPY": table})
    assert made["EURUSD"][0].volatility is None
    assert made["EURUSD"][0].reason == f"40 bars, {econometric.bars_needed} are needed"
    assert made["USDJPY"][1].reason == "the model was not trained on USDJPY"
    assert econometric.forecast({}) == {}


def test_a_model_of_other_features_is_refused(econometric, tmp_path: Path):
    econometric.save(tmp_path)
    path = tmp_path / "ensemble.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"spec_digest": "0" * 64}))
    with pytest.raises(BundleRefused, match="other features"):
        Ensemble.load(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"timeframe": "H1"}'])
def test_a_damaged_model_is_refused(tmp_path: Path, content: str):
    (tmp_path / "ensemble.json").write_text(content)
    with pytest.raises(BundleRefused, match="cannot be read"):
        Ensemble.load(tmp_path)


def test_a_family_that_leads_outside_is_refused(stacked, tmp_path: Path):
    stacked.save(tmp_path / "outside")
    (tmp_path / "model").mkdir()
    fields = json.loads((tmp_path / "outside" / "ensemble.json").read_text()) | {"learners": ["../outside/lstm"]}
    (tmp_path / "model" / "ensemble.json").write_text(json.dumps(fields))
    with pytest.raises(BundleRefused, match="no family of learners"):
        Ensemble.load(tmp_path / "model")


def test_a_net_that_wants_more_bars_than_the_model_asks_for_is_refused(stacked, tmp_path: Path):
    replace(stacked, spec=replace(stacked.spec, window=2)).save(tmp_path)
    with pytest.raises(BundleRefused, match="wants more bars"):
        Ensemble.load(tmp_path)


def test_a_missing_model_is_refused(tmp_path: Path):
    with pytest.raises(BundleRefused, match="cannot be read"):
        Ensemble.load(tmp_path / "nowhere")
