"""What was asked and answered: counted apart in time, doubted when a later answer had more, kept in a file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from market.coverage import APART, ENOUGH, Coverage

KEY = ("EURUSD", "H1")
T0 = datetime(2024, 1, 8, tzinfo=UTC)
OPENS = np.datetime64("2024-01-08", "s") + np.arange(10) * np.timedelta64(3600, "s")


def hour(n: float) -> datetime:
    return T0 + timedelta(hours=n)


def test_never_asked_is_zero() -> None:
    assert Coverage().times(KEY, OPENS).tolist() == [0] * 10


def test_ranges_overlap_and_count() -> None:
    coverage = Coverage()
    coverage.answered(KEY, hour(0), hour(6), hour(20), grew=False)
    coverage.answered(KEY, hour(4), hour(8), hour(21), grew=False)
    assert coverage.times(KEY, OPENS).tolist() == [1, 1, 1, 1, 2, 2, 1, 1, 0, 0]


def test_two_answers_at_once_are_one() -> None:
    coverage = Coverage()
    coverage.answered(KEY, hour(0), hour(10), hour(20), grew=False)
    coverage.answered(KEY, hour(0), hour(10), hour(20) + APART / 2, grew=False)
    assert set(coverage.times(KEY, OPENS).tolist()) == {1}
    coverage.answered(KEY, hour(0), hour(10), hour(20) + APART, grew=False)
    assert set(coverage.times(KEY, OPENS).tolist()) == {2}


def test_an_answer_with_more_takes_the_earlier_ones_back() -> None:
    coverage = Coverage()
    for at in (20, 21, 22):
        coverage.answered(KEY, hour(0), hour(10), hour(at), grew=False)
    coverage.answered(KEY, hour(3), hour(5), hour(23), grew=True)
    assert coverage.times(KEY, OPENS).tolist() == [3, 3, 3, 1, 1, 3, 3, 3, 3, 3]


def test_polling_for_a_year_keeps_few_pieces() -> None:
    coverage = Coverage()
    for n in range(2000):
        coverage.answered(KEY, hour(n - 2), hour(n), hour(n), grew=False)
    assert len(coverage.asked(KEY)) < 12
    assert coverage.times(KEY, OPENS).max() <= ENOUGH


def test_kept_in_a_file_and_an_unreadable_one_is_no_evidence(tmp_path: Path) -> None:
    path = tmp_path / "bars_coverage.json"
    coverage = Coverage.beside(tmp_path / "bars")
    coverage.answered(KEY, hour(0), hour(6), hour(20), grew=False)
    coverage.silent(KEY, [int(hour(7).timestamp())], 3600)
    coverage.note_clock({"clock_rule": "new_york"})
    coverage.save()
    again = Coverage(path)
    assert again.times(KEY, OPENS).tolist() == [1] * 6 + [0] * 4
    assert np.flatnonzero(again.is_silent(KEY, OPENS)).tolist() == [7]
    assert again.clock == {"clock_rule": "new_york"}
    path.write_text(path.read_text()[:40])
    assert Coverage(path).times(KEY, OPENS).tolist() == [0] * 10
