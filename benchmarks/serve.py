"""Serve: a forecast over HTTP with JWT and rate limit, against bare uvicorn + FastAPI and against a constant on the same
Serve; all with the same bytes, one replica each, asked in turns by wrk from a second process.

The cluster is a private one with 7 symbols on the simulated market; its limit is raised, since wrk asks more often than a
trader may.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil

from benchmarks.constant import BODY, Constant
from benchmarks.live_cluster import live_cluster
from benchmarks.load import Seen, install_wrk, load
from benchmarks.machine import machine
from cluster import jobs
from cluster.health import api_url, use_token
from cluster.nodes import free_ports, gcs_address
from cluster.run_record import members, read_run
from configs.settings import Settings
from serve_app.auth import issue_token

APP_NAME = "lstmc"
CALM_CONNECTIONS = 4  # the training shall find CPU that serving does not want
WARM_SECONDS = 20.0  # until a submitted training is at full work
PATH = "/api/v1/predictions/EURUSD"


@contextmanager
def bare_uvicorn(body: Path) -> Iterator[tuple[str, list[psutil.Process]]]:
    """FastAPI and uvicorn as they come, without an access log; yields the URL of its constant, and its process."""
    port = free_ports(1)[0]
    words = ["--factory", "benchmarks.constant:bare_app", "--port", str(port), "--no-access-log", "--log-level=warning"]
    server = subprocess.Popen([sys.executable, "-m", "uvicorn", *words], env=os.environ | {BODY: str(body)})
    try:
        yield f"http://127.0.0.1:{port}/constant", [psutil.Process(server.pid)]
    finally:
        server.terminate()
        server.wait()


def serving(settings: Settings, app: str) -> list[psutil.Process]:
    """What a request of `app` passes through: the proxies and the replicas."""
    run = read_run(settings.home_path)
    assert run is not None
    titles = ("haproxy", "ray::ProxyActor", f"ray::ServeReplica:{app}:")
    found = []
    for process in members(run):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if any(title in " ".join(process.cmdline()[:1]) for title in titles):
                found.append(process)
    return found


@contextmanager
def served_constant(settings: Settings, body: bytes) -> Iterator[str]:
    """Beside the product on the same Serve; yields its URL."""
    use_token(settings)
    import ray
    from ray import serve

    ray.init(address=gcs_address(settings), namespace="lstmc", log_to_driver=False, logging_level="ERROR")
    try:
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        app = serve.deployment(
            serve.ingress(Constant(body))(),
            ray_actor_options={"num_cpus": 0.1, "label_selector": {"role": "!mt5"}},
            max_ongoing_requests=2000,
            logging_config={"enable_access_log": False},
        )
        serve.run(app.bind(), name="constant", route_prefix="/constant")
        yield api_url(settings, "/constant")
    finally:
        ray.shutdown()  # before the cluster ends: a driver without one is aborted


def await_answer(url: str, headers: dict[str, str] | None = None, seconds: float = 60.0) -> httpx.Response:
    """The first 200; TimeoutError with the last answer when there is none."""
    deadline, said = time.monotonic() + seconds, "nothing"
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(url, headers=headers, trust_env=False)
            if answer.status_code == 200:
                return answer
            said = f"{answer.status_code} {answer.text[:100]}"
        except httpx.TransportError as error:
            said = str(error)
        time.sleep(0.2)
    raise TimeoutError(f"{url}: {said}")


def in_turns(ways: dict[str, Callable[[], Seen]], rounds: int) -> dict[str, list[Seen]]:
    """A B C, A B C, ...: what the machine does besides falls on all alike."""
    seen: dict[str, list[Seen]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, ask in ways.items():
            seen[name].append(ask())
            print(name, seen[name][-1], file=sys.stderr)
    return seen


def beside_training(settings: Settings, ask: Callable[[], Seen], rounds: int) -> dict[str, Any]:
    """p99 while a retrain takes what CPU it gets, by the p99 before it. RuntimeError when the retrain ended too soon."""
    idle = [ask() for _ in range(rounds)]
    submission = jobs.submit_training(settings, "quick")
    time.sleep(WARM_SECONDS)
    busy = [ask() for _ in range(rounds)]
    [state] = [job["status"] for job in jobs.list_jobs(settings) if job["id"] == submission]
    if state != "RUNNING":
        raise RuntimeError(f"The training is {state}: no figure beside it.")
    before, during = middle(idle, "p99_ms"), middle(busy, "p99_ms")
    return {"p99_beside_training_ratio": round(during / before, 2), "p99_idle_ms": before, "p99_training_ms": during}


def ratio(seen: dict[str, list[Seen]], one: str, other: str, figure: str = "rate") -> float:
    """Median over the rounds of one's figure by the other's in the same round."""
    pairs = zip(seen[one], seen[other], strict=True)
    return round(median(getattr(a, figure) / getattr(b, figure) for a, b in pairs), 3)


def middle(seen: list[Seen], figure: str) -> float:
    return round(median(getattr(one, figure) for one in seen), 2)


def measure(settings: Settings, folder: Path, rounds: int, seconds: float, connections: int) -> dict[str, Any]:
    bearer = {"Authorization": f"Bearer {issue_token(settings, 'bench')}"}
    url = api_url(settings, PATH)
    answer = await_answer(url, bearer)
    body = folder / "body.json"
    body.write_bytes(answer.content)
    with bare_uvicorn(body) as (bare_url, bare), served_constant(settings, answer.content) as constant_url:
        for one in (bare_url, constant_url):
            assert await_answer(one).content == answer.content
        held = bearer | {"If-None-Match": answer.headers["ETag"]}
        assert httpx.get(url, headers=held, trust_env=False).status_code == 304
        ours, constant = serving(settings, APP_NAME), serving(settings, "constant")
        ways = {
            "bare": lambda: load(bare_url, seconds, connections, bare),
            "constant": lambda: load(constant_url, seconds, connections, constant),
            "forecast": lambda: load(url, seconds, connections, ours, bearer),
            "not_modified": lambda: load(url, seconds, connections, ours, held),
        }
        in_turns(ways, 1)  # warm up
        seen = in_turns(ways, rounds)
        calm = partial(load, url, seconds, CALM_CONNECTIONS, ours, bearer)
        beside = beside_training(settings, calm, rounds)
    return beside | {
        "ratio_bare": ratio(seen, "forecast", "bare"),
        "ratio_serve": ratio(seen, "forecast", "constant"),
        "p99_ratio": ratio(seen, "forecast", "constant", "p99_ms"),
        "not_modified_ratio": ratio(seen, "not_modified", "forecast"),
        "cpu_ratio_bare": ratio(seen, "bare", "forecast", "cpu_us"),
        "cpu_ratio_serve": ratio(seen, "constant", "forecast", "cpu_us"),
        "cpu_us": {name: middle(turns, "cpu_us") for name, turns in seen.items()},
        "rates": {name: middle(turns, "rate") for name, turns in seen.items()},
        "p50_ms": {name: middle(turns, "p50_ms") for name, turns in seen.items()},
        "p99_ms": {name: middle(turns, "p99_ms") for name, turns in seen.items()},
        "body_bytes": len(answer.content),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lstmc bench serve", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--proxy", choices=("haproxy", "ray"), help="default: the installation's own")
    options = parser.parse_args(argv)
    install_wrk()
    given = {"LSTMC_SERVE_PROXY": options.proxy} if options.proxy else {}
    with tempfile.TemporaryDirectory(prefix="lstmc-bench-") as name:
        folder = Path(name)
        # One bar an hour, so that an ETag lasts as long as the run.
        with live_cluster(folder / "home", "--speed", "1", LSTMC_REQUESTS_PER_MINUTE="1000000", **given) as settings:
            figures = measure(settings, folder, options.rounds, options.seconds, options.connections)
            figures["proxy"] = settings.serve_proxy
    print(json.dumps(figures | {"command": "lstmc bench serve --json", "machine": machine()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
