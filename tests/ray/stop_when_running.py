"""Print how the scheduler sees a job once it runs, then stop it. A process of its own, since the token is the process's."""

from __future__ import annotations

import sys

from cluster.jobs import RayJobs
from configs.settings import load_settings
from tests.ray.conftest import eventually

submission = sys.argv[1]
jobs = RayJobs(load_settings())
[job] = eventually(
    lambda: [job for job in jobs.training() if job.id == submission and job.status == "RUNNING"], 120, "the job runs"
)
jobs.stop(submission)
print(job.alive, job.wall)
