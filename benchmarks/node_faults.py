"""The faults of `lstmc bench nodes`: machines that die, cables that are pulled, a store that takes nothing, a wrong clock.

A fault happens, is held and ends inside its function, which returns in words what proves it; ClusterError says what did not
come true. Healing begins when it returns.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.private_installation import until
from benchmarks.three_machines import HEAD, MT5, STORE_BYTES, WORKER, ThreeMachines
from cluster import jobs
from configs.settings import ROOT
from market.errors import ClusterError

CLOCK_OFF = 300  # seconds
NO_UNITS = ("ray::ServeReplica", "ray::HAProxy", "ray::Proxy", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
# Python's clock alone: under libfaketime, which moves Ray's C++ side too, the node never joins the head.
AHEAD = f"import time, time_machine\ntime_machine.travel(time.time() + {CLOCK_OFF}, tick=True).start()\n"


@dataclass(frozen=True)
class Fault:
    """`out_s`: how long GETs may fail for; 0: none may fail. `heal_s`: all must be well again so soon after its end."""

    name: str
    title: str
    happen: Callable[[ThreeMachines], str]
    expected: str
    out_s: float = 0.0
    heal_s: float = 60.0


def kill(processes: list[psutil.Process]) -> str:
    """-9, in words."""
    if not processes:
        raise ClusterError("There is no such process to kill.")
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=5)
    return f"{len(processes)} process{'es' if len(processes) > 1 else ''} killed"


def named(made: ThreeMachines, machine: str, name: str) -> list[psutil.Process]:
    found = []
    for process in made.processes(machine):
        try:
            if process.name().startswith(name):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def train(made: ThreeMachines, preset: str, submission: str) -> None:
    made.lstmc("train", "--preset", preset, "--symbols", "EURUSD", "--submission-id", submission)


def job_state(made: ThreeMachines, submission: str) -> str:
    listed = made.threads[HEAD].submit(jobs.list_jobs, made.settings).result()
    return next((str(job["status"]) for job in listed if job["id"] == submission), "")


def await_units(made: ThreeMachines) -> set[str]:
    """What the worker computes, once it does."""
    seen: set[str] = set()

    def look() -> bool:
        seen.update(title for title in made.titles(WORKER) if not title.startswith(NO_UNITS))
        return bool(seen)

    until(look, 120, "units of the training run on the worker")
    return seen


def await_job(made: ThreeMachines, submission: str, seconds: float = 240.0) -> float:
    def ended() -> bool:
        return job_state(made, submission) in jobs.TERMINAL

    took = until(ended, seconds, f"the training job {submission} ends")
    if (state := job_state(made, submission)) != "SUCCEEDED":
        raise ClusterError(f"The training job {submission} ended as {state}.")
    return took


def _node(made: ThreeMachines, role: str) -> str:
    found = [node for node, known in made.nodes().items() if known == role]
    if len(found) != 1:
        raise ClusterError(f"The head takes {len(found)} nodes with the role {role} for living.")
    return found[0]


def _gone(made: ThreeMachines, node: str, seconds: float = 60.0) -> float:
    """After how long the head takes it for dead."""
    return until(lambda: node not in (made.nodes() or [node]), seconds, f"the head takes the node {node} for dead")


def _stale(made: ThreeMachines, seconds: float = 60.0) -> str:
    """After how long the forecast says that it is stale, and why."""
    took = until(lambda: made.forecast().get("stale"), seconds, "the forecast says that it is stale")
    return f"forecasts said stale after {took:.1f} s ({made.forecast().get('reason_code')})"


def worker_killed(made: ThreeMachines) -> str:
    submission, node = f"killed-{time.time_ns()}", _node(made, made.roles[WORKER])
    train(made, "quick", submission)
    units = await_units(made)
    killed = kill(made.processes(WORKER))
    dead = _gone(made, node)
    took = await_job(made, submission)
    return f"{killed} in the midst of {', '.join(sorted(units))}; known as dead after {dead:.1f} s; the job ended well {took:.0f} s later"


def worker_cut(made: ThreeMachines) -> str:
    node = _node(made, made.roles[WORKER])
    made.wire.cut(WORKER)
    try:
        return f"known as dead after {_gone(made, node, 90):.1f} s"
    finally:
        made.wire.mend(WORKER)


def proxy_killed(made: ThreeMachines) -> str:
    """One of two; nginx asks the other one. After another fault all replicas may be on one machine, and so the only HAProxy."""
    if not all(map(made.answers, made.proxies)):
        made.lstmc("roll")
        until(lambda: all(map(made.answers, made.proxies)), 60, "both machines serve")
    before = named(made, HEAD, "haproxy")
    said = kill(before)
    gone = {process.pid for process in before}
    took = until(lambda: {p.pid for p in named(made, HEAD, "haproxy")} - gone, 60, "another HAProxy on the head")
    return f"{said}; another one after {took:.1f} s"


def mt5_killed(made: ThreeMachines) -> str:
    return kill(made.processes(MT5))


def mt5_cut(made: ThreeMachines) -> str:
    node = _node(made, "mt5")
    made.wire.cut(MT5)
    try:
        return f"known as dead after {_gone(made, node, 90):.1f} s; {_stale(made)}"
    finally:
        made.wire.mend(MT5)


def head_killed(made: ThreeMachines) -> str:
    return kill(named(made, HEAD, "gcs_server"))


def redis_killed(made: ThreeMachines) -> str:
    before, store = made.units["redis"].pid, named(made, HEAD, "gcs_server")
    os.kill(before, 9)
    until(lambda: made.units["redis"].pid != before, 30, "another Redis")
    _, alive = psutil.wait_procs(store, timeout=30)
    return f"killed, and another started; the head's control store {'lived on' if alive else 'ended with it'}"


def _remount(made: ThreeMachines, options: Callable[[Path], str]) -> None:
    path = made.settings.bars_path
    for _ in range(50):  # a file that is being written keeps it busy
        command = ["mount", "-o", f"remount,{options(path)}", str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        if not done.returncode:
            return
        time.sleep(0.1)
    raise ClusterError(f"{' '.join(command)}: {done.stderr.strip()}")


def _store_refuses(options: Callable[[Path], str], undo: str) -> Callable[[ThreeMachines], str]:
    def happen(made: ThreeMachines) -> str:
        _remount(made, options)
        try:
            return f"{_stale(made)}: {str(made.forecast().get('reason'))[:150]}"
        finally:
            _remount(made, lambda _: undo)

    return happen


def _as_it_is(path: Path) -> str:
    return f"size={shutil.disk_usage(path).used}"


def clock_off(made: ThreeMachines) -> str:
    """The node is started again on a machine whose clock is ahead, and again with the right one."""
    if importlib.util.find_spec("time_machine") is None:
        raise ClusterError("There is no time-machine here.", hint="make install-dev")
    start_file = made.folder / "ahead" / "sitecustomize.py"  # Python reads it at its start
    start_file.parent.mkdir(exist_ok=True)
    start_file.write_text(AHEAD)
    _restart(made, {"PYTHONPATH": f"{start_file.parent}{os.pathsep}{ROOT}"})
    try:
        until(lambda: "mt5" in made.nodes().values(), 90, "the node with the wrong clock has joined")
        until(lambda: _problem(made), 60, "the wrong clock is named")
        return f"named: {_problem(made)[:150]}; {_stale(made)}"
    finally:
        _restart(made, {})


def _restart(made: ThreeMachines, variables: dict[str, str]) -> None:
    """Wherever the node is: one that has not joined, or has left, is started as well."""
    made.units[MT5].end()
    until(lambda: (nodes := made.nodes()) and "mt5" not in nodes.values(), 60, "the head takes the mt5 node for dead")
    made.start(MT5, **variables)


def _problem(made: ThreeMachines) -> str:
    source: dict[str, Any] = (made.get("/api/v1/status") or {}).get("source") or {}
    return str((source.get("source") or {}).get("problems", {}).get("clock") or "")


SERVES_ON = "no failed GET; stale is said, then nothing is lost"
FAULTS = (
    Fault("worker_killed", "kill -9 of the worker's node while it trains", worker_killed, "no failed GET; its units run again"),
    Fault("worker_cut", "the worker's link cut until it is taken for dead", worker_cut, "no failed GET", heal_s=90),
    Fault("proxy_killed", "kill -9 of HAProxy on the head, one of two", proxy_killed, "no failed GET"),
    Fault("mt5_killed", "kill -9 of the mt5 node", mt5_killed, SERVES_ON, heal_s=90),
    Fault("mt5_cut", "the mt5 node's link cut until forecasts are stale", mt5_cut, SERVES_ON, heal_s=90),
    Fault("store_full", "the bar store's file system is full", _store_refuses(_as_it_is, f"size={STORE_BYTES}"), SERVES_ON),
    Fault("store_read_only", "the bar store's file system is read-only", _store_refuses(lambda _: "ro", "rw"), SERVES_ON),
    Fault("clock_off", f"the mt5 node's clock {CLOCK_OFF // 60} min ahead", clock_off, "no bar from the future; the clock is named", heal_s=120),
    Fault("head_killed", "kill -9 of the head's control store (GCS)", head_killed, "no failed GET, back within 2 min, nothing lost", heal_s=120),
    Fault("redis_killed", "kill -9 of the Redis that holds the head's state", redis_killed, "GETs fail for 10 s at most, back within 2 min, nothing lost", 10, 120),
)  # fmt: skip
