"""When to retrain: which runs of a timetable are due, given when each ran last. A pure decision; submits nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from apscheduler.triggers.cron import CronTrigger

from configs.settings import ROOT
from market.errors import ConfigError, LstmcError

LOOK_BACK = timedelta(days=8)  # a slot older than this is history, not a run to catch up on


@dataclass(frozen=True)
class Entry:
    """One line of the timetable: `cron` in the timetable's zone, and what to run."""

    name: str
    cron: str
    preset: str
    budget: str
    zone: str

    @property
    def trigger(self) -> CronTrigger:
        return CronTrigger.from_crontab(self.cron, timezone=ZoneInfo(self.zone))


@dataclass(frozen=True)
class DueRun:
    """A slot whose time has come. `submission_id` is the same for the same slot: submitting twice is refused by Ray."""

    entry: Entry
    slot: datetime

    @property
    def submission_id(self) -> str:
        return f"{self.entry.name}-{self.slot.astimezone(UTC):%Y%m%dT%H%M}"


def load_timetable(path: Path | None = None) -> tuple[Entry, ...]:
    """`configs/schedule.yaml` -> entries; ConfigError names the entry and what is wrong with it."""
    path = path or ROOT / "configs" / "schedule.yaml"
    fields = yaml.safe_load(path.read_text())
    zone = fields.get("zone", "UTC")
    return tuple(_entry(name, given, zone) for name, given in (fields.get("runs") or {}).items())


def _entry(name: str, given: dict[str, Any], zone: str) -> Entry:
    try:
        entry = Entry(name=name, zone=zone, **given)
        _ = entry.trigger
        return entry
    except (TypeError, ValueError, ZoneInfoNotFoundError) as error:
        raise ConfigError(
            f"schedule.yaml, run {name!r}: {error}.", hint="A run has cron (five fields), preset and budget."
        ) from None


def next_slot(entry: Entry, after: datetime) -> datetime:
    """The first slot later than `after`. The hour that autumn repeats counts once."""
    trigger, zone = entry.trigger, ZoneInfo(entry.zone)
    slot = trigger.get_next_fire_time(None, after + timedelta(microseconds=1)).astimezone(UTC)
    while slot.astimezone(zone).fold:
        slot = trigger.get_next_fire_time(None, slot + timedelta(microseconds=1)).astimezone(UTC)
    return slot


def due_runs(now: datetime, last_runs: Mapping[str, datetime], timetable: tuple[Entry, ...]) -> list[DueRun]:
    """Runs to submit at `now`. `last_runs`: entry name -> slot (or start) of its last run; an absent entry is new and
    waits for its next slot. Several missed slots of an entry make one run, the latest."""
    found = []
    for entry in timetable:
        last = last_runs.get(entry.name)
        slot = _latest_slot(entry, max(last, now - LOOK_BACK), now) if last else None
        if slot:
            found.append(DueRun(entry, slot))
    return sorted(found, key=lambda run: run.slot)


def _latest_slot(entry: Entry, after: datetime, until: datetime) -> datetime | None:
    latest = None
    slot = next_slot(entry, after)
    while slot <= until:
        latest, slot = slot, next_slot(entry, slot)
    return latest


def run_once(
    now: datetime, last_runs: Mapping[str, datetime], timetable: tuple[Entry, ...], submit: Callable[[DueRun], None]
) -> dict[str, datetime]:
    """One pass of the loop: submit what is due. Returns the new `last_runs`; a run that could not be submitted stays due."""
    after = dict(last_runs) | {entry.name: now for entry in timetable if entry.name not in last_runs}
    for run in due_runs(now, last_runs, timetable):
        try:
            submit(run)
        except LstmcError:
            continue
        after[run.entry.name] = run.slot
    return after
