"""A ledger that is backed up out of one database and comes back into it."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.prediction_ledger import PredictionLedger
from benchmarks.embedded_postgres import Postgres
from cluster.backup import backup
from cluster.restore import restore
from configs.settings import ensure_secrets, load_settings, make_settings, save_settings
from market.errors import LedgerError, SecondWriter
from tests.actors.test_prediction_ledger import HOUR, START, bars, forecast


def test_a_ledger_in_postgresql_comes_back(postgres: Postgres, tmp_path: Path) -> None:
    settings = make_settings(home=tmp_path / "home", seed=4711)  # a schema of its own
    ensure_secrets(settings)
    save_settings(settings)
    (settings.home_path / "secrets" / "ledger_url").write_text(postgres.url)
    ledger = PredictionLedger.of(settings)
    ledger.append([forecast(START + i * HOUR) for i in range(1, 8)])
    ledger.settle(bars([1.1, 1.11, 1.12]))
    before = ledger.verify()
    backup(settings, tmp_path / "b")  # while its writer lives
    ledger.append([forecast(START + 9 * HOUR)])
    with pytest.raises(SecondWriter):
        restore(tmp_path / "b", tmp_path / "again", force=True)
    ledger.close()
    with pytest.raises(LedgerError, match="holds rows already"):
        restore(tmp_path / "b", tmp_path / "again")
    assert not (tmp_path / "again" / "settings.json").exists()
    assert restore(tmp_path / "b", tmp_path / "again", force=True)["forecasts"] == 7
    restored = PredictionLedger.of(load_settings(tmp_path / "again"))
    assert restored.verify() == before
    assert before.intact
    assert restored.append([forecast(START + 9 * HOUR)]) == 1, "the chain goes on"
    assert restored.verify().intact
    restored.close()
    assert not list((tmp_path / "again").rglob("ledger.sqlite*"))
