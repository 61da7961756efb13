"""`lstmc schedule`: the timetable, the log of its runs, and a look at what is due."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.console import Json, example, new_app, note, one_of, rows, settings, show

if TYPE_CHECKING:
    from actors.retrain_scheduler import RetrainScheduler
    from actors.run_log import Run, RunLog
    from actors.timetable import Entry

app = new_app()
LOOP_SECONDS = 20.0
HAND_WINDOW = timedelta(hours=24)  # how long a run that was asked for by hand may wait for another to end
RUN_COLUMNS = ["slot", "run", "state", "attempts", "waited", "took", "wall", "why"]


@app.command("show", epilog=example("lstmc schedule show --runs"))
def show_schedule(
    runs: Annotated[bool, typer.Option("--runs", help="What became of every slot, newest first.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="With --runs: how many.")] = 30,
    as_json: Json = False,
) -> None:
    """The timetable, the next slot of each run and how its last one ended."""
    from actors.retrain_scheduler import log_file

    log = log_file(settings()).read()
    if runs:
        newest = [run_row(run) for run in reversed(log.runs)][:limit]
        return show(newest, as_json, lambda _: _table(RUN_COLUMNS, newest) if newest else "nothing was due yet")
    table = timetable_rows(log)
    show(table, as_json, lambda _: "\n".join([_table(list(table[0]), table) if table else "no runs", *_paused(log)]))


def timetable_rows(log: RunLog) -> list[dict[str, Any]]:
    """Each entry, JSON-ready: its next slot (null: not by itself, "why" says so), its newest run."""
    from actors.timetable import load_timetable, next_slot, of_installation
    from market.forecasts import iso_utc

    now, timetable = datetime.now(UTC), load_timetable()
    here = of_installation(timetable, settings().timeframes)
    return [
        {
            "name": e.name,
            "cron": e.cron,
            "zone": e.zone,
            "preset": e.preset,
            "budget": e.budget,
            "next": iso_utc(next_slot(e, now)) if e in here else None,
            "last": (last := log.last(e.name)) and last.state,
            "why": (last.why if last else "") if e in here else _not_here(e),
        }
        for e in timetable
    ]


def _not_here(entry: Entry) -> str:
    return "when a drift alarm asks" if entry.on_alarm else f"no {entry.timeframe} in this installation"


def run_row(run: Run) -> dict[str, Any]:
    """A run, JSON-ready. waited: from its slot to its first attempt; took: of its last attempt; wall: all in seconds."""
    from market.forecasts import iso_utc, jsonable

    first, last = (run.attempts[0], run.attempts[-1]) if run.attempts else (None, None)
    return {
        "slot": iso_utc(run.slot),
        "run": run.name,
        "asked_by": run.asked_by,
        "state": run.state,
        "attempts": [jsonable(vars(attempt) | {"seconds": attempt.seconds}) for attempt in run.attempts],
        "waited": (first.submitted - run.slot).total_seconds() if first else None,
        "took": last.seconds if last else None,
        "wall": run.wall.total_seconds(),
        "why": run.why,
    }


def _table(columns: list[str], lines: list[dict[str, Any]]) -> str:
    def cell(name: str, value: Any) -> Any:
        if name == "attempts":
            return " ".join(f"{a['id']} ({a['how'] or 'at work'})" for a in value)
        return f"{value:.0f} s" if isinstance(value, float) else value

    return rows(columns, [[cell(name, line[name]) for name in columns] for line in lines])


def _paused(log: RunLog) -> list[str]:
    from market.forecasts import iso_utc

    return [f"paused since {iso_utc(log.paused_since)}; go on with `lstmc schedule resume`"] if log.paused_since else []


@app.command("run", epilog=example("lstmc schedule run --name daily"))
def run_schedule(
    name: Annotated[str | None, typer.Option(help="Submit this run now, whatever its slot.")] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Stay, and submit each run at its slot.")] = False,
    as_json: Json = False,
) -> None:
    """Submit what is due (or one run by name) as Ray jobs: what the cluster does by itself, unless it is told not to."""
    from actors.retrain_scheduler import ask
    from actors.run_log import BY_HAND
    from actors.timetable import load_timetable

    scheduler, began = _scheduler(), datetime.now(UTC).replace(microsecond=0)
    if name:
        table = {entry.name: entry for entry in load_timetable()}
        entry = table[one_of(name, list(table), "run")]
        log = scheduler.look(lambda log: ask(log, entry, began, began + HAND_WINDOW, BY_HAND))
    else:
        log = scheduler.look()
    submitted, waiting = _submitted(log, began), {run.next_id: run.why for run in log.open if run.state == "waiting"}
    words = [f"submitted {one}" for one in submitted] + [f"{one} waits: {why}" for one, why in waiting.items()]
    show({"submitted": submitted, "waiting": waiting}, as_json, lambda _: "\n".join(words) or "nothing is due")
    while loop:
        time.sleep(LOOP_SECONDS)
        began = datetime.now(UTC)
        for submission in _submitted(_look(scheduler), began):
            note(f"submitted {submission}")


def _look(scheduler: RetrainScheduler) -> RunLog:
    from actors.run_log import RunLog
    from market.errors import ClusterError

    try:
        return scheduler.look()
    except ClusterError as error:  # the cluster may come back; what is due stays due
        note(str(error))
        return RunLog()


def _submitted(log: RunLog, since: datetime) -> list[str]:
    return [run.attempts[-1].id for run in log.runs if run.attempts and run.attempts[-1].submitted >= since]


def _scheduler() -> RetrainScheduler:
    from actors.retrain_scheduler import scheduler_of
    from cluster.jobs import RayJobs

    here = settings()
    return scheduler_of(here, RayJobs(here))


@app.command(epilog=example("lstmc schedule pause"))
def pause(as_json: Json = False) -> None:
    """Start nothing more by the timetable; what runs goes on. `schedule run --name` still does."""
    _set_paused(datetime.now(UTC), as_json)


@app.command(epilog=example("lstmc schedule resume"))
def resume(as_json: Json = False) -> None:
    """Go on by the timetable; a slot whose window is not over yet is caught up."""
    _set_paused(None, as_json)


def _set_paused(since: datetime | None, as_json: bool) -> None:
    from actors.retrain_scheduler import log_file
    from market.forecasts import iso_utc

    with log_file(settings()).change() as held:
        held[0] = replace(held[0], paused_since=since and (held[0].paused_since or since))
        log = held[0]
    data = {"paused_since": iso_utc(log.paused_since)}
    show(data, as_json, lambda _: "\n".join(_paused(log)) or "the timetable goes on")
