"""`lstmc models replay`: the same bytes each time, the same forecasts as were served, and a revision of a bar is named."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from actors.forecast_spool import ForecastSpool
from actors.forecaster import Forecaster
from actors.prediction_ledger import PredictionLedger
from cluster.cli import app
from cluster.console import run
from configs.settings import Settings, ensure_secrets, make_settings, save_settings
from market.bar_store import BarStore
from market.forecasts import iso_utc
from tuning import retrain
from tuning.experiments import World, simulate
from tuning.registry import Registry

SYMBOLS = ("EURUSD", "USDJPY")
LIVE = 6  # closes that were served


@dataclass
class Served:
    settings: Settings
    model: str
    closes: list[datetime]

    @property
    def words(self) -> list[str]:
        return ["models", "replay", self.model, "--from", self._text(0), "--to", self._text(-1)]

    def _text(self, k: int) -> str:
        return str(iso_utc(self.closes[k]))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A model of stored history, then a forecaster that met each further bar as it closed."""
    settings = make_settings(home=tmp_path_factory.mktemp("home"), symbols=SYMBOLS, timeframes="H1")
    ensure_secrets(settings)
    save_settings(settings)
    bars, store = simulate(World(weeks=20, symbols=SYMBOLS), seed=31), BarStore(settings.bars_path)
    past = {symbol: table.slice(0, table.num_rows - LIVE) for symbol, table in bars.items()}
    for table in past.values():
        store.append(table)
    registry = Registry.of(settings)
    model = retrain.econometric_champion(settings, "H1").id
    bundle, ledger = registry.load(model), PredictionLedger.of(settings)
    forecaster = Forecaster(
        registry=registry,
        tails=lambda symbols, timeframe, n: {symbol: store.tail(symbol, timeframe, n) for symbol in symbols},
        predict=lambda model_id, tails: bundle.forecast(tails),
        warm=lambda model_id, prove: {"ok": True, "reason": "", "bars_needed": bundle.bars_needed},
        publish=lambda update: None,
        ledger=ledger,
        spool=ForecastSpool(settings.spool_path, "key"),
        now=lambda: bars["EURUSD"]["close_time"][-1].as_py(),
        settings=settings,
        data_version=store.data_version,
    )
    forecaster.step()
    for k in range(LIVE):
        closed = [table.slice(table.num_rows - LIVE + k, 1) for table in bars.values()]
        store.append(pa.concat_tables(closed))
        forecaster.on_bars(closed)
    ledger.close()
    closes = [time.as_py() for time in bars["EURUSD"]["close_time"][-LIVE - 1 :]]
    return Served(settings, model, closes)


@pytest.fixture(autouse=True)
def home(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSTMC_HOME", str(served.settings.home_path))


def said(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert run(app, [*words, "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_two_replays_are_the_same_bytes(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    answers = [said(capsys, *served.words, "--out", str(file)) for file in files]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert answers[0] == answers[1]
    lines = files[0].read_text().splitlines()
    assert len(lines) == answers[0]["count"] == (LIVE + 1) * len(SYMBOLS)
    assert json.loads(lines[0])["horizons"][1]["quantiles"]["0.95"] > 0


def test_a_replay_is_what_was_served(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = said(capsys, *served.words)["ledger"]
    assert ledger == {"recorded": (LIVE + 1) * 2, "same": (LIVE + 1) * 2, "different": [], "reason": ""}
    one = said(capsys, *served.words, "--symbols", "USDJPY")
    assert {forecast["symbol"] for forecast in one["forecasts"]} == {"USDJPY"}
    assert one["ledger"]["same"] == LIVE + 1
    assert run(app, served.words) == 0
    assert "14 of them are in the ledger, 14 are the same" in capsys.readouterr().out


def test_a_revised_bar_is_seen_and_the_bars_as_they_were_are_still_there(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    before = said(capsys, *served.words)
    store = BarStore(served.settings.bars_path)
    newest = store.read(["EURUSD"], "H1")
    row = newest.slice(newest.num_rows - 6, 1)
    at = row.schema.get_field_index("close")
    revised = row.set_column(at, row.schema.field("close"), pc.multiply(row["close"], 1.0001))
    assert store.append(revised).revised.num_rows == 1
    after = said(capsys, *served.words)
    assert after["sha256"] != before["sha256"]
    different = after["ledger"]["different"]
    assert {d["symbol"] for d in different} == {"EURUSD"}
    assert [d["as_of"] for d in different] == [iso_utc(close) for close in served.closes[-6:]]
    assert said(capsys, *served.words, "--data-version", before["data_version"]) == before


@pytest.mark.parametrize(
    ("changed", "code", "says"),
    [
        ({2: "h1-none"}, 5, "no model"),
        ({4: "yesterday"}, 2, "is not a time"),
        ({4: "2099-01-01"}, 2, "--from is after --to"),
    ],
)
def test_bad_input(
    served: Served, changed: dict[int, str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [changed.get(k, word) for k, word in enumerate(served.words)]
    assert run(app, words) == code
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "says"),
    [(["--symbols", "GBPUSD"], "knows none of GBPUSD"), (["--data-version", "bars@999"], "no version 'bars@999'"),
     (["--data-version", "12"], "no version '12'")],
)  # fmt: skip
def test_bad_options(served: Served, more: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, [*served.words, *more]) == 2
    assert says in capsys.readouterr().err
