"""When to retrain: from the time, the log of runs and Ray's jobs to the next log, and at most one job more.

`step` may be called by anybody at any moment and any number of times: a slot's submission id is the same for all, and Ray
refuses it the second time. Knows neither Ray nor clocks: all are given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from actors.run_log import BY_HAND, Attempt, Run, RunLog, RunLogFile, State
from actors.timetable import Entry, last_slot, load_timetable, next_slot, of_installation, slots_between
from configs.settings import Settings
from market.bar_store import BarStore
from market.forecasts import iso_utc

LOOK_BACK = timedelta(days=8)  # slots older than this are history, not even recorded as missed
STARTING = timedelta(minutes=1)  # of a job's wall, for what happens before its own budget begins to count
PENDING_LIMIT = timedelta(minutes=10)  # a job that has not begun by then never will
ATTEMPTS = 3
BACK_OFF = timedelta(minutes=10)  # after the first failure; doubles
BAD_INPUT = 2  # exit code of a job that would fail the same way again

Newest = Callable[[str | None], datetime | None]  # timeframe, None: all -> close of the newest stored bar


@dataclass(frozen=True)
class Job:
    """A training job as Ray sees it. `started`: when it was submitted; `wall`: None when it has none.

    `alive`: whether what watches over its driver lives. Ray has been seen to call a job RUNNING for ever after its death.
    """

    id: str
    status: str  # PENDING, RUNNING, SUCCEEDED, FAILED, STOPPED
    started: datetime
    ended: datetime | None = None
    alive: bool = True
    wall: timedelta | None = None
    bars_until: datetime | None = None  # as the run that submitted it had it
    exit_code: int | None = None
    message: str = ""


class Jobs(Protocol):
    """The cluster's training jobs; ClusterError when it does not answer."""

    def training(self) -> list[Job]: ...
    def submit(self, submission_id: str, run: Run, budget: timedelta) -> None:
        """Returns as well when the id is known already: then somebody else has submitted the same run."""

    def stop(self, submission_id: str) -> None: ...


def how_ended(job: Job | None, now: datetime) -> str:
    """Empty while it goes on; else how it ended, whatever Ray's status says. A job that Ray does not know was lost."""
    if job is None:
        return "lost"
    if job.status in ("SUCCEEDED", "FAILED", "STOPPED"):
        return job.status.lower()
    if job.status == "PENDING":
        return "stuck" if now - job.started >= PENDING_LIMIT else ""
    if not job.alive:
        return "lost"
    return "overran" if job.wall is not None and now - job.started >= job.wall else ""


def ask(log: RunLog, entry: Entry, slot: datetime, until: datetime, asked_by: str) -> RunLog:
    """A run beside the timetable. Nothing new when the log has one of this entry and slot, however it ended."""
    run = _run(entry, slot, until, asked_by)
    return log if any(known.key == run.key for known in log.runs) else log.put(run)


def ask_for_drift(log: RunLog, now: datetime, timetable: Iterable[Entry], reason: str) -> RunLog:
    """An alarm's extra run: of the slot that `now` is in, so that one slot has one at most, whoever saw it first."""
    for entry in timetable:
        if entry.on_alarm:
            slot = last_slot(entry, now)
            log = ask(log, entry, slot, next_slot(entry, slot), f"alarm: {reason}")
    return log


def _run(entry: Entry, slot: datetime, until: datetime, asked_by: str = "timetable") -> Run:
    return Run(entry.name, slot, until, entry.preset, entry.budget, entry.timeframe, asked_by)


def with_due(log: RunLog, now: datetime, timetable: Iterable[Entry]) -> RunLog:
    """The log with every slot up to `now`, waiting. A slot's window ends with the entry's next slot; a new entry has no
    slot before its next one."""
    for entry in timetable:
        since = log.cursor.get(entry.name)
        slots = list(slots_between(entry, max(since, now - LOOK_BACK), now)) if since else []
        for slot in slots:
            log = log.put(_run(entry, slot, next_slot(entry, slot)))
        if slots or not since:
            log = replace(log, cursor=log.cursor | {entry.name: slots[-1] if slots else now})
    return log


def _closed(run: Run, state: State, why: str) -> Run:
    return replace(run, state=state, why=why, not_before=None)


def adopted(run: Run, job: Job | None) -> Run:
    """A waiting run whose next attempt another scheduler has submitted."""
    if run.state != "waiting" or job is None:
        return run
    return _running(replace(run, bars_until=job.bars_until), Attempt(job.id, job.started))


def _running(run: Run, attempt: Attempt) -> Run:
    return replace(run, state="running", why="", not_before=None, attempts=(*run.attempts, attempt))


def after(run: Run, job: Job | None, now: datetime) -> Run:
    """A run once more looked at: as it was, closed, or waiting for its next attempt."""
    how = how_ended(job, now) if run.state == "running" else ""
    if not how:
        return run
    ended = (job.ended if job else None) or now
    attempt = replace(run.attempts[-1], ended=ended, how=how)
    run = replace(run, attempts=(*run.attempts[:-1], attempt))
    if how == "succeeded":
        return _closed(run, "succeeded", "")
    if how == "overran":
        return _closed(run, "overran", f"still at work at its wall of {run.budget}, and stopped")
    if how == "stopped":
        return _closed(run, "stopped", "somebody stopped its job")
    count, why = len(run.attempts), _why(how, job)
    if job is not None and job.exit_code == BAD_INPUT:
        return _closed(run, "failed", f"{why}; not tried again: its input was refused")
    if count >= ATTEMPTS:
        return _closed(run, "failed", f"{why}; {count} attempts")
    again = ended + BACK_OFF * 2 ** (count - 1)
    return replace(run, state="waiting", why=f"{why}; tried again from {iso_utc(again)}", not_before=again)


