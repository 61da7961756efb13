"""A whole training run on a small simulated store, in this process: what it makes, what it refuses, what it keeps."""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import SimpleNamespace

import pytest

from configs.settings import make_settings, save_settings
from market.bar_store import BarStore
from market.errors import InputError, ModelError, NotEnoughBars
from market.timeframes import Timeframe
from tuning import retrain
from tuning.budget import BudgetSpent, UnitCost, Wall, probe
from tuning.bundle import read_losses, read_report
from tuning.candidate import champion_losses, losses_to_keep, read_data, recipe
from tuning.cross_validate import cross_validate
from tuning.experiments import World, simulate
from tuning.net_training import train_chains
from tuning.presets import Boosting, Search, load_preset
from tuning.progress import Progress
from tuning.promotion import GateResult
from tuning.registry import Registry
from tuning.run_plan import Workplace
from tuning.search_on_ray import study_on_ray
from tuning.trial import Trial

HERE = Workplace()
SYMBOLS = ("EURUSD", "GBPUSD", "USDJPY")
H1 = Timeframe.H1
ECONOMETRIC = load_preset("econometric")


@pytest.fixture(scope="module")
def bars():
    return simulate(World(weeks=30, symbols=SYMBOLS), seed=21)


def store_of(tmp_path, bars):
    settings = make_settings(home=tmp_path / "home", symbols=SYMBOLS, timeframes="H1")
    save_settings(settings)
    for table in bars.values():
        BarStore(settings.bars_path).append(table)
    return settings


@pytest.fixture
def settings(tmp_path, bars):
    return store_of(tmp_path, bars)


class Silent:
    def write(self, text):
        pass

    def flush(self):
        pass


def run(settings, preset=ECONOMETRIC, wall=None, place=HERE):
    return retrain.retrain(settings, H1, preset, SYMBOLS, place, Progress(Silent()), wall)


def test_the_first_champion_serves_from_a_verified_bundle(settings):
    version = retrain.econometric_champion(settings, "H1")
    registry = Registry.of(settings)
    assert registry.champion("H1") == version
    assert version.kind == "econometric"
    assert version.symbols == SYMBOLS
    assert version.data_version.startswith("bars@")
    assert {c.target for c in version.skill} == {"rv24", "r24", "sign24", "rv1", "r1", "sign1"}
    bundle = registry.load(version.id)
    store = BarStore(settings.bars_path)
    made = bundle.forecast({s: store.tail(s, "H1", bundle.bars_needed) for s in SYMBOLS})
    assert all(made[s][1].volatility > 0 for s in SYMBOLS)
    report = read_report(registry.path(version.id))
    assert {"rv24", "r24", "sign1"} <= set(report["targets"])
    assert set(report["serves"].values()) <= {"econometric_stack", "har_how", "base_rate"}
    assert not list(settings.registry_path.glob(".staging-*"))


def test_a_second_first_champion_does_not_replace_the_serving_one(settings):
    first = retrain.econometric_champion(settings, H1)
    again = retrain.econometric_champion(settings, H1)
    assert again.id == first.id, "the same bars and recipe are the same model"
    assert len(Registry.of(settings).champion_history("H1")) == 1


def test_the_champion_stays_and_the_run_says_why(settings, capsys, monkeypatch):
    champion = retrain.econometric_champion(settings, H1)
    monkeypatch.setenv("LSTMC_HOME", str(settings.home_path))
    monkeypatch.setattr(retrain, "needs_refit", lambda champion, data: False)
    monkeypatch.setattr(retrain, "judge", lambda *a: retrain.judge_floor(*a[:1], {"planted": False}))
    code = retrain.main(["--preset", "econometric", "--local", "--workers", "1", "--json"])
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert code == 0
    assert result["promoted"] is False
    assert result["champion"] == champion.id
    assert "leak test planted failed" in result["why"]
    assert "the champion stays" in said.err
    runs = Registry.of(settings).runs("H1")
    assert runs[-1]["promoted"] is False
    assert runs[-1]["targets"]["rv24"]["why"] in result["why"]


