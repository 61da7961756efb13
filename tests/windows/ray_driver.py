"""A Linux driver of a cluster whose `mt5` node runs on Windows Python: answers lines of standard input with JSON.

`start` the product's mt5 actor, `health`, `bars`, `nodes`. In a process of its own, since pure tests must not start Ray.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import ray

from actors.handles import Mt5Actor, RayBarSource
from market.market_clock import week_open


def main(address: str, settings_json: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray reports lost nodes on standard output
    ray.init(address=address, namespace="lstmc", log_to_driver=False, configure_logging=False)
    source = RayBarSource(lambda: ray.get_actor("mt5"), seconds=90.0)
    for line in sys.stdin:
        try:
            answer = _answer(line.strip(), source, settings_json)
        except Exception as error:
            answer = {"error": type(error).__name__, "says": str(error)}
        print(json.dumps(answer, default=str), file=answers, flush=True)


def _answer(asked: str, source: RayBarSource, settings_json: str) -> dict[str, Any]:
    if asked == "start":
        options = {"name": "mt5", "lifetime": "detached", "max_restarts": -1, "num_cpus": 0, "max_concurrency": 4}
        ray.remote(Mt5Actor).options(resources={"mt5": 0.01}, **options).remote(settings_json)
        return {}
    if asked == "nodes":
        return {"alive": [node["Labels"].get("role") for node in ray.nodes() if node["Alive"]]}
    if asked == "health":
        return source.health()
    since, until = last_week()
    bars = source.closed_bars("EURUSD", "H1", since, until)
    return {"closes": bars["close"].to_pylist(), "opens": bars["open_time"].cast("int64").to_pylist()}


def last_week() -> tuple[datetime, datetime]:
    """A whole trading week that is over."""
    end = week_open(datetime.now(UTC)) - timedelta(days=1)
    return end - timedelta(days=7), end


if __name__ == "__main__":
    main(*sys.argv[1:])
