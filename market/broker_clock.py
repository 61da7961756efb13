"""A broker's server wall clock against UTC, row by row, and which rule a feed's own weekly opens and closes speak for.

Knows the FX week (Sunday 17:00 to Friday 17:00, New York); does not know brokers, files or prices.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from market.errors import ConfigError
from market.forecasts import iso_utc
from market.timeframes import Timeframe

HOUR = 3600
WEEK_SECONDS = 7 * 86400
OPEN_SECONDS = 5 * 86400
SUNDAY_17 = 3 * 86400 + 17 * HOUR  # 1970-01-04, a Sunday, 17:00, as a wall clock
MIN_WEEKS = 8  # fewer cannot tell a rule from its neighbours
# Rule -> (zone whose DST dates it follows, hours its clock is ahead of that zone's wall clock).
_ZONED = {"new_york": ("America/New_York", 7), "eu": ("Europe/Athens", 0)}
_FIXED = re.compile(r"^(?:utc|gmt)\s*([+-]\d{1,2})$")
_CANDIDATES = ("new_york", "utc", "eu", *(f"utc{h:+d}" for h in (1, 2, 3, -1, 4, 5, 8, 9, -4, -5)))


@lru_cache(maxsize=512)
def _transitions(zone: str, year: int) -> tuple[tuple[int, int, int], ...]:
    """A zone's changes in one year: (UTC epoch second, offset before, offset after), offsets in seconds."""
    tz = ZoneInfo(zone)

    def offset(second: int) -> int:
        delta = datetime.fromtimestamp(second, tz).utcoffset()
        return int(delta.total_seconds()) if delta is not None else 0

    first = int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
    last = int(datetime(year + 1, 1, 1, tzinfo=UTC).timestamp())
    found = []
    for day in range(first, last, 86400):
        low, high = day, min(day + 86400, last)
        before, after = offset(low), offset(high)
        if before == after:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if offset(middle) == before else (low, middle)
        found.append((high, before, after))
    return tuple(found)


def _zone_steps(zone: str, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(UTC seconds of every change around `seconds` [k], offsets [k+1]: before the first change, then after each)."""
    years = (seconds.min() // 31556952 + 1969, seconds.max() // 31556952 + 1971)
    changes = [change for year in range(int(years[0]), int(years[1]) + 1) for change in _transitions(zone, year)]
    if not changes:
        delta = datetime.fromtimestamp(float(seconds[0]), ZoneInfo(zone)).utcoffset()
        return np.zeros(0, np.int64), np.array([delta.total_seconds() if delta else 0], np.int64)
    return np.array([c[0] for c in changes]), np.array([changes[0][1], *(c[2] for c in changes)])


def _offsets(zone: str, utc_seconds: np.ndarray) -> np.ndarray:
    if utc_seconds.size == 0:
        return np.zeros(0, np.int64)
    at, offsets = _zone_steps(zone, utc_seconds)
    return offsets[np.searchsorted(at, utc_seconds, side="right")]


def _seconds(times: Any) -> np.ndarray:
    return np.asarray(times).astype("datetime64[s]").astype(np.int64)


@dataclass(frozen=True)
class BrokerClock:
    """Server wall clock by `rule`: "utc", "new_york" (New York + 7 h: GMT+2/+3 on US dates), "eu" (GMT+2/+3 on EU dates)
    or a fixed "utc+3". Arrays are datetime64; conversion is per row, so a series may run across DST changes.

    The hour that autumn repeats is read as its first pass; it lies in the closed weekend for both zoned rules.
    """

    rule: str = "utc"

    def __post_init__(self) -> None:
        if self.rule not in _ZONED and self.rule != "utc" and not _FIXED.match(self.rule):
            raise ConfigError(f"Unknown broker clock {self.rule!r}.", hint="Use utc, new_york, eu, or a fixed utc+3.")

    def to_utc(self, server: Any) -> np.ndarray:
        """Server wall clock [n] -> UTC, datetime64[s] [n]."""
        seconds = _seconds(server)
        if self.rule not in _ZONED or seconds.size == 0:
            return (seconds - self._fixed_seconds()).astype("datetime64[s]")
        zone, ahead = _ZONED[self.rule]
        wall = seconds - ahead * HOUR
        at, offsets = _zone_steps(zone, wall)
        return (wall - offsets[np.searchsorted(at + offsets[:-1], wall, side="right")]).astype("datetime64[s]")

    def to_server(self, utc: Any) -> np.ndarray:
        """UTC [n] -> server wall clock, datetime64[s] [n]."""
        seconds = _seconds(utc)
        return (seconds + self.offset_seconds(seconds)).astype("datetime64[s]")

    def offset_seconds(self, utc_seconds: np.ndarray) -> np.ndarray:
        """Server minus UTC, in seconds, at UTC epoch seconds [n]."""
        if self.rule not in _ZONED:
            return np.full(utc_seconds.shape, self._fixed_seconds(), np.int64)
        zone, ahead = _ZONED[self.rule]
        return _offsets(zone, utc_seconds) + ahead * HOUR

    def server_epoch(self, moment: datetime) -> int:
        """What the terminal writes as `time` at this moment: the server's wall clock encoded as if it were UTC."""
        second = np.array([int(moment.timestamp())])
        return int((second + self.offset_seconds(second))[0])

    def _fixed_seconds(self) -> int:
        match = _FIXED.match(self.rule)
        return int(match.group(1)) * HOUR if match else 0


@dataclass(frozen=True)
class ClockFindings:
    """What a series says about its own clock. `slips`: moments (server clock) at which it is one hour off its rule."""

    rule: str
    weeks: int
    consistent_weeks: int
    slips: tuple[datetime, ...]
    message: str
    enough: bool = True
    claim: str = ""  # what the source says, and the rule that was read from it
    claim_agrees: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "weeks": self.weeks,
            "consistent_weeks": self.consistent_weeks,
            "slips": [str(iso_utc(moment)) for moment in self.slips],
            "message": self.message,
            "claim": self.claim or None,
            "claim_agrees": self.claim_agrees,
        }


