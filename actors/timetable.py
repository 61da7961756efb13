"""The timetable: which runs there are, and their slots in a named zone over its daylight saving time. Starts nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from apscheduler.triggers.cron import CronTrigger

from configs.durations import parse_budget
from configs.settings import ROOT
from market.errors import ConfigError, InputError
from market.timeframes import Timeframe
from tuning.presets import load_preset


@dataclass(frozen=True)
class Entry:
    """One line of the timetable: `cron` in `zone`, and what to run. `timeframe` None: all of the installation.

    `on_alarm`: only when a drift alarm asks, and no more than once from one slot to the next.
    """

    name: str
    cron: str
    preset: str
    budget: str
    zone: str
    timeframe: str | None = None
    on_alarm: bool = False

    def __post_init__(self) -> None:
        _ = self.wall, self.trigger
        load_preset(self.preset)
        if self.timeframe:
            Timeframe.parse(self.timeframe)

    @property
    def wall(self) -> timedelta:
        return parse_budget(self.budget)

    @property
    def trigger(self) -> CronTrigger:
        return CronTrigger.from_crontab(self.cron, timezone=ZoneInfo(self.zone))


def load_timetable(path: Path | None = None) -> tuple[Entry, ...]:
    """`configs/schedule.yaml` -> entries; ConfigError names the entry and what is wrong with it."""
    fields = yaml.safe_load((path or ROOT / "configs" / "schedule.yaml").read_text())
    zone = fields.get("zone", "UTC")
    return tuple(_entry(name, given, zone) for name, given in (fields.get("runs") or {}).items())


def _entry(name: str, given: dict[str, Any], zone: str) -> Entry:
    try:
        return Entry(name=name, zone=zone, **given)
    except (TypeError, ValueError, ZoneInfoNotFoundError, InputError) as error:
        raise ConfigError(
            f"schedule.yaml, run {name!r}: {error}", hint="A run has cron (five fields), preset and budget."
        ) from None


def of_installation(timetable: Sequence[Entry], timeframes: Sequence[str]) -> tuple[Entry, ...]:
    """What comes due by itself here: without alarms' runs and those of a timeframe that this installation has not."""
    return tuple(e for e in timetable if not e.on_alarm and (e.timeframe is None or e.timeframe in timeframes))


def last_slot(entry: Entry, now: datetime) -> datetime:
    """The slot that `now` is in, of an entry that has one a day."""
    return max(slots_between(entry, now - timedelta(hours=50), now))


@lru_cache(maxsize=256)
def next_slot(entry: Entry, after: datetime) -> datetime:
    """The first slot later than `after`, UTC. The hour that autumn repeats counts once."""
    trigger, zone = entry.trigger, ZoneInfo(entry.zone)
    slot = trigger.get_next_fire_time(None, after + timedelta(microseconds=1)).astimezone(UTC)
    while slot.astimezone(zone).fold:
        slot = trigger.get_next_fire_time(None, slot + timedelta(microseconds=1)).astimezone(UTC)
    return slot


def slots_between(entry: Entry, after: datetime, until: datetime) -> Iterator[datetime]:
    """Slots in (after, until], ascending."""
    slot = next_slot(entry, after)
    while slot <= until:
        yield slot
        slot = next_slot(entry, slot)
