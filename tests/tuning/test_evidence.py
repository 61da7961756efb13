"""What the report says beyond verdicts: suspicious figures with the battery's word, what was tried, the goals table."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from market.errors import InputError
from market.timeframes import Timeframe
from tests.tuning.test_promotion import SYMBOLS, made_up
from tuning import goals
from tuning.cross_validate import cross_validate
from tuning.evaluate import finite, judged_report, read_experiments
from tuning.evidence import direction_figures, evidence, suspicious, what_was_tried
from tuning.presets import load_preset
from tuning.promotion import judge
from tuning.report import render
from tuning.report_protocol import experiments_section
from tuning.report_words import FAMILY_NAMES
from tuning.worlds import World, simulate

PASSED = {"truncated_future": {"passed": True}, "target_shift": {"passed": True}}
PRESET = replace(load_preset("quick"), families=("lightgbm",))


def cells(oof, leak_tests) -> list[dict]:
    return suspicious(judge(oof).to_dict(), direction_figures(oof), leak_tests)


def test_honest_figures_are_not_suspicious():
    assert cells(made_up(direction=0.01), PASSED) == []


def test_a_direction_too_good_to_be_true_is_flagged_with_the_battery_s_word():
    found = cells(made_up(direction=0.2), PASSED)
    assert {(c["target"], c["family"], c["figure"]) for c in found} >= {
        ("sign1", "stack", "auc"),
        ("sign1", "stack", "auc_ex_rollover"),
        ("sign1", "stack", "accuracy"),
    }
    assert all(c["value"] > c["limit"] for c in found)
    assert found[0]["explanation"].startswith("No leak found by truncated future, target shift.")


def test_a_failed_leak_test_is_the_explanation():
    failed = PASSED | {"perturbed_future": {"passed": False}}
    assert cells(made_up(direction=0.2), failed)[0]["explanation"].startswith("A leak: perturbed future failed")
    assert cells(made_up(direction=0.2), {})[0]["explanation"].startswith("Unexplained")


def test_a_volatility_far_below_har_is_flagged():
    found = cells(made_up(skill=0.45), PASSED)
    assert ("rv1", "stack", "qlike_gain") in {(c["target"], c["family"], c["figure"]) for c in found}


@pytest.mark.parametrize(
    ("search", "settings"),
    [
        (None, {}),
        ({"skipped": "too few bars"}, {}),
        ({"trees": {"families": ["lightgbm", "xgboost"], "trials": 12}}, {"lightgbm": 12, "xgboost": 12}),
        ({"trees": {"families": ["lightgbm"], "trials": 12}, "nets": {"skipped": "no time"}}, {"lightgbm": 12}),
    ],
)
def test_settings_tried_by_a_search_are_counted(search, settings):
    assert what_was_tried(made_up(), {"search": search}, PRESET)["settings"] == settings


def test_a_search_stands_on_the_page(whole):
    report, oof = whole
    trees = {"families": ["lightgbm"], "trials": 12, "pruned": 3, "failed": 0, "chosen": 4, "gain": 0.001,
             "standard_error": 0.0004, "settings": {"trees": 80}}  # fmt: skip
    page = render(report | {"search": {"trees": trees, "nets": {"skipped": "no time"}}}, oof)
    assert "trees: 12 settings tried, 3 of them pruned, 0 failed; number 4 chosen" in page
    assert "nets: no search, no time" in page
    assert "No search: one setting per family." in render(report, oof)


@pytest.fixture(scope="module")
def whole():
    """A report of three symbols of noise, as `evaluate` makes it, without its command."""
    bars = simulate(World(weeks=40, symbols=("EURUSD", "GBPUSD", "USDJPY")), seed=3)
    oof = cross_validate(bars, Timeframe.H1, PRESET)
    leaks = {"truncated_future": {"passed": True, "value": 0.0, "limit": 1e-6, "detail": ""}}
    report = judged_report(oof, judge(oof), Timeframe.H1, PRESET) | {"leak_tests": leaks}
    rest = {"bars": {}, "excluded": {}, "made_at": "2026-01-02T00:00:00Z", "cpu_seconds": 12.0, "serves": {}}
    return finite(report | evidence(oof, report, bars, Timeframe.H1, PRESET) | rest), oof


def test_weights_of_every_fold_and_the_cut_are_kept(whole):
    report, _ = whole
    assert set(report["fold_weights"]["rv24"]) == {"0", "1", "2", "3", "4", "-1"}
    assert report["fold_weights"]["rv24"]["-1"] == report["stack_weights"]["rv24"]
    assert all(sum(w.values()) == pytest.approx(1.0) for by in report["fold_weights"].values() for w in by.values())
    folds = report["folds"]
    assert [f["fold"] for f in folds] == [0, 1, 2, 3, 4, -1]
    for fold in folds:
        assert fold["train_to"] < fold["test_from"]
        assert fold["rows"]["purged"] >= 24 * 3


def test_the_purge_example_is_what_the_splitter_did(whole):
    example = whole[0]["purge_example"]
    bars, horizon = example["bars"], example["horizon"]
    assert bars["test"][0] == 0
    assert bars["purged"] == list(range(-horizon, 0))
    assert bars["embargoed"] == list(range(-2 * horizon, -horizon))
    assert max(bars["train"]) == -2 * horizon - 1
    assert max(bars["train"]) + horizon < 0, "no training label reaches the test"


def test_the_page_shows_experiments_or_says_how_to_make_them(whole, tmp_path):
    report, oof = whole
    assert "python -m tuning.experiments all --seeds 40" in render(report, oof)
    row = {"seed": 0, "promoted": [], "targets": {"sign1": {"skill": 0.004}}}
    criterion = {"passed": False, "name": "nothing is promoted on noise", "words": "3 of 40 seeds"}
    made = {"seeds": 1, "promoted": 0, "cpu_seconds": 60.0, "criteria": [criterion], "runs": [row]}
    (tmp_path / "other.json").write_text("[1]")
    for name in ("null", "planted"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"commit": "abc", "experiments": {name: made}}))
    found = read_experiments(tmp_path)
    assert set(found["experiments"]) == {"null", "planted"}
    page = render(report, oof, found)
    assert '<b class="no">not met</b>' in page
    assert 'id="experiments"' in page
    assert experiments_section(None) != experiments_section(found)


def test_a_folder_without_experiments_says_so(tmp_path):
    with pytest.raises(InputError, match="no experiments"):
        read_experiments(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_experiments(tmp_path / "missing.json")


def test_every_figure_has_words_for_those_who_cannot_see_it(whole):
    report, oof = whole
    page = render(report, oof)
    figures = page.count('class="plot"')
    assert figures >= 12
    assert page.count('role="img" aria-label="') == figures
    assert 'aria-label=""' not in page
    assert FAMILY_NAMES["lightgbm"] in page


def test_suspicious_figures_stand_on_the_page(whole):
    report, oof = whole
    flagged = {"target": "sign1", "family": "lightgbm", "figure": "auc", "value": 0.7, "limit": 0.58}
    page = render(report | {"suspicious": [flagged | {"explanation": "A leak: <x> failed."}]}, oof)
    assert "A leak: &lt;x&gt; failed." in page
    assert "No figure lies beyond" in render(report | {"suspicious": []}, oof)


def figures(**changes) -> dict:
    """A report that reaches every goal; `changes` by cell."""
    c = {"qlike": 0.26, "t": -3.0, "skill": 0.05, "cov80": 0.80, "cov90": 0.90, "london": 0.905, "auc": 0.56, "ex": 0.535,
         "long": -0.001, "long_t": -2.5, "accuracy": 0.52, "cpu": 80.0} | changes  # fmt: skip
    share = lambda x: {"value": x}  # noqa: E731
    coverage = {
        "80": {"all": {"all": share(c["cov80"])}, "symbol": {"EURUSD": share(0.8)}, "session": {"London": share(0.8)}},
        "90": {
            "all": {"all": share(c["cov90"])},
            "symbol": {"EURUSD": share(0.9)},
            "session": {"London": share(c["london"])},
        },
    }
    return {
        "targets": {
            "rv24": {"qlike": c["qlike"], "t_har_how": c["t"], "qlike_har_how": 0.274},
            "r24": {"pinball_skill": c["skill"], "pinball_skill_window": c["skill"] / 2},
            "sign1": {"auc": c["auc"], "auc_ex_rollover": c["ex"]},
            "sign24": {
                "loss": 0.69 + c["long"],
                "baseline_losses": {"base_rate": 0.69},
                "family_t": {"stack": c["long_t"]},
            },
        },
        "direction": {"sign24": {"stack": {"accuracy": c["accuracy"]}}},
        "calibration": {"r24": {"coverage": coverage}},
        "protocol": {
            "symbols": list(SYMBOLS),
            "folds": 5,
            "families": ["a"] * 13,
            "timeframe": "H1",
            "preset": "full",
            "test_from": "2019-03-06T00:00:00Z",
            "test_to": "2020-03-03T00:00:00Z",
        },
        "cpu_seconds": c["cpu"],
        "made_at": "2026-11-24T00:00:00Z",
    }


def state(**changes) -> list[str]:
    words = {(True, True): "goal", (True, False): "must", (False, False): "missed"}
    return [words[g.must_met, g.goal_met] + ("!" if g.suspected else "") for g in goals.goals(figures(**changes))]


@pytest.mark.parametrize(
    ("changes", "row", "expected"),
    [
        ({}, 0, "goal"),
        ({"qlike": 0.27}, 0, "must"),
        ({"t": -1.9}, 0, "must"),
        ({"qlike": 0.277}, 0, "missed"),
        ({"qlike": 0.23}, 0, "goal!"),
        ({"skill": 0.03}, 1, "must"),
        ({"skill": 0.026}, 1, "missed"),
        ({"skill": 0.09}, 1, "goal!"),
        ({"london": 0.915}, 2, "must"),
        ({"cov80": 0.826}, 2, "missed"),
        ({"auc": 0.545}, 3, "must"),
        ({"ex": 0.519}, 3, "missed"),
        ({"ex": 0.56}, 3, "goal!"),
        ({"long": 0.0, "long_t": 0.0}, 4, "must"),
        ({"long": 0.001, "long_t": 1.0}, 4, "missed"),
        ({"accuracy": 0.56}, 4, "goal!"),
        ({"cpu": 200.0}, 5, "must"),
        ({"cpu": 301.0}, 5, "missed"),
    ],
)
def test_goals_by_literal_figures(changes, row, expected):
    assert state(**changes)[row] == expected


def test_the_table_goes_between_the_marks_of_the_page(tmp_path, capsys):
    (tmp_path / "report.json").write_text(json.dumps(figures()))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{goals.BEGIN}\nan old table\n{goals.END}\nafter\n")
    assert goals.main([str(tmp_path / "report.json"), "--into", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "an old table" not in text
    assert "| 80: 80.0%, furthest EURUSD +0.0; 90: 90.0%, furthest London +0.5 | goal reached |" in text
    page.write_text("nothing")
    assert goals.main([str(tmp_path / "report.json"), "--into", str(page)]) == 2
    (tmp_path / "report.json").write_text("{}")
    assert goals.main([str(tmp_path / "report.json")]) == 2
    assert "lacks 'targets'" in capsys.readouterr().err


def test_goals_can_be_read_from_a_real_report(whole):
    made = goals.markdown(whole[0])
    assert made.count("\n| ") == 7
    assert "EURUSD" in made
