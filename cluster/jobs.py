"""Training as Ray jobs: submit once, follow, list. Knows the dashboard's address and token; not what training does."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from actors.retrain_scheduler import Job
from actors.run_log import Run
from cluster.health import dashboard_get
from cluster.nodes import auth_environment
from configs.settings import ROOT, Settings
from market.errors import ClusterError, InputError, NotRunning, WrongToken
from market.forecasts import iso_utc, parse_utc

EXCLUDES = [".venv", ".git", ".lstmc", "tests", "docs", "out", "build", "dist", "*.png", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "__pycache__"]  # fmt: skip
# A driver's small matrix products wait for each other's threads on a busy node: its leak tests took 4.4 s instead of 0.1 s.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
TERMINAL = ("SUCCEEDED", "FAILED", "STOPPED")


def dashboard_url(settings: Settings) -> str:
    return f"http://127.0.0.1:{settings.dashboard_port}"


@contextmanager
def job_client(settings: Settings) -> Iterator[Any]:
    """A JobSubmissionClient that shows the token; NotRunning or WrongToken instead of Ray's tracebacks."""
    os.environ |= auth_environment(settings)
    os.environ["RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES"] = ""  # EXCLUDES says it all, without Ray's two warnings
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        yield JobSubmissionClient(dashboard_url(settings))
    except ConnectionError:
        raise NotRunning(
            f"No Ray dashboard answers at {dashboard_url(settings)}.", hint="Start the cluster with `lstmc up`."
        ) from None
    except AuthenticationError:
        raise WrongToken(
            "The cluster refused our token.",
            hint="RAY_AUTH_TOKEN must be the content of <home>/secrets/ray_token of the running cluster.",
        ) from None
    except RuntimeError as error:
        raise _plain(error) from None


def _plain(error: RuntimeError) -> ClusterError:
    lines = [line for line in str(error).splitlines() if line.strip()]
    what = lines[-1] if lines else type(error).__name__
    return ClusterError(f"The job could not be handled: {what}", hint="See `lstmc status`.")


def training_entrypoint(
    preset: str, symbols: str | None = None, timeframe: str | None = None, budget: str | None = None
) -> str:
    """The shell line of a training job, lower in priority than serving."""
    words = ["nice", "-n", "10", "python", "-m", "tuning.retrain", "--preset", preset]
    for flag, value in (("--symbols", symbols), ("--timeframe", timeframe), ("--budget", budget)):
        words += [flag, value] if value else []
    return shlex.join(words)


def submit_training(
    settings: Settings,
    preset: str,
    *,
    symbols: str | None = None,
    timeframe: str | None = None,
    budget: str | None = None,
    submission_id: str | None = None,
    noted: dict[str, str] | None = None,
) -> str:
    """Submit one training run; returns its submission id. The same `submission_id` twice is one run (ClusterError says so).

    `noted`: what else Ray's job list is to show of it.
    """
    entrypoint = training_entrypoint(preset, symbols, timeframe, budget)
    submission_id = submission_id or f"train-{preset}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
    with job_client(settings) as client:
        if any(job.submission_id == submission_id for job in client.list_jobs()):
            raise ClusterError(f"The run {submission_id} was submitted before.", hint="See `lstmc status`.")
        return str(
            client.submit_job(
                entrypoint=entrypoint,
                submission_id=submission_id,
                runtime_env={"working_dir": str(ROOT), "excludes": EXCLUDES, "env_vars": ONE_THREAD},
                metadata={"kind": "training", "preset": preset} | (noted or {}),
            )
        )


def list_jobs(settings: Settings) -> list[dict[str, Any]]:
    """Submitted jobs, newest first: id, status, entrypoint, message, started and ended as epoch seconds."""
    with job_client(settings) as client:
        jobs = [job for job in client.list_jobs() if job.submission_id]
    rows = [
        {
            "id": job.submission_id,
            "status": str(job.status.value),
            "entrypoint": job.entrypoint,
            "training": "tuning.retrain" in job.entrypoint,
            "message": job.message,
            "started": job.start_time / 1000 if job.start_time else None,
            "ended": job.end_time / 1000 if job.end_time else None,
        }
        for job in jobs
    ]
    return sorted(rows, key=lambda row: row["started"] or 0, reverse=True)


@dataclass(frozen=True)
class RayJobs:
    """Ray's training jobs as actors.retrain_scheduler.Jobs."""

    settings: Settings

    def training(self) -> list[Job]:
        with job_client(self.settings) as client:
            watched = _supervised(self.settings)
            found = [job for job in client.list_jobs() if job.submission_id and "tuning.retrain" in job.entrypoint]
            watched |= _supervised(self.settings)  # before and after the list: jobs begin and end meanwhile
        return [_job(job, f"_ray_internal_job_actor_{job.submission_id}" in watched) for job in found]

    def submit(self, submission_id: str, run: Run, budget: timedelta) -> None:
        try:
            submit_training(
                self.settings,
                run.preset,
                timeframe=run.timeframe,
                budget=f"{budget.total_seconds():g}s",
                submission_id=submission_id,
                noted={"wall_seconds": f"{run.wall.total_seconds():g}", "bars_until": iso_utc(run.bars_until) or ""},
            )
        except ClusterError:
            if submission_id not in {job.id for job in self.training()}:
                raise

    def stop(self, submission_id: str) -> None:
        with job_client(self.settings) as client:
            client.stop_job(submission_id)


def _supervised(settings: Settings) -> set[str]:
    """Names of the living actors that each watch over one job's driver."""
    asked = {"limit": 1000, "filter_keys": "state", "filter_predicates": "=", "filter_values": "ALIVE"}
    rows = dashboard_get(settings, f"/api/v0/actors?{urlencode(asked)}")["data"]["result"]["result"]
    return {str(row.get("name")) for row in rows}


def _job(job: Any, alive: bool) -> Job:
    noted = job.metadata or {}
    wall, bars_until = noted.get("wall_seconds"), noted.get("bars_until")
    return Job(
        id=job.submission_id,
        status=str(job.status.value),
        started=_moment(job.start_time) or datetime.now(UTC),
        ended=_moment(job.end_time),
        alive=alive,
        wall=timedelta(seconds=float(wall)) if wall else None,
        bars_until=parse_utc(bars_until) if bars_until else None,
        exit_code=job.driver_exit_code,
        message=job.message or "",
    )


def _moment(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


def follow(settings: Settings, submission_id: str, write: Callable[[str], None], poll_seconds: float = 1.0) -> str:
    """Write the job's log as it grows until it ends. Returns SUCCEEDED, FAILED or STOPPED; InputError on an unknown id."""
    written = 0
    while True:
        with job_client(settings) as client:
            try:
                status = str(client.get_job_status(submission_id).value)
            except RuntimeError as error:
                if "404" in str(error) or "does not exist" in str(error):
                    raise InputError(f"There is no job {submission_id!r}.", hint="See `lstmc status`.") from None
                raise
            logs = client.get_job_logs(submission_id)
        if len(logs) > written:
            write(logs[written:])
            written = len(logs)
        if status in TERMINAL:
            return status
        time.sleep(poll_seconds)
