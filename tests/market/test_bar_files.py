"""Reading folders of recorded bars: forms, clocks, corrupt rows, and what is said when something is wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from market.bar_files import folder_contents, read_bar_file, read_bar_folder
from market.bars import BAR_SCHEMA
from market.broker_clock import BrokerClock
from market.calendar import expected_opens
from market.clock_agreement import disagreements
from market.errors import BadBars
from market.timeframes import Timeframe

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EXPORT = (
    "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\n"
    "2020.03.02\t00:00:00\t1.10300\t1.10400\t1.10200\t1.10350\t1200\t0\t8\n"
    "2020.03.02\t01:00:00\t1.10350\t1.10500\t1.10300\t1.10450\t-1\t0\t9\n"
)


def write(folder: Path, name: str, **columns: object) -> Path:
    path = folder / name
    times = np.array(["2020-03-02T00", "2020-03-02T01", "2020-03-02T02"], "datetime64[s]")
    given: dict[str, object] = {
        "time": times,
        "open": [1.1] * 3,
        "high": [1.2] * 3,
        "low": [1.0] * 3,
        "close": [1.1] * 3,
    }
    given = {name: values for name, values in (given | columns).items() if values is not None}
    pa.parquet.write_table(pa.table(given), path)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_metatraders_own_export(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "EURUSD_H1.csv"
    path.write_bytes(EXPORT.encode(encoding))
    recorded = read_bar_file(path, received_at=NOW)
    assert recorded.bars.schema == BAR_SCHEMA
    rows = recorded.bars.to_pylist()
    assert [row["open_time"] for row in rows] == [datetime(2020, 3, 2, hour, tzinfo=UTC) for hour in (0, 1)]
    assert [row["tick_volume"] for row in rows] == [1200, None], "-1 means: the source has none"
    assert [row["spread_points"] for row in rows] == [8, 9]
    assert (rows[0]["open"], rows[0]["high"], rows[0]["low"], rows[0]["close"]) == (1.103, 1.104, 1.102, 1.1035)


def test_a_daily_export_has_no_time_column(tmp_path: Path) -> None:
    path = tmp_path / "EURUSD_D1.csv"
    path.write_text("<DATE>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\n2020.03.02\t1.1\t1.2\t1.0\t1.1\n")
    assert read_bar_file(path, received_at=NOW).bars["open_time"].to_pylist() == [datetime(2020, 3, 2, tzinfo=UTC)]


@pytest.mark.parametrize(
    "text",
    [
        "time,open,high,low,close\n2020-03-02 14:00:00,1.1,1.2,1.0,1.1\n",
        "Date;Open;High;Low;Close;Volume\n2020-03-02 14:00;1.1;1.2;1.0;1.1;7\n",
        "timestamp,Open,High,Low,Close\n1583157600,1.1,1.2,1.0,1.1\n",
        "timestamp,Open,High,Low,Close\n1583157600000,1.1,1.2,1.0,1.1\n",
    ],
)
def test_other_csv_forms(tmp_path: Path, text: str) -> None:
    path = tmp_path / "EURUSD_H1.csv"
    path.write_text(text)
    opened = read_bar_file(path, received_at=NOW).bars["open_time"].to_pylist()
    assert opened == [datetime(2020, 3, 2, 14, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"close": None}, r"lacks the column 'close'.*low \(double\)"),
        ({"time": None}, "lacks the column 'time'"),
        ({"close": ["a", "b", "c"]}, "'close' is of type string"),
        ({"time": ["monday", "tuesday", "friday"]}, "'monday' is in no known form"),
        ({"time": [1.0, 2.0, 3.0]}, "'time' is of type double"),
    ],
)
def test_columns_that_do_not_fit_are_named(tmp_path: Path, columns: dict[str, object], says: str) -> None:
    path = write(tmp_path, "EURUSD_H1.parquet", **columns)
    with pytest.raises(BadBars, match=says):
        read_bar_file(path, received_at=NOW)


@pytest.mark.parametrize(
    "time", ["0001.01.01 00:00", "9999.01.01 00:00", "1583157600000000000", "1583157600000000", "-5"]
)
def test_a_time_that_no_bar_can_have_is_refused(tmp_path: Path, time: str) -> None:
    path = tmp_path / "EURUSD_H1.csv"
    path.write_text(f"time,open,high,low,close\n{time},1,1,1,1\n")
    with pytest.raises(BadBars, match="outside 1970 to 2200"):
        read_bar_file(path, received_at=NOW)
    with pytest.raises(BadBars, match="outside 1970 to 2200"):
        folder_contents(tmp_path)


@pytest.mark.parametrize("spread", ["1e12", "inf", "-1", ""])
def test_a_spread_that_is_none_is_null(tmp_path: Path, spread: str) -> None:
    path = tmp_path / "EURUSD_H1.csv"
    path.write_text(f"time,open,high,low,close,spread\n2020.03.02 14:00,1,1,1,1,{spread}\n2020.03.02 15:00,1,1,1,1,7\n")
    assert read_bar_file(path, received_at=NOW).bars["spread_points"].to_pylist() == [None, 7]


def test_folders_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadBars, match="does not exist"):
        read_bar_folder(tmp_path / "nowhere", received_at=NOW)
    with pytest.raises(BadBars, match="no bar files"):
        read_bar_folder(tmp_path, received_at=NOW)
    write(tmp_path, "EURUSD_H1.parquet")
    with pytest.raises(BadBars, match=r"no files of M15.*EURUSD_H1\.parquet"):
        read_bar_folder(tmp_path, timeframe="M15", received_at=NOW)
    with pytest.raises(BadBars, match="is a file"):
        read_bar_folder(tmp_path / "EURUSD_H1.parquet", received_at=NOW)


@pytest.mark.parametrize("name", ["EURUSD_H1.parquet", "EURUSD_H1.csv"])
def test_unreadable_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PAR1 \x00\xff\xfe this is not it")
    with pytest.raises(BadBars, match="EURUSD_H1"):
        read_bar_folder(tmp_path, received_at=NOW)
    with pytest.raises(BadBars, match="EURUSD_H1"):
        folder_contents(tmp_path)


def test_only_exact_names_count_in_a_folder(tmp_path: Path) -> None:
    for name in ("EURUSD_H1.parquet", "EURUSD_H1_dirty.parquet", "ABCDEF_H1.parquet", "USDJPY_W1.parquet"):
        write(tmp_path, name)
    (tmp_path / "EURUSD_H1.csv").write_text(EXPORT)
    (tmp_path / "notes.csv").write_text("x")
    assert [(one.symbol, one.bars.num_rows) for one in read_bar_folder(tmp_path, received_at=NOW)] == [("EURUSD", 3)]
    contents = folder_contents(tmp_path)
    assert contents == {("EURUSD", "H1"): (datetime(2020, 3, 2, tzinfo=UTC), datetime(2020, 3, 2, 3, tzinfo=UTC))}
    assert read_bar_file(tmp_path / "EURUSD_H1_dirty.parquet", received_at=NOW).bars.num_rows == 3


def test_corrupt_rows_are_set_aside_with_their_reasons(tmp_path: Path) -> None:
    n = 40
    times = np.datetime64("2020-03-02", "s") + np.arange(n) * np.timedelta64(1, "h")
    price = np.full(n, 1.1)
    o, h, low, c = price.copy(), price + 0.01, price - 0.01, price.copy()
    h[5] *= 1000
    c[7] = np.nan
    low[9] = -1
    h[11] = 1.0
    times[13] += np.timedelta64(7, "m")
    path = write(tmp_path, "EURUSD_H1.parquet", time=times, open=o, high=h, low=low, close=c)
    recorded = read_bar_file(path, received_at=NOW)
    found = {row["open_time"].hour: row["reason"] for row in recorded.quarantined.to_pylist()}
    assert found == {5: "price_jump", 7: "not_a_number", 9: "not_positive", 11: "misordered_prices", 13: "off_grid"}
    assert recorded.bars.num_rows == n - 5


def test_a_broker_clock_is_believed_against_its_label(tmp_path: Path) -> None:
    opens = expected_opens(Timeframe.H1, datetime(2019, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC))
    n = len(opens)
    table = pa.table(
        {
            "time": BrokerClock("new_york").to_server(opens),
            "open": [1.1] * n,
            "high": [1.1] * n,
            "low": [1.1] * n,
            "close": [1.1] * n,
        }
    )
    pa.parquet.write_table(table.replace_schema_metadata({"server_tz": "UTC"}), tmp_path / "EURUSD_H1.parquet")
    (recorded,) = read_bar_folder(tmp_path, received_at=NOW)
    assert (recorded.bars["open_time"].to_numpy().astype("datetime64[s]") == opens).all()
    assert recorded.clock["rule"] == "new_york"
    assert recorded.clock["claim_agrees"] is False


def test_the_dirty_recording(recorded_bars: Path) -> None:
    """Its clean twin says which rows are corrupt: exactly these are set aside, and what is kept is the twin's to the digit."""
    dirty = read_bar_file(recorded_bars / "EURUSD_M1_dirty_raw.parquet", received_at=NOW)
    clean = read_bar_file(recorded_bars / "EURUSD_M1.parquet", received_at=NOW)
    assert (clean.bars.num_rows, clean.quarantined.num_rows) == (9999, 0)
    names = ("open", "high", "low", "close", "tick_volume")
    truth = {row["open_time"]: tuple(row[name] for name in names) for row in clean.bars.to_pylist()}
    raw = pyarrow.parquet.read_table(recorded_bars / "EURUSD_M1_dirty_raw.parquet")
    opens = [moment.replace(tzinfo=UTC) for moment in raw["time"].to_pylist()]
    columns = [raw[name].to_pylist() for name in names]
    corrupt = {at for at, *row in zip(opens, *columns, strict=True) if tuple(row) != truth[at]}
    assert len(corrupt) == 326
    assert set(dirty.quarantined["open_time"].to_pylist()) == corrupt
    assert set(dirty.quarantined["reason"].to_pylist()) == {"price_jump"}
    kept = {row["open_time"]: tuple(row[name] for name in names) for row in dirty.bars.to_pylist()}
    assert kept == {at: row for at, row in truth.items() if at not in corrupt}