def rule_of_claim(text: str) -> str | None:
    """A source's own words ("UTC", "GMT+2/+3, New-York DST", "EET") -> rule, or None when they name none."""
    words = text.strip().lower().replace("_", " ").replace("-york", " york")
    if not words:
        return None
    if "new york" in words or "us dst" in words:
        return "new_york"
    if words.startswith(("eet", "eu", "athens", "europe/athens")) or "eu dst" in words:
        return "eu"
    fixed = re.match(r"^(?:utc|gmt)\s*([+-]\d{1,2})\b", words)
    if fixed:
        return f"utc{int(fixed.group(1)):+d}" if int(fixed.group(1)) else "utc"
    return "utc" if words.startswith(("utc", "gmt", "etc/utc")) else None


def _week_edges(seconds: np.ndarray, timeframe: Timeframe) -> tuple[np.ndarray, np.ndarray]:
    """(first opens after a weekend, closes before it), server seconds, [weeks] each. A holiday is shorter than 40 h."""
    breaks = np.flatnonzero(np.diff(seconds) >= 40 * HOUR)
    return seconds[breaks + 1], seconds[breaks] + timeframe.seconds


def _off_week(server_seconds: np.ndarray, rule: str, anchor: int) -> np.ndarray:
    """Seconds past the nearest New York wall-clock moment `anchor` of the week, if the server followed `rule`. [n]"""
    utc = BrokerClock(rule).to_utc(server_seconds.astype("datetime64[s]")).astype(np.int64)
    wall = utc + _offsets("America/New_York", utc)
    return (wall - anchor + WEEK_SECONDS // 2) % WEEK_SECONDS - WEEK_SECONDS // 2


def _open_agrees(off: np.ndarray, timeframe: Timeframe, shift: int) -> np.ndarray:
    """The first bar contains the open, or comes at most half an hour late. `shift`: metals open an hour later."""
    return (off - shift > -timeframe.seconds) & (off - shift <= HOUR // 2)


def detect(server_times: Any, timeframe: Timeframe, *, claim: str = "") -> ClockFindings:
    """Which clock wrote these bar opens [n]? Judged by weekly opens, then weekly closes; the claim is only checked.

    With fewer than MIN_WEEKS weekends the claim decides, else UTC. Slips are weeks whose open, or whose close against
    the closes around it, is exactly one hour off.
    """
    seconds = np.unique(_seconds(server_times))
    opens, closes = _week_edges(seconds, timeframe)
    claimed = rule_of_claim(claim)
    weeks = len(opens)
    if weeks < MIN_WEEKS:
        return _few_weeks(opens, timeframe, claimed, claim)

    def score(rule: str, shift: int) -> tuple[int, int]:
        agrees = _open_agrees(_off_week(opens, rule, SUNDAY_17), timeframe, shift)
        ends = np.abs(_off_week(closes, rule, SUNDAY_17 + OPEN_SECONDS)) <= HOUR // 2
        return int(agrees.sum()), int(ends.sum())

    tried = [(score(rule, shift), -shift, rule) for shift in (0, HOUR) for rule in _CANDIDATES]
    (consistent, _), shift, rule = max(tried, key=lambda one: (one[0], one[1]))  # the first of equals stays
    slips = _slips(opens, closes, rule, -shift, timeframe)
    early = int(_one_hour(_off_week(closes, rule, SUNDAY_17 + OPEN_SECONDS) + HOUR, 0).sum())
    message = _message(rule, weeks, consistent, slips, claimed, early)
    return ClockFindings(
        rule, weeks, consistent, slips, message, True, claim, None if claimed is None else claimed == rule
    )


def _few_weeks(opens: np.ndarray, timeframe: Timeframe, claimed: str | None, claim: str) -> ClockFindings:
    """The claim decides; without one UTC, unless most opens contradict it and all agree with another rule."""
    weeks = len(opens)

    def agree(rule: str) -> int:
        return int(_open_agrees(_off_week(opens, rule, SUNDAY_17), timeframe, 0).sum()) if weeks else 0

    rule, source = claimed or "utc", "the source's own word" if claimed else "UTC, for want of any other word"
    if claimed is None and agree("utc") * 2 < weeks:
        fitting = [candidate for candidate in _CANDIDATES if agree(candidate) == weeks]
        rule, source = (fitting[0], "what they fit") if fitting else (rule, source)
    message = f"Only {weeks} weekly opens, {MIN_WEEKS} are needed to tell: took {source} ({rule}); {agree(rule)} of {weeks} agree."
    agrees = None if claimed is None or weeks == 0 else agree(rule) * 2 >= weeks
    return ClockFindings(rule, weeks, agree(rule), (), message, False, claim, agrees)


def _slips(opens: np.ndarray, closes: np.ndarray, rule: str, shift: int, timeframe: Timeframe) -> tuple[datetime, ...]:
    if timeframe.seconds > HOUR:  # a longer bar hides one hour
        return ()
    off_open = _off_week(opens, rule, SUNDAY_17) - shift
    off_close = _off_week(closes, rule, SUNDAY_17 + OPEN_SECONDS)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(off_close, 4, mode="edge"), 9)
    off_close = off_close - np.median(around, axis=1)
    moments = np.concatenate([opens[_one_hour(off_open)], closes[_one_hour(off_close)]])
    return tuple(datetime.fromtimestamp(int(second), UTC) for second in np.sort(moments))


def _one_hour(off: np.ndarray, wanted: int = HOUR) -> np.ndarray:
    return np.abs(np.abs(off) - wanted) <= 600


def _message(
    rule: str, weeks: int, consistent: int, slips: tuple[datetime, ...], claimed: str | None, early: int
) -> str:
    parts = [f"{consistent} of {weeks} weekly opens follow {rule}."]
    if claimed is not None and claimed != rule:
        parts.append(f"The source claims {claimed}: not believed.")
    if early > weeks // 20:
        parts.append(f"{early} weeks close an hour early: an early close, or an hour lost on the way.")
    if slips:
        days = ", ".join(moment.strftime("%Y-%m-%d") for moment in slips[:6])
        parts.append(f"{len(slips)} week edges are one hour off: {days}{' ...' if len(slips) > 6 else ''}.")
    return " ".join(parts)
