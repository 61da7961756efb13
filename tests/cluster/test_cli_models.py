"""`lstmc models ...` on a registry with a sound, an edited, an unsigned and a foreign bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.cli import app
from cluster.console import run
from configs.settings import Settings, ensure_secrets, make_settings, save_settings
from tests.made_bundles import new_bundle
from tuning.bundle import sign
from tuning.bundle_signature import BundleKeys
from tuning.registry import Registry


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("LSTMC_HOME", str(tmp_path / "home"))
    made = make_settings(home=tmp_path / "home")
    ensure_secrets(made)
    save_settings(made)
    return made


@pytest.fixture
def models(settings: Settings, tmp_path: Path) -> dict[str, str]:
    registry = Registry.of(settings)
    made = {
        name: registry.add(new_bundle(tmp_path / name, k, hour=k, report={"targets": {}})).id
        for k, name in enumerate(("sound", "edited", "unsigned"))
    }
    manifest = registry.path(made["edited"]) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"econometric"', '"stack"'))
    (registry.path(made["unsigned"]) / "manifest.sig").unlink()
    return made


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    assert run(app, [*words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_list_shows_whose_signature_holds(
    settings: Settings, models: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    listed = {model["id"]: model for model in said(capsys, "models", "list")}
    own = BundleKeys(settings.model_keys_path).own()
    assert {name: listed[model_id]["signed_by"] for name, model_id in models.items()} == {
        "sound": own,
        "edited": None,
        "unsigned": None,
    }
    assert "changed after it was signed" in listed[models["edited"]]["refused"]
    assert "lstmc train" in listed[models["unsigned"]]["hint"]
    assert run(app, ["models", "list"]) == 0
    words = capsys.readouterr().out
    assert str(own) in words
    assert "it is not signed" in words


def test_what_is_refused_is_neither_shown_nor_promoted(
    models: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("show", "promote"):
        assert run(app, ["models", command, models["edited"]]) == 5
        assert "was refused" in capsys.readouterr().err
    assert run(app, ["models", "show", models["sound"]]) == 0
    assert "signed_by" in capsys.readouterr().out


def test_a_model_without_bars_to_be_tried_on_is_not_promoted(
    models: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, ["models", "promote", models["sound"]]) == 5
    assert "trial process" in capsys.readouterr().err


def test_a_model_from_another_machine_is_refused_until_its_key_is_trusted(
    settings: Settings, models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = BundleKeys(tmp_path / "their_keys")
    folder = new_bundle(tmp_path / "copied", 7, report={"targets": {}})
    sign(folder, theirs)
    model_id = json.loads((folder / "manifest.json").read_text())["version"]["id"]
    folder.rename(settings.registry_path / "models" / model_id)
    assert run(app, ["models", "show", model_id]) == 5
    assert f"lstmc models trust {theirs.own()}.pem" in capsys.readouterr().err
    trusted = said(capsys, "models", "trust", str(theirs.public_file(str(theirs.own()))))
    assert {key["key"]: key["own"] for key in trusted}[theirs.own()] is False
    assert said(capsys, "models", "show", model_id)["signed_by"] == theirs.own()
    assert len(said(capsys, "models", "trust")) == 2
    assert run(app, ["models", "trust", str(tmp_path / "nowhere.pem")]) == 2
