"""`lstmc ledger`: its exit codes, what it names, and that it never says where with which password."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from actors.prediction_ledger import PredictionLedger
from cluster.cli import app
from cluster.console import run
from configs.settings import Settings, ensure_secrets, make_settings, save_settings
from tests.actors.test_prediction_ledger import HOUR, START, bars, forecast


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("LSTMC_HOME", str(tmp_path))
    settings = make_settings(home=tmp_path)
    ensure_secrets(settings)
    save_settings(settings)
    ledger = PredictionLedger.of(settings)
    ledger.append([forecast(START + i * HOUR) for i in range(1, 6)])
    ledger.settle(bars([1.1, 1.11, 1.12]))
    ledger.close()
    return settings


def tamper(settings: Settings, statement: str) -> None:
    with sqlite3.connect(settings.data_path / "ledger.sqlite") as db:
        db.execute(statement)
    db.close()


def test_an_intact_ledger(installed: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["ledger", "verify"]) == 0
    assert capsys.readouterr().out.startswith("intact: 5 forecasts, 2 outcomes\n")
    assert run(app, ["ledger", "verify", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["intact"], report["broken_rows"], report["first_broken"]) == (True, 0, None)
    assert report["rows"] == {"forecasts": 5, "outcomes": 2}
    assert len(report["heads"]["forecasts"]) == 64


def test_the_first_broken_row_and_how_many(installed: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    tamper(installed, "update forecasts set body = replace(body, '1.1', '1.2') where seq in (2, 4)")
    assert run(app, ["ledger", "verify"]) == 5
    words = capsys.readouterr().out
    assert "NOT INTACT: 2 rows of 5 forecasts, 2 outcomes" in words
    assert "first: forecasts: row 2 was changed after it was written" in words
    assert run(app, ["ledger", "verify", "--json"]) == 5
    report = json.loads(capsys.readouterr().out)
    assert (report["intact"], report["broken_rows"]) == (False, 2)
    assert (report["first_broken"]["chain"], report["first_broken"]["row"]) == ("forecasts", 2)


def test_a_database_that_is_away_is_not_called_broken(installed: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    secret = installed.home_path / "secrets" / "ledger_url"
    secret.write_text("postgresql://desk:s3cr3t@127.0.0.1:1/ledger")
    assert run(app, ["ledger", "verify"]) == 4
    said = capsys.readouterr()
    assert "does not answer" in said.err
    assert "s3cr3t" not in said.out + said.err


def test_past_forecasts_beside_what_happened(installed: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["ledger", "show", "--symbol", "EURUSD", "--limit", "2", "--json"]) == 0
    assert [row["as_of"][11:13] for row in json.loads(capsys.readouterr().out)] == ["05", "04"]
    assert run(app, ["ledger", "show", "--symbol", "eurusd"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["as", "of", "bars"]
    assert len(lines) == 1 + 5 * 2
    assert "+0.905 %" in lines[-2]  # from 1.10 to 1.11
    assert run(app, ["ledger", "show", "--symbol", "EURXXX"]) == 2
