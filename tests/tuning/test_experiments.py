"""The honesty experiments, small: the simulated worlds are what they claim, noise promotes nothing, a signal is seen.

And they can fail: a gate that lets everything through, a shuffled split and a forecast that sees nothing are all found out.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import honesty
from market.bars import validate
from market.errors import InputError
from market.timeframes import Timeframe
from tests.tuning.test_leak_battery import shuffled
from tuning import experiments, leak_battery, panel
from tuning.experiment_criteria import clopper_pearson, recovered_edge, summarise
from tuning.experiments import judge_seed
from tuning.presets import Boosting, load_preset
from tuning.promotion import GateResult, judge
from tuning.worlds import IID_NOISE, NULL, PLANTED, World, simulate, write_bars

SMALL = ("EURUSD", "GBPUSD", "USDJPY")
TREES = replace(load_preset("quick"), families=("lightgbm",))
ECONOMETRIC = load_preset("econometric")
NOISE_SEEDS = (101, 102)
PLANTED_SEED = 103


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


def met(name: str, rows: list[dict], accuracy: float) -> dict[str, bool]:
    return {c["name"]: c["passed"] for c in summarise(name, rows, accuracy)["criteria"]}


@pytest.mark.parametrize("world", [NULL, IID_NOISE], ids=["garch", "iid"])
def test_noise_meets_every_criterion(world):
    rows = [judge_seed(replace(world, weeks=40, symbols=SMALL), seed, TREES) for seed in NOISE_SEEDS]
    assert met("null", rows, 0.5) == {
        "nothing is promoted on noise": True,
        "no family finds a direction in noise": True,
        "leak tests pass (null)": True,
    }, f"seeds {NOISE_SEEDS}: {rows}"


@pytest.fixture(scope="module")
def planted_row():
    return judge_seed(replace(PLANTED, weeks=52, symbols=SMALL), PLANTED_SEED, TREES)


def test_a_planted_signal_is_seen(planted_row):
    sign1 = planted_row["targets"]["sign1"]
    assert sign1["skill"] > 0, f"seed {PLANTED_SEED}"
    assert sign1["t"] < -2, f"seed {PLANTED_SEED}"
    assert sign1["auc"] > 0.53, f"seed {PLANTED_SEED}"
    assert met("planted", [planted_row], 0.55)["the planted edge shows in the log-loss"], f"seed {PLANTED_SEED}"
    assert planted_row["leaks"] == []


def test_a_gate_that_always_promotes_is_found_out(monkeypatch):
    def always(*given, **named):
        gate = judge(*given, **named)
        return GateResult({name: replace(r, promoted=True) for name, r in gate.targets.items()}, gate.primary)

    monkeypatch.setattr(experiments, "judge", always)
    row = judge_seed(World(weeks=26, symbols=SMALL), 7, ECONOMETRIC)
    assert not met("null", [row], 0.5)["nothing is promoted on noise"]


def test_a_shuffled_split_is_found_out(monkeypatch):
    """In iid noise it lets trees see the answer in their neighbours; the stack's own guard keeps the gate shut all the same."""
    for module in (panel, leak_battery):
        monkeypatch.setattr(module, "purged_walk_forward", shuffled)
    eager = replace(TREES, boosting=Boosting(trees=60, leaves=63, min_rows_in_leaf=3, learning_rate=0.1))
    row = judge_seed(replace(IID_NOISE, weeks=26, symbols=SMALL), 8, eager)
    found = met("null", [row], 0.5)
    assert not found["leak tests pass (null)"], row
    assert not found["no family finds a direction in noise"], row


def test_a_forecast_that_sees_nothing_recovers_nothing():
    row = judge_seed(replace(NULL, weeks=26, symbols=SMALL), 9, ECONOMETRIC)
    found = met("planted", [row], 0.55)
    assert not found["the planted edge is recovered"]
    assert not found["the planted edge shows in the log-loss"]


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(0, 40, 0.0, 0.0881), (2, 40, 0.0061, 0.1692), (36, 40, 0.7634, 0.9721), (3, 3, 0.2924, 1)],
)
def test_literal_clopper_pearson_intervals(hits, n, low, high):
    assert clopper_pearson(hits, n) == pytest.approx([low, high], abs=1e-4)


def test_the_whole_edge_is_one_and_a_negative_skill_counts_against_it():
    full = 1.0 + (0.55 * np.log(0.55) + 0.45 * np.log(0.45)) / np.log(2)
    assert full == pytest.approx(0.00722, abs=1e-5)
    assert recovered_edge([full] * 3, 0.55)["edge_recovered"] == pytest.approx(1.0)
    assert recovered_edge([full / 4], 0.55)["edge_recovered"] == pytest.approx(0.5), (
        "half the edge is a quarter of the skill"
    )
    mixed = recovered_edge([full, -full, full], 0.55)
    assert mixed["edge_recovered"] == pytest.approx(1 / 3)
    assert mixed["positive_skill"] == 2
    low, high = mixed["edge_interval"]
    assert low < 1 / 3 < high


def made_row(seed: int, promoted: tuple[str, ...] = (), skill: float = 0.005, leaks: tuple[str, ...] = ()) -> dict:
    sign1 = {"skill": skill, "t": -3.0, "families": {"stack": 0.0}}
    kept = {"promoted": list(promoted), "passed": list(promoted), "leaks": list(leaks), "targets": {"sign1": sign1}}
    return {"seed": seed, "cpu_seconds": 1.0} | kept


