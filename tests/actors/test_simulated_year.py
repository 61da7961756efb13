"""A year of the timetable on an injected clock: both changes of the clocks, holidays, outages, bad jobs, fifty racing schedulers."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from actors.retrain_scheduler import BACK_OFF, step
from actors.run_log import KEPT, Run, RunLog
from actors.timetable import Entry, load_timetable
from market.errors import ClusterError
from market.market_clock import NEW_YORK, OPEN_WEEK, is_open, week_open
from tests.actors.simulated_jobs import SimulatedJobs

RACERS = 50
LOOK = timedelta(minutes=10)  # while something is open
FIRST, LAST = date(2026, 1, 1), date(2026, 12, 31)
LOCAL_SLOTS = {"daily": (1, None), "weekly": (2, 5), "m15": (23, None)}  # hour, weekday


def oracle(zone: ZoneInfo) -> dict[str, list[datetime]]:
    """Every slot of the year, made without the scheduler's own arithmetic."""
    days = [FIRST + timedelta(days=k) for k in range((LAST - FIRST).days + 1)]
    return {
        name: [
            datetime(day.year, day.month, day.day, hour, tzinfo=zone).astimezone(UTC)
            for day in days
            if weekday in (None, day.weekday())
        ]
        for name, (hour, weekday) in LOCAL_SLOTS.items()
    }


def newest(now: datetime) -> datetime:
    """Close of the newest H1 bar; none from 24 December 17:00 to 26 December 17:00, New York."""
    closed = datetime(2026, 12, 24, 17, tzinfo=NEW_YORK), datetime(2026, 12, 26, 17, tzinfo=NEW_YORK)
    last = now.replace(minute=0, second=0, microsecond=0) if is_open(now) else week_open(now) + OPEN_WEEK
    return closed[0].astimezone(UTC) if closed[0] < last <= closed[1] else last


@dataclass(frozen=True)
class Span:
    start: datetime
    end: datetime

    def __contains__(self, now: datetime) -> bool:
        return self.start <= now < self.end


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


NOBODY_LOOKS = [
    Span(at("2026-02-02 20:00"), at("2026-02-03 09:00")),
    Span(at("2026-05-11 00:00"), at("2026-05-15 12:00")),
    Span(at("2026-10-31 00:00"), at("2026-11-01 12:00")),
]
HEAD_AWAY = [Span(at("2026-03-08 02:00"), at("2026-03-08 08:00")), Span(at("2026-07-07 05:00"), at("2026-07-07 05:20"))]
BY_HAND = {at("2026-04-07 02:30"): 5 * 3600, at("2026-08-18 00:00"): 50 * 3600}  # without a wall


def live(seed: int, timetable: tuple[Entry, ...], slots: dict[str, list[datetime]]) -> tuple[SimulatedJobs, list[Run]]:
    """The cluster and every run after a year in which racing schedulers overwrite each other's log."""
    chance, jobs = random.Random(seed), SimulatedJobs(seed)
    log, now = RunLog(), at("2026-01-01 00:00")
    end, by_hand = at("2027-01-02 12:00"), dict(BY_HAND)
    due = {slot for some in slots.values() for slot in some}
    coming = sorted(due)
    seen: dict[tuple[str, datetime, bool], Run] = {}
    while now < end:
        jobs.now, jobs.away = now, any(now in span for span in HEAD_AWAY)
        for moment in [m for m in by_hand if m <= now]:
            jobs.by_hand(f"train-{moment:%m%d}", by_hand.pop(moment))
        if not any(now in span for span in NOBODY_LOOKS):
            log = raced(log, now, timetable, jobs, chance, chance.choice((RACERS, 3, 3, 3)) if now in due else 1)
            seen |= {run.key: run for run in log.runs}
        coming = [slot for slot in coming if slot > now]
        now = min([now + (LOOK if log.open or now in due else timedelta(hours=3)), *coming[:1], end])
    assert len(log.closed) <= KEPT
    return jobs, list(seen.values())


