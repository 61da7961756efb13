"""Stored history once more, a slice at a time, from the newest bars to the oldest and round again: brokers revise old bars too.

Decides which slice is next; does not ask sources and does not store bars. How far each walk has come is kept with the evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from actors.answers import moment_of
from market.calendar import expected_opens
from market.coverage import Coverage, Key
from market.timeframes import Timeframe

SLICE_BARS = 3000  # an hour's share of one series: a year of M1 takes a trading week, a year of H1 three hours


class RollingReread:
    """Whose turn it is and how far each series has come.

    The place is kept and not computed from the clock: a clock goes on through hours in which nothing could be asked, and
    the slices of those hours would be left out, always the same ones where the hours recur.
    """

    def __init__(self, coverage: Coverage, slice_bars: int = SLICE_BARS) -> None:
        self._coverage, self._bars = coverage, slice_bars
        self._waiting: list[Key] = []

    def begin(self, keys: Sequence[Key]) -> None:
        """A new hour: one slice of each series is due, unless the last hour's still are."""
        self._waiting = self._waiting or list(keys)

    def next_key(self) -> Key | None:
        """The series whose slice is due now; it is taken off the list, whatever comes of it."""
        return self._waiting.pop(0) if self._waiting else None

    def slice(self, key: Key, first: datetime, last_close: datetime) -> tuple[datetime, datetime]:
        """Opens [start, end) to be asked for: the trading week's last `slice_bars` before where the walk has come, not before
        `first`. What would be left of less than half a slice is taken along: few bars prove little about a clock."""
        frame = Timeframe.parse(key[1])
        end = self._coverage.reread_down_to(key) or last_close
        if not first < end <= last_close:
            end = last_close
        reach = end - frame.delta * int(1.5 * self._bars * 1.4) - timedelta(days=4)  # over weekends
        opens = expected_opens(frame, max(reach, first), end)
        if len(opens) < 1.5 * self._bars:
            return first, end
        return moment_of(opens[-self._bars]), end

    def done(self, key: Key, start: datetime) -> None:
        """The slice down to `start` is dealt with: the walk goes on before it, after a restart too."""
        self._coverage.note_reread(key, start)
        self._coverage.save()
