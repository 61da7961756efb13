"""Where the market's clock starts, and with which symbols. Pure decisions of `up`; reads a folder's contents, nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from configs.settings import Settings
from market.errors import BadBars, BadTime, ConfigError
from market.forecasts import iso_utc
from market.market_clock import MarketClock

# Market time left to play when `start` is not given: this, or this share of short recordings.
RECORDED_LEAD = timedelta(days=30)
RECORDED_SHARE = 0.2
Contents = Mapping[tuple[str, str], tuple[datetime, datetime]]  # (symbol, timeframe) -> (first open, last close)


@dataclass(frozen=True)
class MarketStart:
    """`notes`: what a user should know, one sentence each."""

    settings: Settings
    notes: tuple[str, ...] = ()


def start_market(
    settings: Settings,
    *,
    wall: float,
    last_closes: Mapping[str, datetime],
    contents: Contents | None = None,
    symbols_given: bool = False,
) -> MarketStart:
    """Settings with their clock, and for recorded bars with the symbols that the folder can play.

    wall: epoch seconds. last_closes: symbol -> newest stored close; a clock never starts before them, so that a stored
    bar never lies in its future. contents: of `settings.bars_dir`, for recorded bars.
    """
    if settings.is_live:
        return MarketStart(_with_clock(settings, MarketClock.real()))
    newest = max(last_closes.values(), default=None)
    if settings.market == "simulated":
        start = float(int(wall)) if newest is None else newest.timestamp()
        # Equal starts and speed 1 are real time.
        return MarketStart(_with_clock(settings, MarketClock(float(int(wall)), start, settings.speed)))
    return _start_recorded(settings, wall, newest, contents or {}, symbols_given)


def _with_clock(settings: Settings, clock: MarketClock) -> Settings:
    return settings.model_copy(update={"clock": clock.to_dict()})


def _start_recorded(
    settings: Settings, wall: float, newest: datetime | None, contents: Contents, symbols_given: bool
) -> MarketStart:
    known = sorted({symbol for symbol, timeframe in contents if timeframe in settings.timeframes})
    wanted = list(settings.symbols) if symbols_given else known
    _refuse_absent(settings, wanted, contents)
    spans = [contents[s, t] for s in wanted for t in settings.timeframes if (s, t) in contents]
    start = _given_start(settings) or _default_start(spans)
    playable = [s for s in wanted if all(_plays(contents.get((s, t)), start) for t in settings.timeframes)]
    notes = [
        f"{s} is left out: it has no {'/'.join(settings.timeframes)} bars at {iso_utc(start)}."
        for s in wanted
        if s not in playable
    ]
    if not playable:
        raise ConfigError(
            f"No symbol in {settings.bars_dir} has bars at {iso_utc(start)}.", hint="Choose another --start or --bars."
        )
    end = min(contents[s, t][1] for s in playable for t in settings.timeframes)
    if newest is not None and newest > start:
        if settings.start:
            notes.append(f"Bars up to {iso_utc(newest)} are stored; the clock goes on from there, not from --start.")
        start = min(newest, end)
    if start >= end:
        notes.append(
            f"The recorded bars have been played to their end, {iso_utc(end)}. Play them again with another LSTMC_HOME."
        )
    clock = MarketClock(wall, start.timestamp(), settings.speed)  # goes on past the end: forecasts turn stale there
    # All that the folder has before the clock: a recording is small, and a model wants years.
    reach = start - min(contents[s, t][0] for s in playable for t in settings.timeframes)
    settings = settings.model_copy(update={"symbols": tuple(playable), "history_days": reach.days + 1})
    return MarketStart(_with_clock(settings, clock), tuple(notes))


def _refuse_absent(settings: Settings, wanted: list[str], contents: Contents) -> None:
    have = ", ".join(f"{s}_{t}" for s, t in sorted(contents)) or "nothing"
    absent = [f"{s}_{t}" for s in wanted for t in settings.timeframes if (s, t) not in contents]
    if not wanted or len(absent) == len(wanted) * len(settings.timeframes):
        raise BadBars(
            f"{settings.bars_dir} has no bars of timeframe {', '.join(settings.timeframes)}.", hint=f"It has {have}."
        )


def _default_start(spans: list[tuple[datetime, datetime]]) -> datetime:
    """Some time before the newest close that most series share, to the day; one that ended years earlier has no say."""
    day, _ = Counter(end.date() for _, end in spans).most_common(1)[0]
    together = [(first, end) for first, end in spans if end.date() == day]
    end = min(end for _, end in together)
    shortest = min(end - first for first, _ in together)
    return end - min(RECORDED_LEAD, shortest * RECORDED_SHARE)


def _given_start(settings: Settings) -> datetime | None:
    if not settings.start:
        return None
    try:
        moment = datetime.fromisoformat(settings.start.replace("Z", "+00:00"))
    except ValueError:
        raise BadTime(f"--start {settings.start!r} is not a time.", hint="Write it like 2020-02-03T00:00Z.") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _plays(span: tuple[datetime, datetime] | None, start: datetime) -> bool:
    return span is not None and span[0] < start < span[1]
