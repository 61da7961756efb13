"""Presets load, and say which key is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from market.errors import ConfigError
from tuning.presets import LEARNERS, Search, load_preset


@pytest.mark.parametrize("name", ["econometric", "quick", "full", "m15"])
def test_every_preset_keeps_the_protocol(name: str):
    preset = load_preset(name)
    assert preset.folds == 5
    assert preset.lockbox_days > 0
    assert preset.families == (() if name == "econometric" else LEARNERS)
    assert preset.scheme(96).embargo >= 96


def test_only_full_searches():
    searching = {name: load_preset(name).search for name in ("econometric", "quick", "full", "m15")}
    assert [name for name, search in searching.items() if search] == ["full"]
    assert searching["full"] == Search(trials=20, share=0.5)


def test_unknown_preset_lists_what_there_is():
    with pytest.raises(ConfigError, match="econometric, quick, full, m15"):
        load_preset("slow")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quick: {fold: 5}", "quick has the unknown key 'fold'"),
        ("quick: {nets: {hiden: 3}}", "quick.nets has the unknown key 'hiden'"),
        ("quick: {families: [prophet]}", "unknown family 'prophet'"),
        ("quick: {trainer: horovod}", "unknown trainer 'horovod'"),
        ("quick: [5]", "quick must hold keys and values"),
        ("quick: {search: {trails: 3}}", "quick.search has the unknown key 'trails'"),
        ("quick: {search: {trials: many}}", "quick.search.trials"),
        ("quick: {boosting: 4}", "quick.boosting must hold keys and values"),
        ("quick: {folds: five}", "quick.folds"),
        ("quick: {nets: {hidden: 2.5}}", "quick.nets.hidden"),
        ("- quick", "no preset"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, text: str, message: str):
    path = tmp_path / "models.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_preset("quick", path)