def test_a_slip_inside_a_week_shows_against_the_other_files(recorded_bars: Path) -> None:
    found = {one.symbol: one.clock for one in read_bar_folder(recorded_bars, timeframe="H1", received_at=NOW)}
    assert found["EURUSD"]["disagreements"] == [{"day": "2017-11-03", "hours": 1}]
    assert "2017-11-03T00:00:00Z" in found["EURUSD"]["slips"]
    said = (
        "Against the other files here its clock slips on 2017-11-03 (+1 h): this file's clock or theirs is wrong there."
    )
    assert said in found["EURUSD"]["message"]
    assert {clock["rule"] for symbol, clock in found.items() if symbol != "EURUSD"} == {"new_york"}


def test_agreement_names_the_slipped_day_and_nothing_else() -> None:
    seed = 11
    rng = np.random.default_rng(seed)
    hours = np.arange(400_008, 400_008 + 24 * 30)
    common = rng.standard_normal(len(hours))
    series = [common + 0.5 * rng.standard_normal(len(hours)) for _ in range(4)]
    assert disagreements(hours, series[0], [(hours, other) for other in series[1:]]) == [], f"seed {seed}"
    slipped = hours.copy()
    day = slice(24 * 12, 24 * 13)
    slipped[day] = hours[day] + 1
    keep = np.r_[True, np.diff(slipped) > 0]
    found = disagreements(slipped[keep], series[0][keep], [(hours, other) for other in series[1:]])
    assert [(int(one.day.astype(int)) * 24, one.hours) for one in found] == [(int(hours[0]) // 24 * 24 + 24 * 12, 1)], (
        f"seed {seed}"
    )
    assert disagreements(hours, series[0], [(hours, series[1])]) == [], "one peer decides nothing"