def test_a_challenger_that_passes_on_direction_alone_replaces_the_champion_and_serves(tmp_path):
    """A planted continuation of the last bar: no volatility to win, an edge in the next bar's direction to serve."""
    settings = store_of(tmp_path, simulate(World(accuracy=0.62, weeks=40, symbols=SYMBOLS), seed=103))
    first = retrain.econometric_champion(settings, H1)
    registry, store = Registry.of(settings), BarStore(settings.bars_path)
    outcome = run(settings, replace(load_preset("quick"), families=("lightgbm",)))
    assert outcome.promoted, f"seed 103: {outcome.why}"
    passed = {target for target, v in outcome.report["targets"].items() if v["promoted"]}
    assert passed == {"sign1"}, f"seed 103: {passed}"
    assert outcome.why.startswith("sign1 promoted: +")
    champion = registry.champion("H1")
    assert champion == outcome.model
    assert champion.id != first.id
    assert champion.kind == "stack"
    assert champion.gate["sign1"]["served_by"] == "stack"
    assert [entry["id"] for entry in registry.champion_history("H1")] == [first.id, champion.id]
    old, new = (registry.load(version.id) for version in (first, champion))
    made = [one.forecast({s: store.tail(s, "H1", new.bars_needed) for s in SYMBOLS}) for one in (old, new)]
    for symbol in SYMBOLS:
        before, after = (each[symbol][0] for each in made)
        assert before.p_up == pytest.approx(0.5, abs=0.02), "the base rate"
        close = store.tail(symbol, "H1", 2)["close"].to_numpy()
        assert (after.p_up - 0.5) * (close[1] - close[0]) > 0, "it leans the way of the last bar"
        assert abs(after.p_up - 0.5) > 0.05


@pytest.mark.parametrize(
    ("kind", "served", "passed", "lost"),
    [
        ("stack", ["rv24", "r24"], ["rv24", "r24", "sign1"], []),
        ("stack", ["rv24", "r24"], ["sign1"], ["rv24", "r24"]),
        ("stack", ["sign1"], ["rv24"], ["sign1"]),
        ("econometric", [], ["sign1"], []),
    ],
)
def test_a_challenger_may_add_heads_but_not_give_one_back(settings, kind, served, passed, lost):
    version = retrain.econometric_champion(settings, H1)
    gate = {t: {"served_by": "stack" if t in served else "har_how"} for t in ("rv24", "r24", "sign1")}
    champion = replace(version, kind=kind, gate=gate)
    verdicts = {t: SimpleNamespace(promoted=t in passed) for t in ("rv24", "r24", "sign1")}
    assert retrain.would_lose(champion, GateResult(verdicts, ("rv24", "r24"))) == lost
    assert retrain.would_lose(None, GateResult(verdicts, ("rv24", "r24"))) == []


def test_an_econometric_champion_is_refitted_when_its_bars_have_grown_old(settings):
    data = read_data(settings, H1, ECONOMETRIC, SYMBOLS)
    champion = retrain.econometric_champion(settings, H1)
    assert not retrain.needs_refit(champion, data)
    assert retrain.needs_refit(replace(champion, trained_until=data.until - timedelta(days=8)), data)
    assert not retrain.needs_refit(replace(champion, kind="stack", trained_until=data.until - timedelta(days=80)), data)
    assert retrain.needs_refit(None, data)


def test_a_stack_champions_stored_losses_meet_the_challengers_rows(settings, bars):
    champion = retrain.econometric_champion(settings, H1)
    registry = Registry.of(settings)
    stored = read_losses(registry.path(champion.id))
    oof = cross_validate(bars, H1, ECONOMETRIC)
    assert champion_losses(registry, champion, oof, "other") == {}, "its families are baselines in every run"
    stack = replace(champion, kind="stack", symbols=tuple(reversed(SYMBOLS)))
    assert champion_losses(registry, stack, oof, recipe(ECONOMETRIC)) == {}, "the same recipe is no rival"
    aligned = champion_losses(registry, replace(champion, kind="stack"), oof, "other")
    own = losses_to_keep(oof)
    assert aligned["rv24"] == pytest.approx(own["rv24"])
    assert len(stored["time"]) == len(oof)


