"""One look at a time: what is due, what waits and why, and what counts as ended."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from actors.retrain_scheduler import ATTEMPTS, Job, RetrainScheduler, ask, ask_for_drift, how_ended, step
from actors.run_log import BY_HAND, Run, RunLog, RunLogFile
from actors.timetable import Entry
from market.errors import ClusterError, ConfigError
from tests.actors.simulated_jobs import SimulatedJobs

DAILY = Entry("daily", "0 1 * * *", "quick", "30m", "America/New_York")
WEEKLY = Entry("weekly", "0 2 * * sat", "full", "4h", "America/New_York")
ALL_WELL = {"ok": 1}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class World:
    """A scheduler's log, its cluster and a market that has new bars at every look."""

    def __init__(self, last: str, *, fates: dict[str, int] = ALL_WELL, table: tuple[Entry, ...] = (DAILY,)) -> None:
        self.jobs, self.table = SimulatedJobs(fates=fates), table
        self.log = RunLog(cursor={entry.name: at(last) for entry in table})
        self.newest: datetime | None = None

    def look(self, now: str) -> RunLog:
        self.jobs.now = at(now)
        self.log = step(self.log, at(now), self.table, self.jobs, lambda _: self.newest or at(now))
        return self.log

    def said(self) -> list[tuple[str, str]]:
        return [(run.state, run.why) for run in self.log.runs]


@pytest.mark.parametrize(
    ("now", "last", "submitted"),
    [
        ("2024-03-05 05:59", "2024-03-04 06:00", None),
        ("2024-03-05 06:00", "2024-03-04 06:00", "daily-20240305T0600"),
        ("2024-03-08 12:00", "2024-03-04 06:00", "daily-20240308T0600"),  # four missed: one run, the latest
        ("2024-03-10 05:30", "2024-03-09 06:00", None),  # the night clocks go forward
        ("2024-03-10 06:00", "2024-03-09 06:00", "daily-20240310T0600"),  # still EST at 01:00
        ("2024-03-11 05:00", "2024-03-10 06:00", "daily-20240311T0500"),  # EDT
        ("2024-11-04 05:30", "2024-11-03 05:00", None),  # 01:00 came twice that night: 05:00 and 06:00 UTC
        ("2024-11-04 06:00", "2024-11-03 05:00", "daily-20241104T0600"),
    ],
)
def test_a_due_slot_is_submitted_once(now: str, last: str, submitted: str | None) -> None:
    world = World(last)
    for _ in range(3):
        world.look(now)
    assert list(world.jobs.held) == ([submitted] if submitted else [])
    assert world.jobs.refused == 0


def test_missed_slots_are_in_the_log() -> None:
    world = World("2024-03-04 06:00")
    world.look("2024-03-07 12:00")
    assert [(run.slot.day, run.state) for run in world.log.runs] == [(5, "skipped"), (6, "skipped"), (7, "running")]
    assert world.log.runs[0].why == "its window ended at 2024-03-06T06:00:00Z; nobody looked"


def test_a_new_entry_waits_for_its_next_slot() -> None:
    world = World("2024-03-04 06:00")
    world.log = RunLog()
    world.look("2024-03-05 12:00")
    assert world.log.runs == ()
    world.look("2024-03-06 06:00")
    assert list(world.jobs.held) == ["daily-20240306T0600"]


def test_another_scheduler_was_here_first() -> None:
    world = World("2024-03-04 06:00")
    before = world.log
    world.look("2024-03-05 06:00")
    world.log = before  # a second one with a file of its own
    world.look("2024-03-05 06:01")
    assert world.jobs.refused == 0
    assert world.log.open[0].attempts[0].submitted == at("2024-03-05 06:00")


def test_what_another_scheduler_ran_was_not_missed() -> None:
    world = World("2024-03-04 06:00")
    before = world.log
    world.look("2024-03-05 06:00")
    world.log = before
    world.look("2024-03-06 06:00")
    assert [(run.slot.day, run.state) for run in world.log.runs] == [(5, "succeeded"), (6, "running")]


def test_a_run_that_could_not_be_submitted_stays_due() -> None:
    world = World("2024-03-04 06:00")
    world.jobs.away = True
    with pytest.raises(ClusterError, match="away"):
        world.look("2024-03-05 06:00")
    world.jobs.away = False
    world.look("2024-03-05 06:01")
    assert world.log.open[0].state == "running"


def test_the_job_gets_a_minute_less_than_its_wall() -> None:
    world = World("2024-03-04 06:00")
    budgets: list[timedelta] = []
    world.jobs.submit = lambda _, run, budget: budgets.append(budget)  # type: ignore[method-assign]
    world.look("2024-03-05 06:00")
    assert budgets == [timedelta(minutes=29)]


