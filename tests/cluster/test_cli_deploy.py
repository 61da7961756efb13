"""`lstmc deploy nginx` writes what nginx takes; `lstmc roll` needs something that runs."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.cli import app
from cluster.edge import CONFIG
from configs.settings import ensure_secrets, make_settings, save_settings
from market.errors import InputError, NotRunning


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = make_settings(home=tmp_path / "home", port=18000, trusted_proxies="127.0.0.1")
    ensure_secrets(made)
    save_settings(made)
    monkeypatch.setenv("LSTMC_HOME", str(made.home_path))
    return made.home_path


def test_the_configuration_names_what_was_given(home: Path, tmp_path: Path) -> None:
    words = [
        "deploy",
        "nginx",
        "--name",
        "FX.example,10.8.0.1",
        "--out",
        str(tmp_path / "nginx"),
        "--rate",
        "7",
        "--json",
    ]
    said = json.loads(CliRunner().invoke(app, words, catch_exceptions=False).stdout)
    text = (tmp_path / "nginx" / CONFIG).read_text()
    assert said["config"] == str(tmp_path / "nginx" / CONFIG)
    for part in ("fx.example 0;", "10.8.0.1 0;", "rate=7r/s", "server 127.0.0.1:18000 max_fails=0;", "listen 443 ssl"):
        assert part in text, part
    assert "%%" not in text
    [key] = (tmp_path / "nginx" / "tls").glob("*key*")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    CliRunner().invoke(app, words, catch_exceptions=False)  # again: the same certificate
    assert key.read_bytes() == before


def test_several_upstreams_may_be_out_one_by_one(home: Path, tmp_path: Path) -> None:
    given = ["--upstreams", "10.8.0.1:8000,10.8.0.2:8000", "--certificate", "/c.pem", "--key", "/k.pem"]
    words = ["deploy", "nginx", "--name", "fx.example", "--out", str(tmp_path / "nginx"), *given]
    CliRunner().invoke(app, words, catch_exceptions=False)
    text = (tmp_path / "nginx" / CONFIG).read_text()
    assert "server 10.8.0.1:8000 max_fails=2" in text
    assert "ssl_certificate /c.pem;" in text
    assert not (tmp_path / "nginx" / "tls").exists()


def test_a_certificate_without_its_key_is_refused(home: Path, tmp_path: Path) -> None:
    words = ["deploy", "nginx", "--name", "fx.example", "--out", str(tmp_path), "--certificate", "/c.pem"]
    with pytest.raises(InputError, match="belong together"):
        CliRunner().invoke(app, words, catch_exceptions=False)


def test_nothing_that_runs_cannot_be_rolled(home: Path) -> None:
    with pytest.raises(NotRunning, match="Nothing runs"):
        CliRunner().invoke(app, ["roll"], catch_exceptions=False)