@pytest.mark.parametrize("name", ["report.json", "judged_losses.safetensors", "manifest.sig", None])
def test_training_repairs_a_champion_whose_files_are_damaged_or_gone(settings, name):
    champion = retrain.econometric_champion(settings, H1)
    registry = Registry.of(settings)
    folder = registry.path(champion.id)
    if name:
        (folder / name).write_bytes((folder / name).read_bytes()[:50])
    else:
        shutil.rmtree(folder)
    outcome = run(settings)
    assert outcome.champion
    assert registry.load(outcome.champion).version == registry.champion("H1")


def test_a_model_that_fails_its_trial_is_a_result_and_the_champion_stays(settings, monkeypatch):
    champion = retrain.econometric_champion(settings, H1)
    registry = Registry.of(settings)
    monkeypatch.setattr(retrain, "needs_refit", lambda champion, data: True)
    store, bars = BarStore(settings.bars_path), simulate(World(weeks=31, symbols=SYMBOLS), seed=21)
    for table in bars.values():  # newer bars: another model than the champion
        store.append(table)
    crash = (sys.executable, "-c", "import os; os.kill(os.getpid(), 11)")
    monkeypatch.setattr("tuning.trial.Trial", partial(Trial, command=crash))
    outcome = run(settings)
    assert not outcome.promoted
    assert outcome.champion == champion.id == registry.champion("H1").id
    assert "Not promoted: The model in" in outcome.why
    assert "it died of SIGSEGV" in registry.runs("H1")[-1]["why"]


def test_a_spent_budget_keeps_the_champion(settings):
    champion = retrain.econometric_champion(settings, H1)
    outcome = run(settings, wall=Wall(0.0))
    assert not outcome.promoted
    assert outcome.champion == champion.id
    assert "budget was spent" in outcome.why


TREES = replace(
    load_preset("quick"),
    families=("lightgbm", "xgboost"),
    folds=2,
    test_share=0.3,
    boosting=Boosting(trees=3, leaves=4),
    search=Search(3),
)


class Clock:
    """Stands still unless a unit of work moves it."""

    def __init__(self):
        self.moment = 0.0

    def __call__(self):
        return self.moment


def costing(clock, seconds, wall):
    """run_units by which each fit takes `seconds` of the clock, and a probe says so; ended when the wall's units are."""

    def run_units(function, arguments):
        for one in arguments:
            clock.moment += seconds if function is not probe else 0.0
            if wall.seconds_left() < 0:
                raise BudgetSpent("over")
            yield UnitCost(seconds, 0.0) if function is probe else function(*one)

    return run_units


def test_a_search_and_what_it_tried_come_with_the_report(settings):
    outcome = run(settings, TREES)
    tried = outcome.report["search"]["boosting"]
    assert tried["trials"] == 3
    assert len(tried["tried"]) == 3
    assert "budget" not in outcome.report
    assert outcome.to_dict()["search"] == outcome.report["search"]


@pytest.mark.parametrize(
    ("seconds", "searched", "families", "left_out"),
    [
        (10_000, True, {"lightgbm", "xgboost"}, []),
        (130, False, {"lightgbm", "xgboost"}, ["the search"]),
        (70, False, {"lightgbm"}, ["the search", "xgboost"]),
        (20, False, set(), ["the search", "xgboost", "lightgbm"]),
    ],
)
def test_a_budget_ends_with_a_judged_result_of_what_fits(settings, seconds, searched, families, left_out):
    """A fit takes 10 s, 12.5 s with its margin: two families on burn-in, two folds and lockbox and the final fit 125 s,
    one family 62.5 s."""
    clock = Clock()
    wall = Wall(seconds, now=clock)
    outcome = run(settings, TREES, wall, Workplace(costing(clock, 10.0, wall)))
    assert clock.moment <= seconds
    assert ("search" in outcome.report) is searched
    assert {"lightgbm", "xgboost"} & set(outcome.report["protocol"]["families"]) == families
    assert [words.split(":")[0] for words in outcome.report["budget"]["left_out"]] == left_out
    assert outcome.report["targets"]["rv24"]["why"]
    assert Registry.of(settings).runs("H1")[-1]["budget"] == outcome.report["budget"]


