from __future__ import annotations

import itertools
import json
import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor

import pytest

from market.errors import BundleRefused, ModelError, NoChampion
from tests.made_bundles import new_bundle
from tuning.bundle import sign
from tuning.bundle_signature import BundleKeys, refused
from tuning.registry import Registry


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "registry", BundleKeys(tmp_path / "model_keys"))


@pytest.fixture
def three(registry, tmp_path):
    return [registry.add(new_bundle(tmp_path / f"new{k}", k, hour=k)).id for k in range(3)]


def test_an_absent_registry_is_empty(registry):
    assert registry.list() == []
    assert registry.champion("H1") is None
    assert registry.champion_history("H1") == []


def test_add_moves_the_bundle_in(registry, tmp_path):
    folder = new_bundle(tmp_path / "new", 1.0)
    version = registry.add(folder)
    assert not folder.exists()
    assert registry.get(version.id) == version
    assert registry.path(version.id).is_dir()
    assert registry.champion("H1") is None, "adding does not promote"


def test_add_twice_is_add_once(registry, tmp_path):
    first = registry.add(new_bundle(tmp_path / "a", 1.0))
    again = registry.add(new_bundle(tmp_path / "b", 1.0, hour=5))
    assert again == first
    assert len(registry.list()) == 1


def test_a_damaged_bundle_is_not_added(registry, tmp_path):
    folder = new_bundle(tmp_path / "new", 1.0)
    (folder / "ensemble.json").write_text('{"value": 2}')
    with pytest.raises(BundleRefused):
        registry.add(folder)
    assert registry.list() == []


def test_list_is_newest_first_and_by_timeframe(registry, three, tmp_path):
    other = registry.add(new_bundle(tmp_path / "m15", 1.0, timeframe="M15")).id
    assert [v.id for v in registry.list("H1")] == three[::-1]
    assert [v.id for v in registry.list("M15")] == [other]


def test_an_edited_gate_card_is_refused_wherever_it_is_read(registry, three):
    manifest = registry.path(three[0]) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"econometric"', '"stack"'))
    for read in (registry.get, registry.verified, registry.load, registry.signed_by, lambda m: registry.promote(m, "")):
        with pytest.raises(BundleRefused, match="changed after it was signed"):
            read(three[0])
    assert [v.id for v in registry.list()] == three[:0:-1]
    assert list(registry.refused()) == [three[0]]


def test_a_sound_model_under_another_models_name_is_refused(registry, three):
    shutil.rmtree(registry.path(three[0]))
    registry.path(three[1]).rename(registry.root / "models" / three[0])
    with pytest.raises(BundleRefused, match=f"it holds {three[1]}"):
        registry.promote(three[0], "")


def test_an_unsigned_model_is_refused_and_the_same_content_signed_takes_its_place(registry, three, tmp_path):
    (registry.path(three[1]) / "manifest.sig").unlink()
    with pytest.raises(BundleRefused, match="it is not signed") as caught:
        registry.verified(three[1])
    assert "lstmc train" in caught.value.hint
    registry.add(new_bundle(tmp_path / "again", 1, hour=1))
    assert registry.verified(three[1]).id == three[1]


def test_a_bundle_of_another_installation_is_refused_until_its_key_is_trusted(registry, three, tmp_path):
    theirs = BundleKeys(tmp_path / "their_keys")
    folder = new_bundle(tmp_path / "copied", 9.0)
    sign(folder, theirs)
    with pytest.raises(BundleRefused, match="does not trust") as caught:
        registry.add(folder)
    assert "lstmc models trust" in caught.value.hint
    registry.keys.trust(theirs.public_file(theirs.own()))
    added = registry.add(folder)
    assert registry.signed_by(added.id) == theirs.own() != registry.signed_by(three[0]) == registry.keys.own()


def test_a_model_that_fails_its_trial_does_not_become_champion(registry, three):
    tried = []

    def trial(folder):
        tried.append(folder.name)
        if folder.name == three[1]:
            raise refused(folder.name, "in its trial process: it died of SIGSEGV")

    careful = Registry(registry.root, registry.keys, trial)
    careful.promote(three[0], "")
    with pytest.raises(BundleRefused, match="SIGSEGV"):
        careful.promote(three[1], "")
    careful.promote(three[0], "again")
    assert careful.champion("H1").id == three[0]
    assert tried == three[:2], "the champion is not tried again"