def test_one_trains_at_a_time_and_the_later_slot_is_deferred() -> None:
    world = World("2024-03-08 12:00", table=(DAILY, WEEKLY))
    world.jobs.now = at("2024-03-09 05:00")
    world.jobs.by_hand("train-full", 2.5 * 3600)  # somebody's own, until 07:30
    world.look("2024-03-09 06:00")
    world.look("2024-03-09 07:00")
    assert world.said() == [("waiting", "deferred: train-full is training")] * 2
    world.look("2024-03-09 07:31")
    assert world.said() == [("running", ""), ("waiting", "deferred: daily-20240309T0600 is training")]
    world.look("2024-03-09 08:02")
    assert [(r.name, r.state) for r in world.log.runs] == [("daily", "succeeded"), ("weekly", "running")]


def test_a_deferred_run_is_dropped_when_its_window_is_over() -> None:
    world = World("2024-03-04 06:00")
    world.jobs.now = at("2024-03-05 05:00")
    world.jobs.by_hand("train-full", 30 * 3600)
    world.look("2024-03-05 06:00")
    world.look("2024-03-06 06:00")
    assert world.said() == [
        ("skipped", "its window ended at 2024-03-06T06:00:00Z; deferred: train-full is training"),
        ("waiting", "deferred: train-full is training"),
    ]


def test_without_new_bars_nothing_is_learned() -> None:
    world = World("2024-03-08 06:00")
    world.newest = at("2024-03-08 22:00")  # Friday, 17:00 New York
    world.look("2024-03-09 06:00")
    world.look("2024-03-09 07:00")
    world.look("2024-03-10 06:00")
    assert world.said() == [
        ("succeeded", ""),
        ("skipped", "no new bars since 2024-03-08T22:00:00Z, which the last one had"),
    ]
    world.newest = at("2024-03-11 05:00")
    assert world.look("2024-03-11 05:00").open[0].state == "running"


def test_a_failed_run_had_no_bars() -> None:
    world = World("2024-03-08 06:00", fates={"bad input": 1})
    world.newest = at("2024-03-08 22:00")
    world.look("2024-03-09 06:00")
    world.look("2024-03-09 07:00")
    assert world.said() == [("failed", "exit 2; not tried again: its input was refused")]
    assert world.look("2024-03-10 06:00").open[0].state == "running"


def test_a_failing_run_is_tried_three_times_with_growing_pauses() -> None:
    world, moment = World("2024-03-04 06:00", fates={"fails": 1}), at("2024-03-05 06:00")
    while moment < at("2024-03-05 12:00"):
        world.look(f"{moment:%Y-%m-%d %H:%M}")
        moment += timedelta(minutes=1)
    [run] = world.log.runs
    assert (run.state, run.why) == ("failed", f"exit 5; {ATTEMPTS} attempts")
    assert [a.id for a in run.attempts] == ["daily-20240305T0600", "daily-20240305T0600-2", "daily-20240305T0600-3"]
    pauses = [(b.submitted - a.ended) for a, b in zip(run.attempts, run.attempts[1:], strict=False) if a.ended]
    assert timedelta(minutes=10) <= pauses[0] < timedelta(minutes=11)
    assert timedelta(minutes=20) <= pauses[1] < timedelta(minutes=21)


def test_a_run_that_hangs_is_stopped_at_its_wall_and_not_tried_again() -> None:
    world = World("2024-03-04 06:00", fates={"hangs": 1})
    world.look("2024-03-05 06:00")
    assert world.look("2024-03-05 06:29").open
    world.look("2024-03-05 06:30")
    assert world.jobs.held["daily-20240305T0600"].stopped_at == at("2024-03-05 06:30")
    world.look("2024-03-05 07:30")
    assert [state for state, _ in world.said()] == ["overran"]


def test_a_stopped_job_is_not_tried_again() -> None:
    world = World("2024-03-04 06:00", fates={"hangs": 1})
    world.look("2024-03-05 06:00")
    world.jobs.stop("daily-20240305T0600")
    world.look("2024-03-05 06:05")
    assert world.said() == [("stopped", "somebody stopped its job")]


