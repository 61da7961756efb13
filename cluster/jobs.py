"""Training as Ray jobs: submit once, follow, list. Knows the dashboard's address and token; not what training does."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cluster.nodes import auth_environment
from configs.settings import ROOT, Settings
from market.errors import ClusterError, InputError, NotRunning, WrongToken

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
) -> str:
    """Submit one training run; returns its submission id. The same `submission_id` twice is one run (ClusterError says so)."""
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
                metadata={"kind": "training", "preset": preset},
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