def test_promote_and_history(registry, three):
    registry.promote(three[0], "first")
    registry.promote(three[1], "better")
    registry.promote(three[1], "said twice")
    assert registry.champion("H1").id == three[1]
    history = registry.champion_history("H1")
    assert [(e["action"], e["id"], e["before"], e["why"]) for e in history] == [
        ("promote", three[0], None, "first"),
        ("promote", three[1], three[0], "better"),
    ]


def test_rollback_goes_one_further_back_each_time(registry, three):
    for model_id in three:
        registry.promote(model_id, "")
    assert registry.rollback("H1").id == three[1]
    assert registry.rollback("H1").id == three[0]
    with pytest.raises(NoChampion, match="no earlier champion"):
        registry.rollback("H1")
    registry.promote(three[2], "again")
    assert registry.rollback("H1").id == three[0]
    assert registry.champion("H1").id == three[0]


def test_a_crash_between_history_and_pointer_leaves_the_old_champion(registry, three):
    for model_id in three[:2]:
        registry.promote(model_id, "")
    history = registry.root / "champions" / "H1.history.jsonl"
    entry = {"at": "2026-01-01T00:00:00Z", "action": "promote", "id": three[2], "before": three[1], "why": ""}
    with open(history, "a") as file:
        file.write(json.dumps(entry) + '\n{"at": "2026-')
    assert registry.champion("H1").id == three[1]
    assert registry.rollback("H1").id == three[0]


def test_a_damaged_model_is_not_promoted(registry, three):
    (registry.path(three[0]) / "ensemble.json").write_text("{}")
    with pytest.raises(BundleRefused):
        registry.promote(three[0], "")
    assert registry.champion("H1") is None


def test_a_damaged_pointer_says_so_and_promotion_repairs_it(registry, three):
    registry.promote(three[0], "")
    (registry.root / "champions" / "H1.json").write_text("{")
    with pytest.raises(ModelError, match="damaged"):
        registry.champion("H1")
    registry.promote(three[1], "")
    assert registry.champion("H1").id == three[1]


@pytest.mark.parametrize("model_id", ["h1-unknown", "", ".", "..", "../champions", "/etc", ".arriving-x"])
def test_unknown_ids_and_ids_that_lead_outside(registry, three, model_id):
    with pytest.raises(ModelError, match="no model"):
        registry.path(model_id)


def test_two_processes_promote_at_once(registry, three):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as racers:
        list(racers.map(registry.promote, [three[k % 3] for k in range(30)], ["race"] * 30))
    history = registry.champion_history("H1")
    assert history[-1]["id"] == registry.champion("H1").id
    assert all(entry["before"] == earlier["id"] for earlier, entry in itertools.pairwise(history))


def test_runs_are_kept_with_their_reason(registry):
    assert registry.runs("H1") == []
    registry.record_run("H1", {"promoted": False, "why": "not better"})
    with open(registry.root / "champions" / "H1.runs.jsonl", "a") as file:
        file.write('{"promoted": tr')
    registry.record_run("H1", {"promoted": True, "why": "better"})
    assert [run["why"] for run in registry.runs("H1")] == ["not better", "better"]
    assert registry.runs("H1")[0]["at"].endswith("Z")


def test_a_refused_champion_goes_and_the_one_that_stayed_is_champion_again(registry, tmp_path):
    first, second = (registry.add(new_bundle(tmp_path / f"m{value}", value)) for value in (1.0, 2.0))
    for version in (first, second):
        registry.promote(version.id, "better")
    registry.refuse("H1", second.id, first.id, "it hung")
    assert registry.champion_pointer("H1")["id"] == first.id
    assert registry.champion_history("H1")[-1]["why"] == "it hung"
    with pytest.raises(NoChampion):
        registry.rollback("H1")  # nothing is before the first one
    registry.refuse("H1", second.id, first.id, "again")  # another is champion already
    assert len(registry.champion_history("H1")) == 3
