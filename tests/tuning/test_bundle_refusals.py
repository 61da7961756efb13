"""What somebody may do to a stored bundle, one thing at a time: refused with the reason, before any parser is called."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from market.errors import BundleRefused
from tests.made_bundles import CARD
from tuning import bundle
from tuning.bundle_signature import BundleKeys

FILES = {  # one of each kind that a bundle may hold
    "ensemble.json": b'{"weights": [1.0]}',
    "gru/weights.safetensors": safetensors.numpy.save({"w": np.array([0.5, 1.5])}),
    "lightgbm/rv24.txt": b"tree\nleaf_value=0.1 0.2\n",
    "xgboost/rv24.ubj": b"{L\x00",
}
ATTACHED = {"report.json", "judged_losses.safetensors"}
PROOFS = {"manifest.json", "manifest.sig"}


class Files:
    bars_needed, spec_digest = 300, "spec-1"

    def __init__(self, changed: dict[str, bytes] | None = None) -> None:
        self.files = FILES | (changed or {})

    def save(self, folder: Path) -> None:
        for name, content in self.files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)

    def forecast(self, bars):
        return {}


@pytest.fixture
def keys(tmp_path):
    return BundleKeys(tmp_path / "model_keys")


def signed(tmp_path: Path, keys: BundleKeys, changed: dict[str, bytes] | None = None) -> Path:
    folder = tmp_path / "bundle"
    bundle.save_bundle(Files(changed), CARD, folder, report={"targets": {}}, losses={"rv24": np.ones(3)})
    bundle.sign(folder, keys)
    return folder


@pytest.fixture
def stored(tmp_path, keys):
    return signed(tmp_path, keys)


class Spy:
    """Stands in front of every parser there is, and remembers who was let through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.called: list[str] = []
        for name, module, function in (
            ("json", "json", "loads"),
            ("safetensors", "safetensors.numpy", "load_file"),
            ("safetensors", "safetensors.numpy", "load"),
            ("lightgbm", "lightgbm", "Booster"),
            ("xgboost", "xgboost", "Booster"),
            ("pickle", "pickle", "loads"),
            ("pickle", "pickle", "load"),
        ):
            monkeypatch.setattr(
                f"{module}.{function}", self._watched(name, getattr(__import__(module, fromlist=["x"]), function))
            )

    def _watched(self, name, real):
        def call(*words, **named):
            self.called.append(name)
            return real(*words, **named)

        return call

    def load(self, folder: Path) -> Files:
        self.called.append("ensemble")
        return Files()


@pytest.fixture
def spy(monkeypatch):
    return Spy(monkeypatch)


def refused(folder: Path, keys: BundleKeys, spy: Spy, reason: str, parsed: set[str]) -> None:
    with pytest.raises(BundleRefused, match=reason) as caught:
        bundle.load_bundle(folder, keys, spy.load)
    assert caught.value.hint
    assert set(spy.called) == parsed


def test_untouched_it_loads(stored, keys, spy):
    loaded = bundle.load_bundle(stored, keys, spy.load)
    assert loaded.version.symbols == ("EURUSD",)
    assert set(spy.called) == {"json", "safetensors", "ensemble"}, "the spy sees what is parsed"
    assert {p.relative_to(stored).as_posix() for p in stored.rglob("*") if p.is_file()} == {*FILES, *ATTACHED, *PROOFS}


@pytest.mark.parametrize("name", sorted({*FILES, *ATTACHED}))
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_one_flipped_bit_in_a_file(stored, keys, spy, name, where):
    flip(stored / name, where)
    refused(stored, keys, spy, f"{name} was changed after it was saved", {"json"})  # the signed manifest


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_one_flipped_bit_in_the_manifest(stored, keys, spy, where):
    flip(stored / "manifest.json", where)
    refused(stored, keys, spy, "changed after it was signed", set())


@pytest.mark.parametrize("at", range(0, 154, 7))
def test_one_flipped_bit_in_the_signature(stored, keys, spy, at):
    flip(stored / "manifest.sig", at)
    refused(stored, keys, spy, "signature is malformed|does not trust|changed after it was signed", set())


