"""The place of a bar in the New York week, winter and summer."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pyarrow as pa
import pytest

from market.errors import NotEnoughBars
from market.timeframes import Timeframe
from tuning.series import is_rollover, make_series, side_by_side, week_position


@pytest.mark.parametrize(
    ("moment", "position"),
    [
        ("2024-01-07T22:00", 0),  # Sunday 17:00 New York, winter
        ("2024-07-07T21:00", 0),  # the same in summer
        ("2024-07-08T13:00", 16),  # Monday 09:00
        ("2024-01-12T21:00", 119),  # Friday 16:00, the last bar
        ("2024-03-10T21:00", 0),  # the Sunday clocks go forward
    ],
)
def test_position_follows_new_york_across_clock_changes(moment: str, position: int):
    assert week_position(np.array([moment], "datetime64[us]"), Timeframe.H1).tolist() == [position]


def test_positions_of_a_long_stretch_agree_with_one_at_a_time():
    moments = np.arange("2023-01-01", "2025-01-01", 13, dtype="datetime64[h]").astype("datetime64[us]")
    whole = week_position(moments, Timeframe.M15)
    assert whole[::97].tolist() == [int(week_position(m[None], Timeframe.M15)[0]) for m in moments[::97]]


def test_rollover_hours_by_new_york_time():
    closes = np.array(
        ["2024-07-09T17:00", "2024-07-09T18:00", "2024-07-09T22:00", "2024-07-09T23:00"], "datetime64[us]"
    )
    assert is_rollover(closes).tolist() == [False, True, True, False]


def test_no_bars_is_an_error_with_advice(make_bars):
    with pytest.raises(NotEnoughBars, match="backfill"):
        make_series(make_bars(("EURUSD",), 3)["EURUSD"].slice(0, 0), Timeframe.H1)


def test_spread_is_a_share_of_the_price_and_missing_where_there_is_none(make_bars):
    table = make_bars(("EURUSD",), 3)["EURUSD"]
    series = make_series(table, Timeframe.H1)
    np.testing.assert_allclose(series.spread, 12e-5 / series.close)
    column = table.schema.get_field_index("spread_points")
    nulls = table.set_column(column, table.schema.field(column), pa.nulls(3, pa.int32()))
    assert np.isnan(make_series(nulls, Timeframe.H1).spread).all()


@pytest.mark.parametrize("skipped", [0, 7])
def test_side_by_side_each_symbol_is_what_it_is_alone(make_bars, skipped: int):
    """Also where one of them has other times than the rest, no spread, or columns that may be null."""
    tables = list(make_bars(("EURUSD", "USDJPY", "XXXYYY"), 300).values())
    tables = [tables[0].slice(skipped, 290), *(table.slice(0, 290) for table in tables[1:])]
    tables[1] = tables[1].cast(pa.schema([field.with_nullable(True) for field in tables[1].schema]))
    together = side_by_side(tables, Timeframe.H1)
    assert len(together) == 290
    assert together.symbol == "EURUSD,USDJPY,XXXYYY"
    assert together.position.ndim == (2 if skipped else 1)
    for k, table in enumerate(tables):
        alone = make_series(table, Timeframe.H1)
        for name in (field.name for field in fields(alone) if field.name != "symbol"):
            values = np.broadcast_to(getattr(together, name), (3, 290))
            np.testing.assert_array_equal(values[k], getattr(alone, name), err_msg=name)
    np.testing.assert_array_equal(together.tail(20).close, together.close[:, -20:])