def raced(
    log: RunLog, now: datetime, timetable: tuple[Entry, ...], jobs: SimulatedJobs, chance: random.Random, racers: int
) -> RunLog:
    """All read the same log and the same jobs, their clocks a second apart; the last one's log stays."""
    try:
        jobs.frozen = jobs.training()
    except ClusterError:
        return log
    written = log
    for _ in range(racers):
        theirs = now + timedelta(seconds=chance.choice((-1, 0, 0, 1)))
        written = step(log, theirs, timetable, jobs, lambda _, moment=theirs: newest(moment))
    jobs.frozen = None
    return written


@pytest.mark.parametrize(("seed", "zone"), [(1, "America/New_York"), (2, "Europe/London")])
def test_a_year(seed: int, zone: str) -> None:
    print(f"seed {seed}, {zone}")
    timetable = tuple(replace(e, zone=zone) for e in load_timetable() if e.name in LOCAL_SLOTS)
    slots = oracle(ZoneInfo(zone))
    jobs, runs = live(seed, timetable, slots)
    by_slot = {(run.name, run.slot): run for run in runs}

    # Every slot of the year is in the log once, and has ended.
    recent = {(name, slot) for name, some in slots.items() for slot in some if slot > at("2026-01-01 00:00")}
    assert by_slot.keys() >= recent
    assert len(by_slot) == len(runs)
    assert not [key for key in recent if by_slot[key].is_open]

    # Ray has each attempt once, under the id of its slot, and no other job of the timetable.
    attempts = [(run, n, attempt) for run in runs for n, attempt in enumerate(run.attempts, start=1)]
    assert {attempt.id for _, _, attempt in attempts} == {id for id, job in jobs.held.items() if job.run}
    for run, n, attempt in attempts:
        assert attempt.id == f"{run.name}-{run.slot:%Y%m%dT%H%M}" + (f"-{n}" if n > 1 else "")
    assert jobs.refused > 10 * RACERS

    # One at a time, inside its wall and its window, retried after a pause, and never after a success.
    assert jobs.overlaps == []
    for run, n, attempt in attempts:
        assert jobs.seconds(attempt.id) <= run.wall.total_seconds() + LOOK.total_seconds() + 2
        assert run.slot <= attempt.submitted + timedelta(seconds=1) < run.until + timedelta(seconds=2)
        if n > 1:
            before = run.attempts[n - 2]
            assert before.how in ("failed", "lost", "stuck")
            assert attempt.submitted - before.ended >= BACK_OFF * 2 ** (n - 2) - timedelta(seconds=2)

    # What did not run has the right reason.
    for run in runs:
        if run.attempts:
            continue
        if "no new bars" in run.why:
            before = max(
                (r for r in runs if r.name == run.name and r.state == "succeeded" and r.slot < run.slot),
                key=lambda r: r.slot,
            )
            assert before.bars_until == newest(run.slot)
        elif "nobody looked" in run.why:
            assert any(run.slot in span for span in NOBODY_LOOKS)
        else:
            assert "train-0818 is training" in run.why
            assert run.slot in Span(at("2026-08-17 00:00"), at("2026-08-20 12:00"))
    said = Counter(run.state for run in runs)
    print(said, f"{len(jobs.held)} jobs, {jobs.refused} refused")
    weekends = [r for r in runs if r.name == "daily" and r.slot.astimezone(ZoneInfo(zone)).weekday() == 6]
    assert sum("no new bars" in r.why for r in weekends) > 35
    assert {"succeeded", "failed", "overran", "skipped"} <= said.keys()
    assert any("no new bars" in by_slot[run].why for run in by_slot if run[1].date() == date(2026, 12, 26))


def test_the_oracle_has_both_changes_of_the_clocks() -> None:
    for zone, days in (
        ("America/New_York", ("2026-03-08", "2026-11-01")),
        ("Europe/London", ("2026-03-29", "2026-10-25")),
    ):
        daily = oracle(ZoneInfo(zone))["daily"]
        steps = {a.date().isoformat(): b - a for a, b in pairwise(daily)}
        changed = [day for day, length in steps.items() if length != timedelta(days=1)]
        assert len(changed) == 2
        assert all(
            abs((date.fromisoformat(a) - date.fromisoformat(b)).days) <= 1 for a, b in zip(changed, days, strict=True)
        )
