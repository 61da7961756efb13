"""Ray's jobs on a clock of their own: each job has a fate, drawn from its id and a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from actors.retrain_scheduler import Job
from actors.run_log import Run
from market.errors import ClusterError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FATES = {"ok": 84, "fails": 6, "bad input": 1, "hangs": 4, "dies": 3, "never begins": 2}


@dataclass
class Held:
    started: datetime
    wall: timedelta | None
    fate: str
    seconds: float  # how long it works, unless it hangs or dies
    run: Run | None = None
    stopped_at: datetime | None = None

    def at_work(self, now: datetime) -> bool:
        """Whether it really uses the machine."""
        if self.stopped_at or self.fate == "never begins":
            return False
        return self.fate == "hangs" or now < self.started + timedelta(seconds=self.seconds)


@dataclass
class SimulatedJobs:
    """actors.retrain_scheduler.Jobs. `frozen`: what `training` answers while several schedulers race."""

    seed: int = 0
    fates: dict[str, int] = field(default_factory=lambda: FATES)
    now: datetime = EPOCH
    away: bool = False
    held: dict[str, Held] = field(default_factory=dict)
    refused: int = 0
    overlaps: list[str] = field(default_factory=list)
    frozen: list[Job] | None = None

    def training(self) -> list[Job]:
        if self.away:
            raise ClusterError("the head is away")
        if self.frozen is None:  # Ray keeps them all; the older ones would only take time here
            return [self._job(*item) for item in list(self.held.items())[-40:]]
        return self.frozen

    def submit(self, submission_id: str, run: Run, budget: timedelta) -> None:
        if submission_id in self.held:
            self.refused += 1
            return
        busy = [id for id, job in self.held.items() if job.at_work(self.now)]
        self.overlaps += [f"{submission_id} beside {id}" for id in busy]
        chance = random.Random(f"{self.seed} {submission_id}")
        [fate] = chance.choices(list(self.fates), list(self.fates.values()))
        seconds = chance.uniform(0.1, 1.0) * budget.total_seconds()
        self.held[submission_id] = Held(self.now, run.wall, fate, seconds, run)

    def stop(self, submission_id: str) -> None:
        self.held[submission_id].stopped_at = self.now

    def by_hand(self, submission_id: str, seconds: float) -> None:
        self.held[submission_id] = Held(self.now, None, "ok", seconds)

    def seconds(self, submission_id: str) -> float:
        job = self.held[submission_id]
        ended = job.stopped_at or (self.now if job.fate == "hangs" else job.started + timedelta(seconds=job.seconds))
        return (ended - job.started).total_seconds()

    def _job(self, id: str, job: Held) -> Job:
        end = job.started + timedelta(seconds=job.seconds)
        seen = Job(id, "RUNNING", job.started, wall=job.wall, bars_until=job.run and job.run.bars_until)
        if job.stopped_at:
            return replace(seen, status="STOPPED", ended=job.stopped_at)
        if job.fate == "never begins":
            return replace(seen, status="PENDING")
        if job.at_work(self.now):
            return seen
        if job.fate == "dies":
            return replace(seen, alive=False)
        if job.fate == "ok":
            return replace(seen, status="SUCCEEDED", ended=end, exit_code=0)
        code = 2 if job.fate == "bad input" else 5
        return replace(seen, status="FAILED", ended=end, exit_code=code, message=f"log\nexit {code}")
