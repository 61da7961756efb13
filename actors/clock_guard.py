"""Whether a source may be believed: its newest tick against now, its bars against the trading week and against ours.

Raises instead of answering, so that the next source is asked. Does not store anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from actors.answers import answer_of, moment_of, opens_of
from market.bars import BAR_SCHEMA, BarSource
from market.clock_watch import TickWatch, confirmed, contradicts, slipped_hours, slipped_weeks
from market.coverage import Key
from market.errors import ClockDisagrees, InputError

Witness = tuple[Key, pa.Table]  # a series and the bars that we hold of it, at least one
NEWEST_BARS = 50  # that another account would tell otherwise


class ClockGuard:
    """`problem`: the alarm of the moment, "" when the clocks agree."""

    def __init__(self) -> None:
        self._watch = TickWatch()
        self.problem = ""

    def check_ticks(self, times: Iterable[datetime | None], now: datetime) -> None:
        """Refuse a live terminal whose newest tick is hours off."""
        hours = self._watch.look(max((time for time in times if time is not None), default=None), now)
        if hours is not None:
            raise self._alarm(f"The newest tick is {hours:+d} h off our clock")
        self.problem = ""

    def closed_by(self, now: datetime, key: Key, bars: pa.Table, tolerance: timedelta) -> pa.Table:
        """Without bars that have not closed by our clock: to a source that is ahead the one that forms has closed already.
        Refused when it is ahead by more than `tolerance`."""
        if not bars.num_rows or bars["close_time"][-1].as_py() <= now:
            self.problem = ""
            return bars
        ahead = bars["close_time"][-1].as_py() - now
        if ahead > tolerance:
            raise self._alarm(f"A bar of {'/'.join(key)} closes {ahead} after our now")
        return bars.filter(pc.less_equal(bars["close_time"], pa.scalar(now, BAR_SCHEMA.field("close_time").type)))

    def check_bars(
        self,
        key: Key,
        bars: pa.Table,
        stored: pa.Table,
        source: BarSource,
        *,
        live: bool,
        witness: Witness | None = None,
    ) -> None:
        """Refuse bars that we hold at another hour; of a live terminal also those whose weeks are not the trading week. Where not
        one is as we hold it, its newest bars must be, or those of a `witness` while we hold none of its own. Simulated and
        recorded markets may be replaced, and have our own clock."""
        name = "/".join(key)
        hours = slipped_weeks(bars) if live else None
        if hours is not None:
            raise self._alarm(f"The weeks of {name} open and close {hours:+d} h off")
        hours = slipped_hours(stored, bars)
        if hours is not None:
            raise self._alarm(f"{name} comes {hours:+d} h from where the stored bars have it")
        if live and bars.num_rows and not confirmed(stored, bars):
            self._check_newest((key, stored) if stored.num_rows else witness, source)

    def check_old_bars(
        self, key: Key, bars: pa.Table, held: pa.Table, newest: pa.Table, source: BarSource, *, live: bool
    ) -> None:
        """As `check_bars`, of bars from long ago. `held`: what we hold around them. Their weeks were judged when they first came;
        a stretch that a broker revised altogether is believed while its `newest` bars are ours."""
        hours = slipped_hours(held, bars)
        if hours is not None:
            raise self._alarm(f"Old bars of {'/'.join(key)} come {hours:+d} h from where the stored ones have them")
        if live and bars.num_rows and not confirmed(held, bars):
            self._check_newest((key, newest), source)

    def _check_newest(self, witness: Witness | None, source: BarSource) -> None:
        """Bars that nothing confirms may be revised, or new, or another clock's or account's: a longer answer tells."""
        if witness is None:
            return
        key, stored = witness
        name, since = "/".join(key), moment_of(opens_of(stored)[-NEWEST_BARS:][0])
        try:
            again = answer_of(source, key, since, None)
        except InputError:  # no longer offered: it can tell nothing
            return
        hours = slipped_hours(stored, again)
        if hours is not None:
            raise self._alarm(f"{name} comes {hours:+d} h from where the stored bars have it")
        if contradicts(stored, again):
            raise self._alarm(f"Not one of the newest bars of {name} is what the store holds")

    def _alarm(self, what: str) -> ClockDisagrees:
        error = ClockDisagrees(
            f"{what}: nothing is taken from this source.",
            hint="Are broker_zone and the clock of its machine right, and is it the same server and account as before? See `lstmc doctor`.",
        )
        self.problem = str(error)
        return error