def _why(how: str, job: Job | None) -> str:
    if job is None:
        return "Ray knows its job no more"
    if how == "failed":
        return (job.message.strip().splitlines() or ["its job failed"])[-1]
    return "its driver died" if how == "lost" else f"its job did not begin within {PENDING_LIMIT.seconds // 60} min"


def expired(run: Run, now: datetime) -> Run:
    """A waiting run whose window is over is dropped: its entry's next slot takes its place."""
    if run.state != "waiting" or now < run.until:
        return run
    state: State = "failed" if run.attempts else "skipped"
    return _closed(run, state, f"its window ended at {iso_utc(run.until)}; {run.why or 'nobody looked'}")


def step(log: RunLog, now: datetime, timetable: Iterable[Entry], jobs: Jobs, newest: Newest) -> RunLog:
    """One look. Submits one job at most, stops those at their wall; ClusterError when the cluster does not answer, and then
    the next look finds the same to do."""
    log = with_due(log, now, timetable)
    if not log.open:
        return log
    known = {job.id: job for job in jobs.training()}
    seen = dict(log.bars_seen)
    for run in log.open:
        run = adopted(run, known.get(run.next_id))
        run = after(run, known.get(run.attempts[-1].id) if run.attempts else None, now)
        if run.state == "overran":
            jobs.stop(run.attempts[-1].id)
        if run.state == "succeeded" and run.bars_until:
            seen[run.name] = run.bars_until
        log = log.put(expired(run, now))
    return _started(replace(log, bars_seen=seen), now, known, jobs, newest)


def _started(log: RunLog, now: datetime, known: Mapping[str, Job], jobs: Jobs, newest: Newest) -> RunLog:
    """With the oldest run that may begin begun, and the others deferred. Several schedulers choose the same one."""
    at_work = next((job.id for job in known.values() if not how_ended(job, now)), None)
    for run in sorted(log.open, key=lambda run: run.slot):
        if run.state != "waiting" or (run.not_before and now < run.not_before):
            continue
        bars = newest(run.timeframe)
        if held := _held(run, log.paused_since, at_work):
            log = log.put(replace(run, why=held))
        elif reason := _no_news(run, bars, log.bars_seen.get(run.name)):
            log = log.put(_closed(run, "skipped", reason))
        else:
            at_work, run = run.next_id, replace(run, bars_until=bars)
            jobs.submit(at_work, run, max(run.wall - STARTING, run.wall / 2))
            log = log.put(_running(run, Attempt(at_work, now)))
    return log


def _held(run: Run, paused_since: datetime | None, at_work: str | None) -> str:
    """Why a run has to wait; "" when it need not."""
    if paused_since and run.asked_by != BY_HAND:
        return f"paused since {iso_utc(paused_since)}"
    return f"deferred: {at_work} is training" if at_work else ""


def _no_news(run: Run, bars: datetime | None, seen: datetime | None) -> str:
    """Why a first attempt by the timetable would learn nothing; "" when it may."""
    if run.attempts or run.asked_by == BY_HAND:
        return ""
    if bars is None:
        return "no bars are stored"
    return f"no new bars since {iso_utc(seen)}, which the last one had" if seen and bars <= seen else ""


def scheduler_of(settings: Settings, jobs: Jobs) -> RetrainScheduler:
    """The installation's: its timetable, its stored bars and its log. On wall time, whatever the market's clock shows."""
    store = BarStore(settings.bars_path)

    def newest(timeframe: str | None) -> datetime | None:
        frames = (timeframe,) if timeframe else settings.timeframes
        closes = [store.last_close(symbol, frame) for symbol in settings.symbols for frame in frames]
        return max((close for close in closes if close), default=None)

    def timetable() -> tuple[Entry, ...]:
        return of_installation(load_timetable(), settings.timeframes)

    return RetrainScheduler(log_file(settings), timetable, jobs, newest, lambda: datetime.now(UTC))


def log_file(settings: Settings) -> RunLogFile:
    """Each market has its own, as it has its own models."""
    return RunLogFile(settings.data_path / "retrains.json")


class RetrainScheduler:
    """The step with its file. Every life begins from the file and Ray's jobs, so that a crash loses nothing."""

    def __init__(
        self,
        file: RunLogFile,
        timetable: Callable[[], Iterable[Entry]],
        jobs: Jobs,
        newest: Newest,
        now: Callable[[], datetime],
    ) -> None:
        self._file, self._timetable, self._jobs, self._newest, self._now = file, timetable, jobs, newest, now

    def look(self, change: Callable[[RunLog], RunLog] = lambda log: log) -> RunLog:
        """`change`, then one step, under the file's lock; returns the log as written. What was changed is written even if
        the cluster does not answer (ClusterError)."""
        with self._file.change() as held:
            held[0] = change(held[0])
        with self._file.change() as held:
            held[0] = step(held[0], self._now(), self._timetable(), self._jobs, self._newest)
            return held[0]