@pytest.mark.parametrize("name", sorted({*FILES, *ATTACHED}))
def test_a_file_cut_short_or_gone(stored, keys, spy, name):
    content = (stored / name).read_bytes()
    (stored / name).write_bytes(content[: len(content) // 2])
    refused(stored, keys, spy, f"{name} was changed after it was saved", {"json"})
    (stored / name).unlink()
    refused(stored, keys, spy, f"{name} is missing", {"json"})


@pytest.mark.parametrize("name", sorted(PROOFS))
def test_a_proof_cut_short_or_gone(stored, keys, spy, name):
    content = (stored / name).read_bytes()
    (stored / name).write_bytes(content[: len(content) // 2])
    refused(stored, keys, spy, "malformed|changed after it was signed", set())
    (stored / name).unlink()
    refused(stored, keys, spy, "no manifest.json|not signed", set())


@pytest.mark.parametrize("name", sorted(PROOFS))
def test_a_proof_that_is_too_long_or_a_link(stored, keys, spy, name, tmp_path):
    real = (stored / name).rename(tmp_path / name)
    (stored / name).symlink_to(real)
    refused(stored, keys, spy, "no manifest.json|not signed", set())
    (stored / name).unlink()
    (stored / name).write_bytes(real.read_bytes() + b" " * 2**23)
    refused(stored, keys, spy, "is larger than", set())


def test_the_gate_card_of_an_edited_manifest(stored, keys, spy):
    manifest = json.loads((stored / "manifest.json").read_text())
    spy.called.clear()
    manifest["version"]["gate"] = {"rv24": {"promoted": True}}
    (stored / "manifest.json").write_text(json.dumps(manifest))
    refused(stored, keys, spy, "changed after it was signed", set())


@pytest.mark.parametrize("name", ["extra.json", "extra.txt", "gru/more.safetensors"])
def test_an_extra_file(stored, keys, spy, name):
    (stored / name).write_bytes(b"{}")
    refused(stored, keys, spy, f"{name} is not in its manifest", {"json"})


def test_a_pickle_inside(stored, keys, spy, tmp_path):
    content = pickle.dumps({"weights": [1.0]})
    (stored / "model.pkl").write_bytes(content)
    refused(stored, keys, spy, "'model.pkl' are not allowed", {"json"})
    (stored / "model.pkl").unlink()
    (stored / "ensemble.json").write_bytes(content)
    refused(stored, keys, spy, "ensemble.json was changed", {"json"})


def test_a_pickle_that_was_signed_under_another_name(tmp_path, keys, spy):
    """By whoever holds the key: still no unpickler, and the model's own parser is not reached."""
    folder = signed(tmp_path, keys, {"gru/weights.safetensors": pickle.dumps({"w": 1})})
    spy.called.clear()
    refused(folder, keys, spy, "is not a safetensors file", {"json", "safetensors"})


@pytest.mark.parametrize("name", ["ensemble.json", "xgboost/rv24.ubj"])
def test_a_link_to_the_right_content(stored, keys, spy, name, tmp_path):
    real = (stored / name).rename(tmp_path / "moved")
    (stored / name).symlink_to(real)
    refused(stored, keys, spy, f"{name} is not a plain file", {"json"})


@pytest.mark.parametrize("length", [2**62, 2**31, 200_000_000])
def test_a_huge_header_in_safetensors(tmp_path, keys, spy, length):
    folder = signed(tmp_path, keys, {"gru/weights.safetensors": struct.pack("<Q", length) + b"{}"})
    refused(folder, keys, spy, "is not a safetensors file", {"json", "safetensors"})


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("gru/weights.safetensors", safetensors.numpy.save({"w": np.array([np.nan])}), "NaN or infinite weights in w"),
        ("gru/weights.safetensors", safetensors.numpy.save({"w": np.array([np.inf])}), "NaN or infinite weights in w"),
        ("ensemble.json", b'{"w": NaN}', "not clean JSON"),
        ("ensemble.json", b'{"w": -Infinity}', "not clean JSON"),
        ("lightgbm/rv24.txt", b"leaf_value=0.1 nan\n", "NaN or infinite values"),
        ("lightgbm/rv24.txt", b"leaf_value=-inf 1\n", "NaN or infinite values"),
    ],
)
def test_numbers_that_are_none_though_signed(tmp_path, keys, spy, name, content, reason):
    folder = signed(tmp_path, keys, {name: content})
    with pytest.raises(BundleRefused, match=reason):
        bundle.load_bundle(folder, keys, spy.load)
    assert "ensemble" not in spy.called


def test_another_feature_specification(stored, keys, spy):
    def load(folder):
        made = Files()
        made.spec_digest = "spec-2"
        return made

    with pytest.raises(BundleRefused, match="feature specification differs"):
        bundle.load_bundle(stored, keys, load)


def flip(file: Path, where: str | int) -> None:
    content = bytearray(file.read_bytes())
    at = {"first": 0, "middle": len(content) // 2, "last": len(content) - 1}.get(where, where)
    content[at] ^= 1
    file.write_bytes(content)
