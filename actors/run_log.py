"""What became of every slot: waiting, running or how it ended. One small JSON file beside the market's models.

Ray's job list knows what ran, and only until the head stops; this file knows what was due, what was decided and why, and
outlives it. Where the two differ Ray is right: see retrain_scheduler.py. Decides nothing.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from configs.durations import parse_budget
from market.errors import ConfigError
from tuning.bundle import write_whole

KEPT = 500  # closed runs: about half a year of the shipped timetable
BY_HAND = "hand"

State = Literal["waiting", "running", "succeeded", "failed", "overran", "stopped", "skipped"]


@dataclass(frozen=True)
class Attempt:
    """One Ray job. `how`: succeeded, failed, stopped, overran, lost (its driver died), stuck (it never began); "" while it runs."""

    id: str
    submitted: datetime
    ended: datetime | None = None
    how: str = ""

    @property
    def seconds(self) -> float | None:
        return (self.ended - self.submitted).total_seconds() if self.ended else None


@dataclass(frozen=True)
class Run:
    """One slot of one entry. `until`: the end of its window; `not_before`: the back-off after an attempt that failed.

    `asked_by`: timetable, hand, or why an alarm asked. `bars_until`: the newest bar's close when it began, market time.
    """

    name: str
    slot: datetime
    until: datetime
    preset: str
    budget: str
    timeframe: str | None = None
    asked_by: str = "timetable"
    state: State = "waiting"
    why: str = ""
    not_before: datetime | None = None
    bars_until: datetime | None = None
    attempts: tuple[Attempt, ...] = ()

    @property
    def wall(self) -> timedelta:
        return parse_budget(self.budget)

    @property
    def next_id(self) -> str:
        """The next attempt's submission id: the same whoever asks, so that Ray refuses the second who submits it."""
        hand = f"-{BY_HAND}" if self.asked_by == BY_HAND else ""
        again = f"-{len(self.attempts) + 1}" if self.attempts else ""
        return f"{self.name}-{self.slot.astimezone(UTC):%Y%m%dT%H%M}{hand}{again}"

    @property
    def key(self) -> tuple[str, datetime, bool]:
        return self.name, self.slot, self.asked_by == BY_HAND

    @property
    def is_open(self) -> bool:
        return self.state in ("waiting", "running")


@dataclass(frozen=True)
class RunLog:
    """`open`: what waits or runs. `closed`: oldest first. `cursor`: entry -> the slot (or moment) up to which every slot
    has been put here. `bars_seen`: entry -> the newest bar that its last success had. Both outlive what is forgotten."""

    open: tuple[Run, ...] = ()
    closed: tuple[Run, ...] = ()
    cursor: dict[str, datetime] = field(default_factory=dict)
    bars_seen: dict[str, datetime] = field(default_factory=dict)
    paused_since: datetime | None = None

    @property
    def runs(self) -> tuple[Run, ...]:
        """All, those that are open last."""
        return self.closed + self.open

    def last(self, name: str | None = None) -> Run | None:
        """The newest run that has ended; with `name`, of that entry."""
        return next((run for run in reversed(self.closed) if name in (None, run.name)), None)

    def put(self, run: Run) -> RunLog:
        """With this run in place of the open one of its key."""
        others = tuple(other for other in self.open if other.key != run.key)
        if run.is_open:
            return replace(self, open=(*others, run))
        return replace(self, open=others, closed=(*self.closed[1 - KEPT :], run))


_JSON = TypeAdapter(RunLog)


class RunLogFile:
    """The file. Written under a temporary name and renamed; who changes it holds the lock from reading to writing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> RunLog:
        """ConfigError when it is damaged."""
        try:
            return _JSON.validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return RunLog()
        except ValidationError as error:
            raise ConfigError(
                f"The log of retrains {self.path} cannot be read: {error.errors()[0]['msg']}.",
                hint="Remove it; every run then waits for its next slot.",
            ) from None

    @contextmanager
    def change(self) -> Iterator[list[RunLog]]:
        """A list of one log: put another in its place and it is written. Nobody else changes the file meanwhile."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = self.read()
            held = [before]
            yield held
            if held[0] != before:
                write_whole(self.path, _JSON.dump_json(held[0], indent=1))
