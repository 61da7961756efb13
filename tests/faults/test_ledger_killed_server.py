"""PostgreSQL is killed in the middle of writes and comes back: nothing lost, nothing doubled, the chain intact."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from actors.forecast_record import RETRY_SECONDS, ForecastRecord
from actors.forecast_spool import ForecastSpool
from actors.prediction_ledger import PredictionLedger
from benchmarks.embedded_postgres import Postgres
from market.errors import LedgerUnavailable
from tests.actors.test_prediction_ledger import HOUR, START, bars, forecast

KEY = "a key"
KILLS = 3
BARS_PER_KILL = 30


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.remove()


def test_a_killed_server_costs_no_forecast(postgres: Postgres, tmp_path: Path) -> None:
    wall = [datetime(2026, 1, 1, tzinfo=UTC)]
    market = [START]
    path = tmp_path / "ledger_spool.jsonl"

    def life() -> tuple[PredictionLedger, ForecastRecord]:
        opened = PredictionLedger(postgres.url, KEY, wall=lambda: wall[0], market_now=lambda: market[0])
        return opened, ForecastRecord(opened, ForecastSpool(path, KEY), lambda: wall[0], lambda: market[0])

    ledger, record = life()
    published, spooled = [], 0
    for kill in range(KILLS):
        killer = threading.Thread(target=postgres.kill)
        for i in range(BARS_PER_KILL):
            if i == BARS_PER_KILL // 3:
                killer.start()  # meanwhile the writes go on
            if i == BARS_PER_KILL - 1:
                killer.join()  # at the latest now it is away
            hour = kill * BARS_PER_KILL + i + 1
            market[0], wall[0] = START + hour * HOUR, wall[0] + timedelta(seconds=1)
            made = [forecast(START + hour * HOUR, symbol=symbol) for symbol in ("EURUSD", "GBPUSD")]
            assert record.take(made)
            published += [(f.symbol, f.as_of) for f in made]
            record.settle(bars([1.1] * hour))
        assert "ledger" in record.problems
        if kill == 1:  # the forecaster dies, too, while the server is away
            ledger.close()
            ledger, record = life()
        spooled += record.waiting
        assert record.waiting > 0
        postgres.start()
        wall[0] += timedelta(seconds=RETRY_SECONDS)
        record.replay()
        assert (record.waiting, record.problems) == (0, {})
    record.settle(bars([1.1] * (KILLS * BARS_PER_KILL + 4)))
    verdict = ledger.verify()
    assert verdict.broken == ()
    assert verdict.rows["forecasts"] == len(published) == 2 * KILLS * BARS_PER_KILL
    assert verdict.rows["outcomes"] == len(published)  # EURUSD's, of two horizons each
    for symbol in ("EURUSD", "GBPUSD"):
        history = ledger.history(symbol, "H1", limit=1000)
        assert [row["as_of"] for row in reversed(history)] == [
            when.isoformat().replace("+00:00", "Z") for name, when in published if name == symbol
        ]
        assert sum("spooled_at" in row for row in history) <= spooled
        late = [row for row in history if row["recorded_late"]]
        assert late  # replayed after the end of their first horizon
        assert all(row["spooled_market_time"] < row["horizons"][0]["target_time"] for row in late)
    ledger.close()


def test_a_server_that_is_away_at_the_start_is_found_when_it_comes(postgres: Postgres) -> None:
    postgres.kill()
    ledger = PredictionLedger(postgres.url, KEY)
    with pytest.raises(LedgerUnavailable, match="does not answer"):
        ledger.append([forecast(START + HOUR)])
    postgres.start()
    assert ledger.append([forecast(START + HOUR)]) == 1
    assert ledger.verify().intact
    ledger.close()