def test_two_of_forty_promoted_are_met_and_three_are_not():
    rows = [made_row(k, ("rv24",) if k < 2 else ()) for k in range(40)]
    assert all(met("null", rows, 0.5).values())
    rows[39] = made_row(39, ("r24",))
    out = summarise("null", rows, 0.5)
    assert not out["criteria"][0]["passed"]
    assert (out["promoted"], out["rate"], out["promoted_seeds"]) == (3, 0.075, [0, 1, 39])
    assert out["passed_by_target"] == {"sign1": 0}


def test_a_failed_leak_test_fails_the_experiment():
    assert not met("planted", [made_row(0), made_row(1, leaks=("target_shift",))], 0.55)["leak tests pass (planted)"]


@pytest.fixture
def made_up(monkeypatch):
    """judge_seed replaced by an instant one; the seeds it was asked for, in order. `broken`: the call that dies."""
    asked: list[tuple[float, int]] = []
    state = {"broken": -1}

    def instant(world, seed, preset):
        if len(asked) == state["broken"]:
            raise KeyboardInterrupt
        asked.append((world.accuracy, seed))
        return made_row(seed)

    monkeypatch.setattr(experiments, "judge_seed", instant)
    return asked, state


def test_a_stopped_run_is_continued_where_it_was(made_up, tmp_path, capsys):
    asked, state = made_up
    file = tmp_path / "a new folder" / "x.json"
    arguments = ["all", "--seeds", "3", "--out", str(file)]
    state["broken"] = 3
    assert experiments.main(arguments) == 130
    kept = json.loads(file.read_text())["experiments"]
    assert [[row["seed"] for row in kept[name]["runs"]] for name in ("null", "planted")] == [[0, 1], [0]]
    state["broken"] = -1
    assert experiments.main(arguments) == 0
    assert asked == [(0.5, 0), (0.55, 0), (0.5, 1), (0.55, 1), (0.5, 2), (0.55, 2)], "no seed twice, worlds in turn"
    said = capsys.readouterr()
    assert "holds 3 seeds already" in said.err
    assert "min left" in said.err
    assert experiments.main(arguments) == 0
    assert len(asked) == 6


def test_the_file_says_what_made_it_and_other_code_does_not_continue_it(made_up, tmp_path, monkeypatch):
    out = tmp_path / "x.json"
    content = experiments.run(("null",), range(2), ECONOMETRIC, out)
    assert json.loads(out.read_text()) == content
    assert content["code"] == experiments.code_digest()
    assert content["commit"] == experiments.code_commit()
    assert content["experiments"]["null"]["world"]["accuracy"] == 0.5
    monkeypatch.setattr(experiments, "code_digest", lambda: "other")
    with pytest.raises(InputError, match="other code or settings"):
        experiments.run(("null",), range(3), ECONOMETRIC, out)
    monkeypatch.undo()
    with pytest.raises(InputError, match="other code or settings"):
        experiments.run(("null",), range(3), TREES, out)
    out.write_text("{}")
    with pytest.raises(InputError, match="no file of these experiments"):
        experiments.run(("null",), range(3), ECONOMETRIC, out)


def test_a_missed_criterion_is_exit_code_1(made_up, monkeypatch, capsys):
    assert experiments.main(["null", "--seeds", "2"]) == 0
    monkeypatch.setattr(experiments, "judge_seed", lambda world, seed, preset: made_row(seed, ("sign1",)))
    assert experiments.main(["null", "--seeds", "2"]) == 1
    said = capsys.readouterr()
    assert "NOT MET nothing is promoted on noise: 2 of 2 seeds" in said.err
    assert experiments.main(["null", "--preset", "huge"]) == 2


def test_the_benchmark_prints_one_object_and_keeps_the_rows(made_up, tmp_path, capsys, monkeypatch):
    out = tmp_path / "made" / "honesty.json"
    arguments = ["--seeds", "2", "--workers", "1", "--out", str(out)]
    assert honesty.main(arguments) == 0
    said = json.loads(capsys.readouterr().out)
    assert {"null", "planted", "commit", "command", "machine"} <= set(said)
    assert said["null"]["seeds"] == said["planted"]["seeds"] == 2
    assert len(json.loads(out.read_text())["experiments"]["planted"]["runs"]) == 2
    monkeypatch.setattr(experiments, "judge_seed", lambda world, seed, preset: made_row(seed, ("sign1",)))
    assert honesty.main(["--seeds", "3", "--workers", "1", "--out", str(out)]) == 1
    assert honesty.main(["--seeds", "0", "--workers", "1", "--out", str(tmp_path / "none.json")]) == 1, (
        "no seed, no claim"
    )


def test_processes_find_what_one_process_finds(monkeypatch):
    monkeypatch.setitem(experiments.WORLDS, "iid", replace(IID_NOISE, weeks=26, symbols=("EURUSD",)))
    found = [experiments.run(("iid",), range(2), ECONOMETRIC, workers=workers) for workers in (1, 2)]
    rows = [[row | {"cpu_seconds": 0} for row in one["experiments"]["iid"]["runs"]] for one in found]
    assert rows[0] == rows[1]


def test_a_simulated_folder_can_be_evaluated(tmp_path):
    from market.bar_files import read_bar_folder

    tables = simulate(World(weeks=2, symbols=SMALL), seed=1)
    write_bars(tables, tmp_path)
    found = {r.symbol: r.bars for r in read_bar_folder(tmp_path, timeframe="H1", symbols=None, received_at=None)}
    assert set(found) == set(SMALL)
    assert all(found[s]["close"] == tables[s]["close"] for s in SMALL)
