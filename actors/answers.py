"""One question to one source and its answer, and which bars the answer speaks for. Keeps nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from market.bars import BarSource
from market.coverage import APART, Key
from market.errors import NotConnected
from market.timeframes import Timeframe


@dataclass(frozen=True)
class Answer:
    """What a source said to "bars of `key` that close in (since, until]", asked at `at`."""

    key: Key
    since: datetime
    until: datetime
    at: datetime
    bars: pa.Table

    def span(self) -> tuple[datetime, datetime]:
        """Opens [start, end) that it speaks for. A bar that closed just now may come a little later: it is left out."""
        length = Timeframe.parse(self.key[1]).seconds
        grid = min(length, 3600)

        def after(moment: datetime) -> int:
            return int((moment.timestamp() - length) // grid) * grid + 1

        end = after(min(self.until, self.at - APART))
        return datetime.fromtimestamp(after(self.since), UTC), datetime.fromtimestamp(end, UTC)


def opens_of(bars: pa.Table) -> np.ndarray:
    return bars["open_time"].to_numpy().astype("datetime64[s]")


def answer_of(source: BarSource, key: Key, since: datetime, until: datetime | None) -> pa.Table:
    """A source's bars, oldest first: the order of an answer says nothing. None is no answer, not no bars."""
    bars = source.closed_bars(key[0], key[1], since, until)
    if not isinstance(bars, pa.Table):
        raise NotConnected(f"No answer to the question for {'/'.join(key)}.", hint="It is asked again by itself.")
    opens = opens_of(bars)
    return (
        bars if (np.diff(opens) >= np.timedelta64(0)).all() else bars.take(pa.array(np.argsort(opens, kind="stable")))
    )


def moment_of(stamp: np.datetime64) -> datetime:
    return datetime.fromtimestamp(int(stamp.astype(np.int64)), UTC)


def stamp_of(moment: datetime) -> np.datetime64:
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "s")
