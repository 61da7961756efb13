"""The machines of `lstmc bench scale`: a head, the node of the terminal, and workers that are each held to a share of CPU.

What is known of them here: where replicas and units of training run, and what a worker's loss does to clients.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from benchmarks.cpu_share import cpu_group
from benchmarks.load import cpu_seconds
from benchmarks.namespaces import network
from benchmarks.node_faults import kill, named
from benchmarks.private_installation import answers, until
from benchmarks.three_machines import HEAD, MT5, WORKER, ThreeMachines, await_forecasts, load, prepare
from cluster import health, jobs
from cluster.nodes import gcs_address
from configs.settings import ROOT
from market.errors import ClusterError

REPLICA = "ray::ServeReplica:lstmc:Api"
UNIT = "fit_unit"
START_SECONDS = 300.0  # the machine plays all of them
BEFORE_SECONDS, AFTER_SECONDS, BACK_SECONDS = 5.0, 20.0, 120.0
OFF_THE_HEAD = {"LSTMC_HTTP_NODES": "serve", "LSTMC_REQUESTS_PER_MINUTE": "1000000"}


def names(workers: int) -> list[str]:
    return [f"{WORKER}{n}" for n in range(1, workers + 1)]


@contextmanager
def machines(workers: int, symbols: Sequence[str]) -> Iterator[tuple[ThreeMachines, Callable[[float], None]]]:
    """Forecasts are served, from a replica for each worker, when they are yielded, with what holds each worker to so many cores.
    An hour takes an hour there, so that nothing but what is measured is computed. Nothing of it is left afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lstmc-scale-")))
        groups = {name: stack.enter_context(cpu_group(f"lstmc-{os.getpid()}-{name}")) for name in names(workers)}
        wire = stack.enter_context(network([HEAD, MT5, *names(workers)]))
        made = ThreeMachines(
            folder,
            wire,
            redis=False,
            market=["--symbols", ",".join(symbols)],
            worker_flags=["--serve"],
            head_settings=OFF_THE_HEAD | {"LSTMC_HTTP_REPLICAS": str(workers)},
            held_to={name: group.words for name, group in groups.items()},
        )
        prepare(made, stack)
        made.start(HEAD)
        until(lambda: "head started" in made.units[HEAD].said, 120, "the head has started")
        for name in names(workers):
            made.start(name)
        until(lambda: list(made.nodes().values()).count("serve") == workers, START_SECONDS, "all workers are there")
        made.start(MT5)  # it is waited for by the head, whose replicas are then spread over all
        await_forecasts(made, START_SECONDS)
        until(lambda: sum(replicas(made).values()) == workers, START_SECONDS, "a replica for each worker")

        def hold_to(cores: float) -> None:
            for group in groups.values():
                group.hold_to(cores)

        yield made, hold_to


def replicas(made: ThreeMachines) -> dict[str, int]:
    """machine -> how many of the HTTP side are on it, where there is any."""
    counted = {name: len(named(made, name, REPLICA)) for name in made.wire.addresses}
    return {name: count for name, count in counted.items() if count}