def test_a_paused_timetable_starts_nothing_but_what_is_asked_for_by_hand() -> None:
    world = World("2024-03-04 06:00")
    world.log = replace(world.log, paused_since=at("2024-03-04 12:00"))
    world.look("2024-03-05 06:00")
    assert world.said() == [("waiting", "paused since 2024-03-04T12:00:00Z")]
    world.log = ask(world.log, DAILY, at("2024-03-05 06:30"), at("2024-03-06 06:30"), BY_HAND)
    world.look("2024-03-05 06:30")
    assert list(world.jobs.held) == ["daily-20240305T0630-hand"]
    world.log = replace(world.log, paused_since=None)
    world.look("2024-03-05 08:00")
    assert list(world.jobs.held)[1:] == ["daily-20240305T0600"]


def test_the_same_question_twice_is_one_run() -> None:
    asked = ask(RunLog(), DAILY, at("2024-03-05 06:30"), at("2024-03-06 06:30"), BY_HAND)
    assert ask(asked, DAILY, at("2024-03-05 06:30"), at("2024-03-07 06:30"), BY_HAND) == asked


def test_an_alarm_gets_one_run_a_day() -> None:
    alarm = Entry("drift", "0 0 * * *", "quick", "30m", "America/New_York", on_alarm=True)
    world = World("2024-03-05 06:00")
    for moment in ("2024-03-05 08:00", "2024-03-05 09:00", "2024-03-06 04:59", "2024-03-06 05:00"):
        world.log = ask_for_drift(world.log, at(moment), (DAILY, alarm), "H1: volatility")
        world.look(moment)
    assert list(world.jobs.held) == ["drift-20240305T0500", "drift-20240306T0500"]
    assert world.log.runs[0].asked_by == "alarm: H1: volatility"


STARTED = at("2024-03-05 06:00")


@pytest.mark.parametrize(
    ("job", "minutes", "how"),
    [
        (None, 1, "lost"),  # the head began anew
        (Job("a", "PENDING", STARTED), 9, ""),
        (Job("a", "PENDING", STARTED), 10, "stuck"),
        (Job("a", "RUNNING", STARTED, wall=timedelta(minutes=30)), 29, ""),
        (Job("a", "RUNNING", STARTED, wall=timedelta(minutes=30)), 30, "overran"),
        (Job("a", "RUNNING", STARTED), 10_000, ""),  # nobody gave it a wall
        (Job("a", "RUNNING", STARTED, alive=False), 1, "lost"),
        (Job("a", "RUNNING", STARTED, alive=False, wall=timedelta(minutes=30)), 90, "lost"),
        (Job("a", "SUCCEEDED", STARTED, alive=False), 1, "succeeded"),
        (Job("a", "FAILED", STARTED), 1, "failed"),
        (Job("a", "STOPPED", STARTED), 1, "stopped"),
    ],
)
def test_a_job_has_ended_when_nothing_is_alive(job: Job | None, minutes: int, how: str) -> None:
    assert how_ended(job, STARTED + timedelta(minutes=minutes)) == how


def scheduler(path: Path, jobs: SimulatedJobs) -> RetrainScheduler:
    return RetrainScheduler(RunLogFile(path), lambda: (DAILY,), jobs, lambda _: jobs.now, lambda: jobs.now)


def test_a_new_life_goes_on_from_the_file(tmp_path: Path) -> None:
    jobs, path = SimulatedJobs(fates=ALL_WELL, now=at("2024-03-04 12:00")), tmp_path / "retrains.json"
    scheduler(path, jobs).look()
    jobs.now = at("2024-03-05 06:00")
    log = scheduler(path, jobs).look()
    assert RunLogFile(path).read() == log
    jobs.now = at("2024-03-05 06:31")
    assert [run.state for run in scheduler(path, jobs).look().runs] == ["succeeded"]
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []


def test_what_was_asked_for_is_kept_while_the_cluster_is_away(tmp_path: Path) -> None:
    jobs = SimulatedJobs(fates=ALL_WELL, now=at("2024-03-05 06:00"), away=True)
    one = scheduler(tmp_path / "retrains.json", jobs)
    with pytest.raises(ClusterError):
        one.look(lambda log: ask(log, DAILY, jobs.now, jobs.now + timedelta(hours=24), BY_HAND))
    jobs.away = False
    assert [run.state for run in one.look().runs] == ["running"]


def test_a_damaged_log_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "retrains.json"
    path.write_text('{"open": 3}')
    with pytest.raises(ConfigError, match="Remove it"):
        RunLogFile(path).read()


def test_the_log_forgets_the_oldest() -> None:
    log = RunLog()
    for day in range(600):
        slot = at("2024-01-01 00:00") + timedelta(days=day)
        log = log.put(Run("daily", slot, slot, "quick", "30m", state="skipped"))
    assert len(log.closed) == 500
    assert log.closed[-1].slot.year == 2025
