"""The ledger: written once, chained, joined with what happened."""

from __future__ import annotations

import math
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa

from actors.prediction_ledger import PredictionLedger
from market.bars import bars_from_columns
from market.forecasts import Forecast, HorizonForecast
from market.timeframes import Timeframe

START = datetime(2024, 3, 4, tzinfo=UTC)  # a Monday
HOUR = timedelta(hours=1)


def bars(closes: list[float], symbol: str = "EURUSD", start: datetime = START) -> pa.Table:
    close = np.array(closes)
    opens = np.array([start.replace(tzinfo=None) + i * HOUR for i in range(len(closes))], "datetime64[us]")
    return bars_from_columns(symbol, Timeframe.H1, opens, close, close, close, close, received_at=START)


def forecast(as_of: datetime, *, symbol: str = "EURUSD", model: str = "h1-0", half_width: float = 0.01) -> Forecast:
    quantiles = {"0.05": -half_width, "0.10": -half_width / 2, "0.50": 0.0, "0.90": half_width / 2, "0.95": half_width}
    horizons = tuple(HorizonForecast(h, as_of + h * HOUR, 0.001, 1.0, quantiles, None, 0.5) for h in (1, 3))
    return Forecast(symbol, "H1", as_of, 1.1, horizons, model, "bars@1", START, "simulated")


@pytest.fixture
def ledger(tmp_path: Path) -> PredictionLedger:
    return PredictionLedger(f"sqlite:///{tmp_path / 'ledger.sqlite'}", "a key")


def test_one_forecast_per_bar_and_model(ledger: PredictionLedger) -> None:
    first = forecast(START + HOUR)
    assert ledger.append([first, first]) == 1
    assert ledger.append([first]) == 0
    assert ledger.append([forecast(START + HOUR, model="h1-1"), forecast(START + HOUR, symbol="GBPUSD")]) == 2
    assert ledger.count() == 3


def test_outcome_is_the_hth_bar_after_the_as_of_bar(ledger: PredictionLedger) -> None:
    ledger.append([forecast(START + HOUR)])  # made at the close of the first bar, 1.10
    assert ledger.settle(bars([1.10])) == 0
    assert ledger.settle(bars([1.10, 1.11])) == 1
    assert ledger.settle(bars([1.10, 1.11, 1.10, 1.12])) == 1
    outcomes = ledger.history("EURUSD", "H1")[0]["outcomes"]
    assert outcomes["1"]["return"] == pytest.approx(math.log(1.11 / 1.10))
    assert outcomes["1"]["closed_at"] == "2024-03-04T02:00:00Z"
    assert outcomes["3"]["return"] == pytest.approx(math.log(1.12 / 1.10))
    steps = [math.log(1.11 / 1.10), math.log(1.10 / 1.11), math.log(1.12 / 1.10)]
    assert outcomes["3"]["volatility"] == pytest.approx(math.sqrt(sum(s * s for s in steps)))
    assert ledger.oldest_pending("EURUSD", "H1") is None


def test_a_weekend_does_not_shorten_a_horizon(ledger: PredictionLedger) -> None:
    monday = START + timedelta(days=7)
    ledger.append([forecast(START + HOUR)])
    assert ledger.settle(pa.concat_tables([bars([1.10, 1.11]), bars([1.12, 1.13], start=monday)])) == 2
    outcome = ledger.history("EURUSD", "H1")[0]["outcomes"]["3"]
    assert outcome["closed_at"] == "2024-03-11T02:00:00Z"


def test_an_outcome_waits_while_its_as_of_bar_is_not_among_the_bars(ledger: PredictionLedger) -> None:
    ledger.append([forecast(START + HOUR)])
    later = bars([1.1] * 9, start=START + 5 * HOUR)
    assert ledger.settle(later) == 0
    assert ledger.oldest_pending("EURUSD", "H1") == START + HOUR


def test_live_coverage_counts_inside_and_outside(ledger: PredictionLedger) -> None:
    closes = [1.0, math.exp(0.004), math.exp(0.004 + 0.007), math.exp(0.011 + 0.02)]  # steps .004, .007, .02
    ledger.append([forecast(START + (i + 1) * HOUR) for i in range(3)])  # 80 %: +-.005, 90 %: +-.01
    ledger.settle(bars(closes))
    coverage = ledger.coverage("H1", 1)
    assert (coverage.n, coverage.cov80, coverage.cov90) == (3, pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert ledger.coverage("H1", 1, "EURUSD").n == 3
    assert ledger.coverage("H1", 1, "GBPUSD").cov80 is None


def test_history_is_newest_first_and_pages(ledger: PredictionLedger) -> None:
    ledger.append([forecast(START + i * HOUR) for i in range(1, 6)])
    page = ledger.history("EURUSD", "H1", limit=2)
    assert [row["as_of"] for row in page] == ["2024-03-04T05:00:00Z", "2024-03-04T04:00:00Z"]
    older = ledger.history("EURUSD", "H1", limit=9, before=START + 4 * HOUR)
    assert [row["as_of"][11:13] for row in older] == ["03", "02", "01"]


@pytest.mark.parametrize(
    ("tamper", "complaint"),
    [
        ("update forecasts set body = replace(body, '1.1', '1.2') where seq = 2", "forecasts: row 2 was changed"),
        ("update forecasts set as_of = '2024-01-01T00:00:00Z' where seq = 1", "forecasts: row 1 was changed"),
        ("update outcomes set inside80 = not inside80 where seq = 1", "outcomes: row 1 was changed"),
        ("delete from forecasts where seq = 2", "forecasts: row 2 is missing"),
        ("delete from forecasts where seq = 3", "forecasts: the end of the chain was cut off"),
        ("delete from seals where chain = 'outcomes'", "outcomes: the end of the chain was cut off"),
    ],
)
def test_verify_finds_every_edit(tmp_path: Path, ledger: PredictionLedger, tamper: str, complaint: str) -> None:
    ledger.append([forecast(START + i * HOUR) for i in range(1, 4)])
    ledger.settle(bars([1.1, 1.11, 1.12]))
    assert ledger.verify() == []
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        assert db.execute(tamper).rowcount == 1
    db.close()
    assert any(problem.startswith(complaint) for problem in ledger.verify())


def test_another_key_does_not_verify(tmp_path: Path, ledger: PredictionLedger) -> None:
    ledger.append([forecast(START + HOUR)])
    assert PredictionLedger(f"sqlite:///{tmp_path / 'ledger.sqlite'}", "other").verify()


def test_a_second_life_continues_the_chain(tmp_path: Path, ledger: PredictionLedger) -> None:
    ledger.append([forecast(START + HOUR)])
    again = PredictionLedger(f"sqlite:///{tmp_path / 'ledger.sqlite'}", "a key")
    again.append([forecast(START + 2 * HOUR)])
    assert again.verify() == []
    assert again.count() == 2


@pytest.mark.parametrize("symbol", ["EURUSD", None])
def test_coverage_reads_an_index_and_no_bodies(tmp_path: Path, ledger: PredictionLedger, symbol: str | None) -> None:
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path) as db:  # a ledger that was made before there was an index
        db.execute("drop index outcomes_coverage")
    db.close()
    again = PredictionLedger(f"sqlite:///{path}", "a key")
    asked: list[tuple[str, object]] = []
    sa.event.listen(again._engine, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
    again.coverage("H1", 24, symbol)
    query, values = asked[-1]
    with sqlite3.connect(path) as db:
        plan = db.execute(f"explain query plan {query}", values).fetchall()  # type: ignore[arg-type]
    db.close()
    assert "COVERING INDEX outcomes_coverage" in str(plan)