@contextmanager
def head_computes_nothing(made: ThreeMachines) -> Iterator[None]:
    """What it has room for is claimed; the job's own process, which is no unit, stays there."""
    cpus = max(2, os.cpu_count() or 2) - 0.5
    words = ["-m", "benchmarks.claimed_cpus", "--address", gcs_address(made.settings), "--cpus", str(cpus)]
    command = made.command(HEAD, sys.executable, *words)
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": made.settings.secret("ray_token").get_secret_value()}
    process = subprocess.Popen(command, cwd=ROOT, env=made.environment(HEAD) | token, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        if b"claimed" not in process.stdout.readline():
            raise ClusterError("The head's CPUs could not be claimed.")
        yield
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def train(made: ThreeMachines, preset: str, symbols: Sequence[str], seconds: float = 1200.0) -> dict[str, Any]:
    """One training run by the product's own command, where its units ran, and what of a core the control store (GCS) took
    meanwhile. ClusterError when it does not succeed."""
    submission, store = f"scale-{time.time_ns()}", named(made, HEAD, "gcs_server")
    with head_computes_nothing(made):
        made.lstmc("train", "--preset", preset, "--symbols", ",".join(symbols), "--submission-id", submission)
        job: dict[str, Any] = {}
        before = cpu_seconds(store)

        def ended() -> bool:
            time.sleep(2)  # each look costs the control store something, which is measured
            listed = made.threads[HEAD].submit(jobs.list_jobs, made.settings).result()
            job.update(next((one for one in listed if one["id"] == submission), {}))
            return job.get("status") in jobs.TERMINAL

        took = until(ended, seconds, f"the training {submission} ends")
    if job["status"] != "SUCCEEDED":
        raise ClusterError(f"The training {submission} ended as {job['status']}: {job['message']}")
    gcs_cores = (cpu_seconds(store) - before) / took
    return {"job_s": round(job["ended"] - job["started"], 1), "gcs_cores": round(gcs_cores, 3)} | _units(made)


def _units(made: ThreeMachines) -> dict[str, Any]:
    asked = urlencode({"limit": 1000, "detail": 1, "filter_keys": "name", "filter_predicates": "=", "filter_values": UNIT})  # fmt: skip
    body = made.threads[HEAD].submit(health.dashboard_get, made.settings, f"/api/v0/tasks?{asked}").result()
    rows = [row for row in body["data"]["result"]["result"] if row["state"] == "FINISHED"]
    found = made.threads[HEAD].submit(health.nodes, made.settings).result()
    return units({node["id"]: node["address"] for node in found}, made.wire.addresses, rows)


def units(node_addresses: dict[str, str], addresses: dict[str, str], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of Ray's finished tasks: how many, from the first's start to the last's end, on which machines, and the longest."""
    machine_at = {address: name for name, address in addresses.items()}
    where, busy_s = Counter[str](), Counter[str]()
    for row in rows:
        machine = machine_at[node_addresses[row["node_id"]]]
        where[machine] += 1
        busy_s[machine] += round((row["end_time_ms"] - row["start_time_ms"]) / 1000)
    seconds = (max(row["end_time_ms"] for row in rows) - min(row["start_time_ms"] for row in rows)) / 1000
    return {
        "units": len(rows),
        "units_s": round(seconds, 1),
        "units_per_minute": round(60 * len(rows) / seconds, 2),
        "where": dict(sorted(where.items())),
        "busy_s": dict(sorted(busy_s.items())),
        "longest_s": round(max(row["end_time_ms"] - row["start_time_ms"] for row in rows) / 1000, 1),
    }


@dataclass(frozen=True)
class Loss:
    """A worker's under load. `failed`: kind -> how many GETs; `out_s`: from the kill to the last failure's end. `back_s`: until
    there are as many replicas as before."""

    killed: str
    requests: int
    failed: dict[str, int]
    out_s: float
    slowest_s: float
    back_s: float
    replicas: dict[str, int]


def lose_worker(made: ThreeMachines, rate: float) -> Loss:
    """Kill all of a worker's processes while clients ask `rate` times a second. Its supervisor starts its node again."""
    before, lost = sum(replicas(made).values()), names(1)[0]
    with load(made, rate):
        until(lambda: made.load_file.read_text().count("\n") > rate * BEFORE_SECONDS, 60, "clients ask")
        began = time.time()
        killed = f"{lost}: {kill(made.processes(lost))}"
        back_s = until(lambda: sum(replicas(made).values()) == before, BACK_SECONDS, "as many replicas as before")
        time.sleep(AFTER_SECONDS)
    told = answers(made.load_file, began - BEFORE_SECONDS, time.time())
    return loss(told, began, killed, back_s, replicas(made))


def loss(told: Sequence[dict[str, Any]], began: float, killed: str, back_s: float, there: dict[str, int]) -> Loss:
    bad = [line for line in told if line["kind"] != "ok"]
    return Loss(
        killed=killed,
        requests=len(told),
        failed=dict(Counter(": ".join(filter(None, (line["kind"], line.get("problem")))) for line in bad)),
        out_s=round(max((line["at"] + line["seconds"] - began for line in bad), default=0.0), 1),
        slowest_s=round(max((line["seconds"] for line in told if line["kind"] == "ok"), default=0.0), 2),
        back_s=round(back_s, 1),
        replicas=there,
    )
