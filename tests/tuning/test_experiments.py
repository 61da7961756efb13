"""The honesty experiments, small: the simulated worlds are what they claim, noise promotes nothing, a signal is seen."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from market.bars import validate
from market.timeframes import Timeframe
from tuning import experiments
from tuning.cross_validate import cross_validate
from tuning.experiments import IID_NOISE, NULL, PLANTED, World, simulate
from tuning.presets import load_preset
from tuning.promotion import judge

SMALL = ("EURUSD", "GBPUSD", "USDJPY")
TREES = replace(load_preset("quick"), families=("lightgbm",))


def returns(world: World, seed: int) -> np.ndarray:
    """[n, symbols]"""
    return np.stack([np.diff(np.log(t["close"].to_numpy())) for t in simulate(world, seed).values()], axis=1)


def same_direction(world: World) -> float:
    """Share of bars that go the way of the bar before; bars that did not move a point have no way."""
    signs = np.sign(np.concatenate([returns(world, seed) for seed in range(4)], axis=1))
    moved = (signs[1:] != 0) & (signs[:-1] != 0)
    return float((signs[1:] == signs[:-1])[moved].mean())


def test_bars_are_valid_and_repeatable():
    tables = simulate(World(weeks=3, symbols=SMALL), seed=5)
    for table in tables.values():
        good, bad = validate(table, Timeframe.H1)
        assert bad.num_rows == 0
        assert good.num_rows == 360
    assert simulate(World(weeks=3, symbols=SMALL), seed=5) == tables
    assert simulate(World(weeks=3, symbols=SMALL), seed=6) != tables


def test_the_null_world_has_no_direction_and_the_planted_one_has_55_percent():
    assert same_direction(NULL) == pytest.approx(0.5, abs=0.004)
    assert same_direction(PLANTED) == pytest.approx(0.55, abs=0.004)


def test_the_null_world_has_clustered_and_seasonal_volatility_and_iid_noise_has_neither():
    def clustering(world):
        squared = returns(world, 2) ** 2
        return np.mean([np.corrcoef(x[1:], x[:-1])[0, 1] for x in squared.T])

    def seasonality(world):
        by_hour = (returns(world, 2)[: 77 * 120] ** 2).mean(axis=1).reshape(-1, 24).mean(axis=0)
        return by_hour.max() / by_hour.min()

    assert clustering(World(seasonal=False)) > 0.05
    assert abs(clustering(IID_NOISE)) < 0.03
    assert seasonality(NULL) > 3
    assert seasonality(IID_NOISE) < 1.5


@pytest.mark.parametrize("world", [NULL, IID_NOISE], ids=["garch", "iid"])
@pytest.mark.parametrize("seed", [101, 102])
def test_noise_promotes_nothing(world, seed):
    oof = cross_validate(simulate(replace(world, weeks=40, symbols=SMALL), seed), Timeframe.H1, TREES)
    gate = judge(oof)
    assert not any(gate.passed.values()), f"seed {seed}: {[r.why for r in gate.targets.values() if r.promoted]}"


def test_a_planted_signal_is_seen():
    seed = 103
    oof = cross_validate(simulate(replace(PLANTED, weeks=52, symbols=SMALL), seed), Timeframe.H1, TREES)
    sign1 = judge(oof).targets["sign1"]
    assert sign1.skill > 0, f"seed {seed}"
    assert sign1.t < -2, f"seed {seed}"
    assert sign1.figures["auc"] > 0.53, f"seed {seed}"


def test_summary_of_a_full_edge_is_one():
    full = 1.0 - experiments._entropy(0.55) / np.log(2)
    runs = [{"seed": k, "promoted": [], "sign1": {"skill": full}} for k in range(3)]
    out = experiments.summarise("planted", runs)
    assert out["edge_recovered"] == pytest.approx(1.0)
    assert out["positive_skill_rate"] == 1.0
    assert out["rate"] == 0.0


def test_the_command_writes_json(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(experiments.WORLDS, "iid", replace(IID_NOISE, weeks=30, symbols=SMALL))
    code = experiments.main(["iid", "--seeds", "1", "--preset", "econometric", "--out", str(tmp_path / "x.json")])
    assert code == 0
    written = json.loads((tmp_path / "x.json").read_text())
    assert written == json.loads(capsys.readouterr().out)
    assert {"seeds", "promoted", "rate", "runs"} <= set(written)
    assert experiments.main(["iid", "--preset", "huge"]) == 2
