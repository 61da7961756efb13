"""What a cluster's nodes say of themselves, asked by a process of its own: whatever Ray does, it can be left after a while.

`own`: the cluster that runs here: versions and clock of every living node, and what the market data's sources say.
`head HOST:PORT`: one that this machine may join: its versions, its nodes. Prints one JSON object, judges nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from configs.settings import ROOT, Settings, load_settings
from market.errors import ClusterError, LstmcError, WrongToken

ANSWER_SECONDS = 45.0  # of one node: a worker process may have to start there first
CALL_SECONDS = 10.0
LEFT_SECONDS = 200.0
HINT = "See `lstmc status` on the head. Is this the port of its Ray (`--head-port`)?"


def ask(words: Sequence[str], token: str, **environment: str) -> dict[str, Any]:
    """The answer to `words`, see the module. LstmcError when there is none; WrongToken when the token is refused."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    ours = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_gcs_server_request_timeout_seconds": f"{CALL_SECONDS:.0f}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    command = [sys.executable, "-m", "cluster.node_answers", *words]
    try:
        done = subprocess.run(
            command, env=clean | ours | environment, capture_output=True, text=True, timeout=LEFT_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"Ray did not answer within {LEFT_SECONDS:.0f} s.", hint=HINT) from None
    return answer_of(done.stdout, done.stderr)


def answer_of(stdout: str, stderr: str) -> dict[str, Any]:
    """What such a process printed; the LstmcError that it reports, or ClusterError with the last it said."""
    try:
        answer: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = ([line for line in stderr.splitlines() if line.strip()] or ["it said nothing"])[-1]
        raise ClusterError(f"Ray could not be asked: {last[-300:]}", hint=HINT) from None
    if "error" in answer:
        kind = WrongToken if answer.get("refused") else ClusterError
        raise kind(answer["error"], hint=answer["hint"])
    return answer


def clock_offset(
    ask: Callable[[], float], *, step: float = 0.0, times: int = 3, now: Callable[[], float] = time.time
) -> dict[str, float]:
    """How far the clock that `ask` reads is ahead of ours, and how exactly that is known, seconds: {"ahead", "within"}.

    Of the quickest of several questions: an answer is as old as half its round trip, give or take the other half. `step`:
    of a clock that only tells whole steps.
    """
    found = []
    for _ in range(times):
        sent, there, came = now(), ask(), now()
        found.append(((came - sent) / 2 + step / 2, there + step / 2 - (sent + came) / 2))
    within, ahead = min(found)
    return {"ahead": ahead, "within": within}


# -- In the process of its own


def of_own(settings: Settings) -> dict[str, Any]:
    import ray

    from actors.handles import NAMESPACE, bar_sources
    from cluster.nodes import gcs_address

    ray.init(
        address=gcs_address(settings),
        namespace=NAMESPACE,
        log_to_driver=False,
        logging_level="ERROR",
        configure_logging=False,
    )
    nodes = [node for node in ray.nodes() if node["Alive"]]
    sources = {name: _told(source.health) for name, source in bar_sources(settings)}
    return {"nodes": _of_nodes(nodes), "sources": sources}


def _of_nodes(nodes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each is called once to have a process there, all at the same time; then, one by one, for its clock."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from mt5_actor_windows import versions

    ray.cloudpickle.register_pickle_by_value(versions)  # a node that was started by hand may not have our code
    options: dict[str, Any] = {"num_cpus": 0, "max_retries": 0}
    look, clock = ray.remote(**options)(versions.versions), ray.remote(**options)(_now)
    there = [{"scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)} for node in nodes]
    looks = [look.options(**place).remote() for place in there]
    ready, _ = ray.wait(looks, num_returns=len(looks), timeout=ANSWER_SECONDS)
    answers = []
    for node, place, first in zip(nodes, there, looks, strict=True):
        said: dict[str, Any] = {"node": f"{node['Labels'].get('role', 'node')} {node['NodeManagerAddress']}"}
        try:
            if first not in ready:
                raise ray.exceptions.GetTimeoutError(f"no answer within {ANSWER_SECONDS:.0f} s")
            said["versions"] = ray.get(first)
            said |= clock_offset(partial(_call, clock.options(**place)))
        except ray.exceptions.RayError as error:
            said["error"] = (str(error).splitlines() or [type(error).__name__])[-1]
        answers.append(said)
    return answers


def _now() -> float:
    return time.time()


def _call(task: Any) -> float:
    import ray

    return float(ray.get(task.remote(), timeout=CALL_SECONDS))


def _told(health: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    try:
        return {name: value for name, value in health().items() if isinstance(value, str | int | float | bool)}
    except LstmcError as error:
        return {"error": error.message, "hint": error.hint}


def of_head(address: str) -> dict[str, Any]:
    from ray import _raylet
    from ray._common.usage.usage_lib import get_cluster_metadata

    gcs = _raylet.GcsClient(address=address)  # type: ignore[attr-defined]  # its stub leaves it out
    versions = get_cluster_metadata(gcs)
    alive = [info for info in gcs.get_all_node_info(timeout=CALL_SECONDS).values() if info.state == 0]
    return {
        "versions": {"ray": versions["ray_version"], "python": versions["python_version"]},
        "nodes": [
            {
                "node": f"{info.labels.get('role', 'node')} {info.node_manager_address}",
                "head": info.is_head_node,
                "address": info.node_manager_address,
                "ports": [info.node_manager_port, info.object_manager_port],
                "metrics_port": info.metrics_export_port,
            }
            for info in alive
        ],
    }


def main(words: Sequence[str]) -> None:
    from ray.exceptions import AuthenticationError

    try:
        answer = of_own(load_settings()) if words[0] == "own" else of_head(words[1])
    except AuthenticationError:
        hint = "Copy the head's <home>/secrets/ray_token to <home>/secrets/ray_token here."
        answer = {"refused": True, "error": "The head refuses our token.", "hint": hint}
    except LstmcError as error:
        answer = {"error": error.message, "hint": error.hint}
    except Exception as error:  # whatever Ray raises is the finding
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"  # told in several lines
        answer = {"error": why, "hint": HINT}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
