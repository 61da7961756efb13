from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from market.errors import BundleRefused
from tests.made_bundles import CARD
from tuning import bundle
from tuning.bundle_signature import BundleKeys

FIELDS = CARD | {"kind": "stack", "symbols": ("EURUSD", "USDJPY"), "data_version": "bars@3"}


class TinyModel:
    """Weights, a JSON file and a text file, as the real ensemble has them."""

    bars_needed = 300
    spec_digest = "spec-1"

    def __init__(self, weight: float = 0.5) -> None:
        self.weight = weight

    def save(self, folder: Path) -> None:
        (folder / "nets").mkdir()
        save_file({"w": np.array([self.weight])}, folder / "nets" / "gru.safetensors")
        (folder / "ensemble.json").write_text(json.dumps({"weights": [1.0]}))
        (folder / "lightgbm_rv24.txt").write_text("tree\nleaf_value=0.1 0.2\n")

    @classmethod
    def load(cls, folder: Path) -> TinyModel:
        from safetensors.numpy import load_file

        return cls(float(load_file(folder / "nets" / "gru.safetensors")["w"][0]))

    def forecast(self, bars):
        return {symbol: () for symbol in bars}


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "new"
    version = bundle.save_bundle(TinyModel(), FIELDS, folder, report={"targets": {}}, losses={"rv24": np.ones(3)})
    bundle.sign(folder, keys_of(folder))
    return folder, version


def keys_of(folder):
    return BundleKeys(folder.parent / "model_keys")


def refused(folder, pattern, load=TinyModel.load):
    with pytest.raises(BundleRefused, match=pattern) as caught:
        bundle.load_bundle(folder, keys_of(folder), load)
    assert caught.value.hint


def test_round_trip(saved):
    folder, version = saved
    loaded = bundle.load_bundle(folder, keys_of(folder), TinyModel.load)
    assert loaded.version == version == bundle.read_version(folder, keys_of(folder))
    assert version.id.startswith("h1-")
    assert len(version.id) == len("h1-") + 16
    assert loaded.bars_needed == 300
    assert loaded.forecast({"EURUSD": None}) == {"EURUSD": ()}
    assert bundle.read_report(folder) == {"targets": {}}
    assert bundle.read_losses(folder)["rv24"].tolist() == [1.0, 1.0, 1.0]


def test_the_id_is_the_content_and_nothing_else(saved, tmp_path):
    _, version = saved
    same = bundle.save_bundle(
        TinyModel(), FIELDS | {"data_version": "bars@9"}, tmp_path / "same", report={"targets": {"a": 1}}
    )
    other = bundle.save_bundle(TinyModel(0.25), FIELDS, tmp_path / "other")
    assert same.id == version.id != other.id


def test_a_folder_with_something_in_it_is_not_written_to(saved):
    folder, _ = saved
    with pytest.raises(BundleRefused, match="not empty"):
        bundle.save_bundle(TinyModel(), FIELDS, folder)


def test_a_changed_byte(saved):
    folder, _ = saved
    file = folder / "nets" / "gru.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    refused(folder, "nets/gru.safetensors was changed")


def test_nothing_is_parsed_before_every_hash_is_checked(saved):
    folder, _ = saved
    (folder / "lightgbm_rv24.txt").write_text("tree\nleaf_value=9 9\n")

    def explode(path):
        raise AssertionError("parsed")

    refused(folder, "lightgbm_rv24.txt was changed", explode)


def test_missing_extra_and_unknown_files(saved):
    folder, _ = saved
    (folder / "extra.json").write_text("{}")
    refused(folder, "extra.json is not in its manifest")
    (folder / "extra.json").unlink()
    (folder / "run.py").write_text("")
    refused(folder, "'run.py' are not allowed")
    (folder / "run.py").unlink()
    (folder / "ensemble.json").unlink()
    refused(folder, "ensemble.json is missing")


def test_a_pickle_in_the_manifest_is_refused_by_its_name(saved):
    folder, _ = saved
    edit(folder, lambda m: m["files"].update({"model.pkl": {"sha256": "0", "bytes": 1}}))
    refused(folder, "'model.pkl' are not allowed")


@pytest.mark.parametrize(
    "name", ["../outside.json", "/etc/x.json", "a/../../b.json", "a//b.json", ".hidden.json", "a\\b.json"]
)
def test_names_that_lead_outside(saved, name):
    folder, _ = saved
    edit(folder, lambda m: m["files"].update({name: {"sha256": "0", "bytes": 1}}))
    refused(folder, "is not allowed")


def test_a_link_is_refused_even_to_the_right_content(saved, tmp_path):
    folder, _ = saved
    real = tmp_path / "ensemble.json"
    (folder / "ensemble.json").rename(real)
    (folder / "ensemble.json").symlink_to(real)
    refused(folder, "not a plain file")


def test_another_format_no_manifest_and_broken_json(saved, tmp_path):
    folder, _ = saved
    edit(folder, lambda m: m.update(format=99))
    refused(folder, "format is not 1")
    (folder / "manifest.json").write_text("{")
    bundle.sign(folder, keys_of(folder))
    refused(folder, "is not JSON")
    (folder / "manifest.json").unlink()
    refused(folder, "no manifest.json")
    refused(tmp_path / "nowhere", "no manifest.json")


def test_an_edited_version_card(saved):
    folder, _ = saved
    edit(folder, lambda m: m["version"].update(spec_digest="spec-2"))
    refused(folder, "does not match its content")
    edit(folder, lambda m: m["version"].pop("symbols"))
    refused(folder, "version card is malformed")


def test_a_model_of_another_feature_specification(saved):
    folder, _ = saved

    def load(path):
        model = TinyModel.load(path)
        model.spec_digest = "spec-2"
        return model

    refused(folder, "feature specification differs", load)


def test_nan_weights(tmp_path):
    save_signed(TinyModel(float("nan")), tmp_path / "nan")
    refused(tmp_path / "nan", "NaN or infinite weights in w")


def test_nan_in_json_and_text(tmp_path):
    class Bad(TinyModel):
        def save(self, folder):
            (folder / "ensemble.json").write_text('{"w": NaN}')

    class Worse(TinyModel):
        def save(self, folder):
            (folder / "trees.txt").write_text("leaf_value=0.1 nan\n")

    save_signed(Bad(), tmp_path / "bad")
    refused(tmp_path / "bad", "not clean JSON")
    save_signed(Worse(), tmp_path / "worse")
    refused(tmp_path / "worse", "NaN or infinite values")


def test_a_parser_that_fails_is_a_refusal(saved):
    folder, _ = saved

    def load(path):
        raise KeyError("heads")

    refused(folder, "cannot be read .KeyError", load)


def save_signed(model, folder):
    bundle.save_bundle(model, FIELDS, folder)
    bundle.sign(folder, keys_of(folder))


def edit(folder, change):
    """By whoever holds the key: the signature holds again."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    bundle.sign(folder, keys_of(folder))