def test_a_family_that_is_not_done_in_time_is_left_out_and_the_others_are_judged(settings):
    """Fits take twice what they were measured at: only the first family's folds are done when time is over."""
    clock = Clock()
    wall = Wall(130.0, now=clock)
    slow = costing(clock, 18.0, wall)

    def run_units(function, arguments):
        return [UnitCost(10.0, 0.0) for _ in arguments] if function is probe else slow(function, arguments)

    outcome = run(settings, replace(TREES, search=None), wall, Workplace(run_units))
    assert outcome.report["budget"]["left_out"] == ["xgboost: its folds were not done in time"]
    assert {"lightgbm", "xgboost"} & set(outcome.report["protocol"]["families"]) == {"lightgbm"}
    assert outcome.report["targets"]["rv24"]["why"]


def test_a_measuring_that_takes_too_long_leaves_the_learners_out(settings):
    clock = Clock()
    wall = Wall(100.0, now=clock)

    def run_units(function, arguments):
        clock.moment += wall.seconds_left()
        raise BudgetSpent("over")

    outcome = run(settings, TREES, wall, Workplace(run_units))
    assert clock.moment == 25.0
    assert outcome.report["budget"]["left_out"] == [
        "all families: measuring what they cost took more than 25% of 100 s"
    ]
    assert outcome.report["targets"]["rv24"]["why"]


def test_two_runs_at_once_are_refused(settings):
    settings.registry_path.mkdir(parents=True)
    with open(settings.registry_path / ".training-H1.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ModelError, match="Another run is training H1"):
            run(settings)


def test_no_bars_and_too_few_bars(tmp_path, bars):
    empty = make_settings(home=tmp_path / "empty", symbols=SYMBOLS)
    with pytest.raises(NotEnoughBars, match="There are no H1 bars"):
        retrain.econometric_champion(empty, H1)
    short = store_of(tmp_path, {s: table.slice(0, 300) for s, table in bars.items()})
    with pytest.raises(NotEnoughBars, match="enough"):
        retrain.econometric_champion(short, H1)


def test_a_symbol_without_bars_is_left_out_and_said_so(tmp_path, bars):
    settings = store_of(tmp_path, bars)
    data = read_data(settings, H1, ECONOMETRIC, (*SYMBOLS, "AUDUSD"))
    assert set(data.bars) == set(SYMBOLS)
    assert data.excluded == {"AUDUSD": "there are no bars of it"}


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5H", 5400)])
def test_budgets(text, seconds):
    assert retrain.parse_budget(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "-5m", "0m", "1d"])
def test_budgets_that_are_no_time(text):
    with pytest.raises(InputError, match="not a time"):
        retrain.parse_budget(text)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--preset", "huge"], 2, "no preset 'huge'"),
        (["--symbols", "EURXXX"], 2, "Unknown symbol"),
        (["--timeframe", "H7"], 2, "Unknown timeframe"),
        (["--budget", "soon"], 2, "not a time"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(settings, monkeypatch, capsys, arguments, code, said):
    monkeypatch.setenv("LSTMC_HOME", str(settings.home_path))
    assert retrain.main([*arguments, "--local"]) == code
    message = capsys.readouterr().err
    assert said in message
    assert "Traceback" not in message


def test_no_installation_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LSTMC_HOME", str(tmp_path / "nowhere"))
    assert retrain.main(["--local"]) == 3
    assert "lstmc up" in capsys.readouterr().err


def test_nets_go_to_ray_train_where_the_preset_says_so_and_a_cluster_is_there(tmp_path):
    full, quick = load_preset("full"), load_preset("quick")
    assert retrain._run_chains(full, HERE, tmp_path) is None
    on_cluster = Workplace(study=study_on_ray)
    assert retrain._run_chains(quick, on_cluster, tmp_path) is None
    chosen = retrain._run_chains(full, on_cluster, tmp_path)
    assert chosen.func is train_chains
    assert chosen.keywords == {"storage": tmp_path}


def test_the_recipe_is_the_settings_not_the_name():
    quick = load_preset("quick")
    assert recipe(quick) == recipe(replace(quick, name="other", trainer="ray_train"))
    assert recipe(quick) != recipe(replace(quick, seed=8))
