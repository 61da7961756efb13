"""What is wrong with which row: each row is judged against sound rows only."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from market.bars import bars_from_columns, validate
from market.timeframes import Timeframe

START = np.datetime64("2020-03-02T00:00", "s")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def rows(minutes: list[int], closes: list[float]) -> pa.Table:
    close = np.array(closes)
    opened = START + np.array(minutes) * np.timedelta64(60, "s")
    return bars_from_columns("EURUSD", Timeframe.H1, opened, close, close, close, close, received_at=NOW)


@pytest.mark.parametrize(
    ("minutes", "closes", "kept", "reasons"),
    [
        ([0, 60, 60, 120], [1.1, 1.2, 1.21, 1.1], [1.1, 1.2, 1.1], ["duplicate"]),
        ([0, 60, 60, 120], [1.1, 1.1e3, 1.2, 1.1], [1.1, 1.2, 1.1], ["price_jump"]),  # the sound twin stays
        ([0, 60, 60, 120], [1.1, np.nan, 1.2, 1.1], [1.1, 1.2, 1.1], ["not_a_number"]),
        ([0, 120, 60, 180], [1.1, 1.2, 1.3, 1.1], [1.1, 1.2, 1.1], ["out_of_order"]),
        ([0, 9930, 60, 120], [1.1, 1.2, 1.21, 1.1], [1.1, 1.21, 1.1], ["off_grid"]),  # a bad time hides no later row
        ([0, 60, 120], [1.1, -1.0, 1.1], [1.1, 1.1], ["not_positive"]),
    ],
)
def test_a_rejected_row_takes_no_sound_row_with_it(
    minutes: list[int], closes: list[float], kept: list[float], reasons: list[str]
) -> None:
    later = range(600, 960, 60)  # the median of neighbours wants some
    good, bad = validate(rows([*minutes, *later], closes + [1.15] * 6), Timeframe.H1)
    assert good["close"].to_pylist() == kept + [1.15] * 6
    assert bad["reason"].to_pylist() == reasons
