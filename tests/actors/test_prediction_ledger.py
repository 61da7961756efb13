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

from actors.forecast_spool import SpooledForecast
from actors.prediction_ledger import PredictionLedger
from market.bars import bars_from_columns
from market.errors import LedgerBroken, SecondWriter
from market.forecasts import Forecast, HorizonForecast
from market.timeframes import Timeframe
from tests.actors.conftest import LedgerPlace

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
    assert ledger.oldest_pending() == {}


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
    assert ledger.oldest_pending() == {("EURUSD", "H1"): START + HOUR}


def test_an_outcome_says_whether_it_was_inside(ledger: PredictionLedger) -> None:
    closes = [1.0, math.exp(0.004), math.exp(0.004 + 0.007), math.exp(0.011 + 0.02)]  # steps .004, .007, .02
    ledger.append([forecast(START + (i + 1) * HOUR) for i in range(3)])  # 80 %: +-.005, 90 %: +-.01
    ledger.settle(bars(closes))
    inside = [
        (row.outcome["inside80"], row.outcome["inside90"]) for row in ledger.settled("H1") if row.horizon["bars"] == 1
    ]
    assert inside == [(True, True), (False, True), (False, False)]


def test_several_series_are_settled_at_once_and_a_backlog_in_pieces(
    ledger: PredictionLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.ledger_outcomes.BATCH", 4)
    pairs = ("EURUSD", "GBPUSD")
    ledger.append([forecast(START + i * HOUR, symbol=symbol) for i in range(1, 5) for symbol in pairs])
    assert ledger.settle(*(bars([1.1, 1.11, 1.12, 1.13, 1.14], symbol) for symbol in pairs)) == 2 * (4 + 2)
    assert ledger.verify().intact
    assert ledger.oldest_pending() == {(symbol, "H1"): START + 3 * HOUR for symbol in pairs}
    oldest_first = ["EURUSD"] * 2 + ["GBPUSD"] * 2
    assert [row.symbol for row in ledger.settled("H1")] == oldest_first * 2 + ["EURUSD", "GBPUSD"] * 2


def test_history_is_newest_first_and_pages(ledger: PredictionLedger) -> None:
    ledger.append([forecast(START + i * HOUR) for i in range(1, 6)])
    page = ledger.history("EURUSD", "H1", limit=2)
    assert [row["as_of"] for row in page] == ["2024-03-04T05:00:00Z", "2024-03-04T04:00:00Z"]
    older = ledger.history("EURUSD", "H1", limit=9, before=START + 4 * HOUR)
    assert [row["as_of"][11:13] for row in older] == ["03", "02", "01"]


def test_paging_by_row_is_not_shifted_by_what_arrives(ledger: PredictionLedger) -> None:
    ledger.append([forecast(START + i * HOUR, model=model) for i in (1, 2, 3) for model in ("old", "new")])
    rows = ledger.history("EURUSD", "H1", limit=3)
    assert [(row["as_of"][12], row["model_id"], row["seq"]) for row in rows] == [
        ("3", "new", 6),
        ("3", "old", 5),
        ("2", "new", 4),
    ]
    ledger.append([forecast(START + 4 * HOUR)])
    after = (START + 2 * HOUR, 4)
    rest = ledger.history("EURUSD", "H1", after=after)
    assert [(row["as_of"][12], row["seq"]) for row in rest] == [("2", 3), ("1", 2), ("1", 1)]
    ranged = ledger.history("EURUSD", "H1", since=START + 2 * HOUR, before=START + 3 * HOUR, after=after)
    assert [row["seq"] for row in ranged] == [3]


def written(ledger: PredictionLedger) -> None:
    ledger.append([forecast(START + i * HOUR) for i in range(1, 4)])
    ledger.settle(bars([1.1, 1.11, 1.12]))


TAMPER = [
    ("update forecasts set body = replace(body, '1.1', '1.2') where seq = 2", "forecasts: row 2 was changed", 1),
    ("update forecasts set as_of = '2024-01-01T00:00:00Z' where seq = 1", "forecasts: row 1 was changed", 1),
    ("update outcomes set inside80 = not inside80 where seq = 1", "outcomes: row 1 was changed", 1),
    ("update outcomes set body = replace(body, '1.11', '1.12') where seq = 1", "outcomes: row 1 was changed", 1),
    ("delete from forecasts where seq = 2", "forecasts: row 2 is missing", 1),
    ("delete from forecasts where seq < 3", "forecasts: rows 1 to 2 are missing", 2),
    ("delete from forecasts where seq = 3", "forecasts: the end of the chain was cut off", 1),
    ("delete from forecasts", "forecasts: the end of the chain was cut off or replaced, after row 0", 3),
    ("delete from outcomes where seq = 2", "outcomes: the end of the chain was cut off", 1),
    (
        "insert into forecasts select 4, symbol, timeframe, '2024-03-04T09:00:00Z', model_id, body, hash, hash"
        " from forecasts where seq = 3",
        "forecasts: row 4 was changed",
        1,
    ),
    (
        "insert into forecasts select 0, symbol, timeframe, '2024-03-04T09:00:00Z', model_id, body, hash, hash"
        " from forecasts where seq = 3",
        "forecasts: row 0 was put in",
        1,
    ),
    ("delete from seals where chain = 'outcomes'", "outcomes: the end of the chain was cut off", 1),
    ("update seals set seal = replace(seal, substr(seal, 1, 1), 'g')", "forecasts: the end of the chain", 1),
    ("update seals set rows = 2 where chain = 'forecasts'", "forecasts: the end of the chain", 1),
    ("insert into seals values ('more', 1, 'x')", "more: a seal without a chain", 1),
    ("delete from pending where forecast_seq = 3 and bars = 1", "pending: what forecast 3 waits for was changed", 1),
    ("update pending set as_of = '2024-03-04T09:00:00Z' where forecast_seq = 3", "pending: what forecast 3", 1),
]


@pytest.mark.parametrize(("tamper", "complaint", "rows"), TAMPER, ids=[complaint for _, complaint, _ in TAMPER])
def test_verify_finds_every_edit(
    place: LedgerPlace, ledger: PredictionLedger, tamper: str, complaint: str, rows: int
) -> None:
    written(ledger)
    verdict = ledger.verify()
    assert (verdict.intact, verdict.rows) == (True, {"forecasts": 3, "outcomes": 2})
    assert place.sql(tamper) >= 1
    found = [broken for broken in ledger.verify().broken if str(broken).startswith(complaint)]
    assert [broken.rows for broken in found] == [rows]


def test_verify_finds_rows_that_changed_places(place: LedgerPlace, ledger: PredictionLedger) -> None:
    written(ledger)
    place.sql(*(f"update forecasts set seq = {new} where seq = {old}" for old, new in ((1, 9), (2, 1), (9, 2))))
    complaints = [str(broken) for broken in ledger.verify().broken if broken.chain == "forecasts"]
    assert complaints[:2] == [f"forecasts: row {seq} was changed after it was written" for seq in (1, 2)]


def test_a_chain_whose_end_was_cut_off_is_not_continued(place: LedgerPlace, ledger: PredictionLedger) -> None:
    written(ledger)
    place.sql("delete from forecasts where seq = 3")
    with pytest.raises(LedgerBroken, match="forecasts"):
        ledger.append([forecast(START + 4 * HOUR)])
    assert ledger.count() == 2  # a new seal would have hidden the cut
    assert not ledger.verify().intact


@pytest.mark.parametrize("left", [0, 1])
def test_an_older_copy_of_the_outcomes_does_not_fit(place: LedgerPlace, ledger: PredictionLedger, left: int) -> None:
    """With the seal and the to-do list of that time: all that an intruder without the key can put back."""
    ledger.append([forecast(START + i * HOUR) for i in range(1, 4)])
    ledger.settle(bars([1.1, 1.11]))
    old_seal = ledger._chains._seal(1, ledger.verify().heads["outcomes"])
    ledger.settle(bars([1.1, 1.11, 1.12]))
    ledger.append([forecast(START + 4 * HOUR)])  # it has seen two outcomes
    place.sql(
        "insert into pending select o.forecast_seq, o.bars, f.symbol, f.timeframe, f.as_of from outcomes o"
        f" join forecasts f on f.seq = o.forecast_seq where o.seq > {left}",
        f"delete from outcomes where seq > {left}",
        "delete from seals where chain = 'outcomes'",
        *([f"insert into seals values ('outcomes', 1, '{old_seal}')"] if left else []),
    )
    found = "outcomes: row 2 is not the one that forecast 4 has seen: the chain is an older copy, or was made anew"
    assert [str(broken) for broken in ledger.verify().broken] == [found]
    ledger.settle(bars([1.1, 1.11, 1.125]))  # joined anew, with another price
    assert [str(broken) for broken in ledger.verify().broken] == [found]


def test_another_key_neither_verifies_nor_writes(place: LedgerPlace, ledger: PredictionLedger) -> None:
    ledger.append([forecast(START + HOUR)])
    ledger.close()
    stranger = place.ledger("other")
    assert not stranger.verify().intact
    with pytest.raises(LedgerBroken, match="another key"):
        stranger.append([forecast(START + 2 * HOUR)])
    stranger.close()


def test_a_second_life_continues_the_chain(place: LedgerPlace, ledger: PredictionLedger) -> None:
    ledger.append([forecast(START + HOUR)])
    ledger.close()
    again = place.ledger()
    again.append([forecast(START + 2 * HOUR)])
    assert again.verify().intact
    assert again.count() == 2
    again.close()


def test_a_second_writer_is_refused_and_readers_are_not(place: LedgerPlace, ledger: PredictionLedger) -> None:
    ledger.append([forecast(START + HOUR)])
    other = place.ledger()
    with pytest.raises(SecondWriter, match="Another process writes the ledger"):
        other.append([forecast(START + 2 * HOUR)])
    assert other.count() == 1
    ledger.append([forecast(START + 2 * HOUR)])  # the first one was not disturbed
    ledger.close()
    assert other.append([forecast(START + 3 * HOUR)]) == 1
    assert other.verify().rows["forecasts"] == 3
    other.close()


def test_a_forecast_says_when_it_was_recorded_and_whether_that_was_late(place: LedgerPlace) -> None:
    market = [START + HOUR]
    wall = datetime(2026, 1, 1, tzinfo=UTC)
    ledger = place.ledger(wall=lambda: wall, market_now=lambda: market[0])
    spooled = SpooledForecast(forecast(START + 2 * HOUR).record(), "2025-12-31T23:00:00Z", "2024-03-04T02:00:01Z")
    ledger.append([forecast(START + HOUR)])
    market[0] = START + 3 * HOUR  # where the first horizon of the second one ends
    ledger.append([spooled])
    late, in_time = ledger.history("EURUSD", "H1")
    assert (in_time["recorded_late"], in_time["recorded_at"]) == (False, "2026-01-01T00:00:00Z")
    assert "spooled_at" not in in_time
    assert (late["recorded_late"], late["recorded_market_time"]) == (True, "2024-03-04T03:00:00Z")
    assert (late["spooled_at"], late["spooled_market_time"]) == (spooled.spooled_at, spooled.market_time)
    ledger.close()


def test_the_closes_of_a_model_are_counted_without_bodies(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = LedgerPlace(f"sqlite:///{path}").ledger()
    asked: list[tuple[str, object]] = []
    ledger.append([forecast(START + i * HOUR, symbol=symbol) for i in (1, 2) for symbol in ("EURUSD", "GBPUSD")])
    sa.event.listen(ledger._database.engine, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
    assert ledger.closes("h1-0", "H1") == [(START + HOUR, 1), (START + 2 * HOUR, 3)]
    query, values = asked[-1]
    with sqlite3.connect(path) as db:
        plan = [row[3] for row in db.execute(f"explain query plan {query}", values)]  # type: ignore[arg-type]
    db.close()
    assert "COVERING INDEX forecasts_by_model" in plan[0]
    ledger.close()


def test_one_model_and_symbol_from_a_close_on_as_far_as_it_was_known(ledger: PredictionLedger) -> None:
    ledger.append([forecast(START + i * HOUR, model=model) for i in range(1, 5) for model in ("h1-0", "h1-1")])
    ledger.settle(bars([1.1, 1.11, 1.12, 1.13, 1.14]))
    every = ledger.settled("H1")
    known = every[-3].seq

    def asked(symbol: str) -> list[int]:
        return [row.seq for row in ledger.settled_of("h1-1", "H1", symbol, START + 2 * HOUR, known)]

    assert asked("EURUSD") == [
        row.seq for row in every if row.model_id == "h1-1" and row.as_of > START + HOUR and row.seq <= known
    ]
    assert asked("GBPUSD") == []
    assert ledger.newest("H1", ["EURUSD", "GBPUSD"])["EURUSD"]["model_id"] == "h1-1"
    assert ledger.made_at(1) == START
