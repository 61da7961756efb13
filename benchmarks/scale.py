"""What more nodes give: one training run and one forecast over HTTP on 1, 2 and 4 workers, and the loss of one of two.

    lstmc bench scale [--nodes 1,2,4] [--share 0.3] [--symbols EURUSD,GBPUSD,USDJPY] [--seconds 3]

Head, terminal and workers are network namespaces of this machine; each worker is held to `--share` of a core, so that the
cores left are the head's, HAProxy's and the client's. Efficiency is rate(N) / (N rate(1)). Prints one JSON object; a table
goes to stderr. Wants root and a writable CPU control group. Exit code 1 when work was not on as many workers as there are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from benchmarks.load import cpu_seconds, install_wrk, load
from benchmarks.machine import machine
from benchmarks.namespaces import SWITCH
from benchmarks.node_faults import named
from benchmarks.private_installation import until
from benchmarks.scale_machines import REPLICA, lose_worker, machines, replicas, train
from benchmarks.serve import PATH, middle
from benchmarks.three_machines import HEAD, ThreeMachines
from cluster.attach import heed_stop_signals
from market.errors import InputError
from market.symbols import symbols as known_symbols

CONNECTIONS = 32
LOSS_CORES = 1.0  # what starts anew on a share of a core would starve what serves
LOAD_PER_SECOND = 30.0  # while a worker is lost
ASKED_FOR = {"EURUSD", "GBPUSD", "USDJPY"}  # by benchmarks.http_load
PARTS = ("serve", "train", "loss")


def serve(made: ThreeMachines, rounds: int, seconds: float) -> dict[str, Any]:
    """Requests a second through the head's HAProxy from the switch; CPU of HAProxy and of the replicas for one, in us."""
    bearer = {"Authorization": f"Bearer {(made.folder / 'token').read_text()}"}
    until(lambda: len(named(made, HEAD, "haproxy")) == 1, 90, "HAProxy's former lives are over")
    proxy = named(made, HEAD, "haproxy")
    workers = [process for name in replicas(made) for process in named(made, name, REPLICA)]
    ask = partial(load, made.url + PATH, seconds, CONNECTIONS, workers, bearer, there=made.wire.command(SWITCH))
    ask()  # warm up
    seen, proxy_us = [], []
    for _ in range(rounds):
        before = cpu_seconds(proxy)
        seen.append(ask())
        proxy_us.append((cpu_seconds(proxy) - before) / (seen[-1].rate * seconds) * 1e6)
        print(seen[-1], file=sys.stderr, flush=True)
    figures = {name: middle(seen, name) for name in ("rate", "p50_ms", "p99_ms")}
    return figures | {
        "replica_us": round(middle(seen, "cpu_us")),
        "proxy_us": round(sorted(proxy_us)[rounds // 2]),
        "replicas": replicas(made),
    }


def efficiency(rates: Mapping[int, float]) -> dict[int, float | None]:
    """nodes -> rate(N) / (N rate(1)); None where one node was not measured."""
    return {n: round(rate / (n * rates[1]), 2) if 1 in rates else None for n, rate in rates.items()}


def with_efficiency(seen: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, float | None]]:
    """What of it was measured -> nodes -> efficiency; `job` is the whole training job, with what no worker does."""
    served, trained = ([row for row in seen if kind in row] for kind in ("serve", "train"))
    rates = {
        "serve": {row["nodes"]: row["serve"]["rate"] for row in served},
        "train": {row["nodes"]: row["train"]["units_per_minute"] for row in trained},
        "job": {row["nodes"]: 1 / row["train"]["job_s"] for row in trained},
    }
    return {kind: efficiency(of) for kind, of in rates.items() if of}


def table(seen: Sequence[Mapping[str, Any]], efficient: Mapping[str, Mapping[int, float | None]]) -> str:
    lines = [
        "| workers | requests/s | efficiency | p50 / p99 ms | replicas on | units/min | efficiency | whole job | efficiency | units on |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in seen:
        n, cells = row["nodes"], ["-"] * 9
        share = {kind: "-" if (found := of.get(n)) is None else f"{found:.2f}" for kind, of in efficient.items()}
        if served := row.get("serve"):
            latency = f"{served['p50_ms']:g} / {served['p99_ms']:g}"
            cells[:4] = [f"{served['rate']:.0f}", share["serve"], latency, _words(served["replicas"])]
        if trained := row.get("train"):
            job = f"{trained['job_s']:g} s"
            cells[4:] = [
                f"{trained['units_per_minute']:g}",
                share["train"],
                job,
                share["job"],
                _words(trained["where"]),
            ]
        lines.append(f"| {n} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _words(where: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in where.items())


def is_spread(row: Mapping[str, Any]) -> bool:
    """Whether each worker had a replica, and units of training, of what was measured."""
    where = [row[kind][key] for kind, key in (("serve", "replicas"), ("train", "where")) if kind in row]
    return all(len(one) == row["nodes"] for one in where)


def parse_parts(text: str) -> set[str]:
    """InputError unless it is some of PARTS, separated by commas."""
    parts = set(text.split(","))
    if strange := sorted(parts - set(PARTS)):
        raise InputError(f"There is no part {strange[0]!r}.", hint=f"Known: {', '.join(PARTS)}.")
    return parts


def parse_nodes(text: str) -> list[int]:
    """InputError unless it is numbers of workers from 1 to 8, separated by commas."""
    numbers = [int(part) for part in text.split(",") if part.strip().isdigit()]
    if not numbers or len(numbers) != len(text.split(",")) or not all(1 <= n <= 8 for n in numbers):
        raise InputError(f"{text!r} are no numbers of workers.", hint="Say --nodes 1,2,4; 8 at most.")
    return sorted(set(numbers))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="lstmc bench scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", default="1,2,4", help="numbers of workers")
    parser.add_argument("--share", type=float, default=0.3, help="of a core, for each worker")
    parser.add_argument("--symbols", default="EURUSD,GBPUSD,USDJPY")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--only", default=",".join(PARTS), help="some of it; the loss is of one of two workers")
    parser.add_argument("--rounds", type=int, default=3, help="of wrk")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each")
    given = parser.parse_args(argv)
    symbols = [symbol.code for symbol in known_symbols(given.symbols.split(","))]
    numbers, parts = parse_nodes(given.nodes), parse_parts(given.only)
    if missing := ASKED_FOR - set(symbols):
        raise InputError(f"The clients also ask for {', '.join(sorted(missing))}.", hint="Add them to --symbols.")
    install_wrk()
    heed_stop_signals()  # or nothing would be taken down
    seen: list[dict[str, Any]] = []
    lost = None
    for n in numbers:
        with machines(n, symbols) as (made, hold_to):
            hold_to(given.share)  # not before: nobody waits for machines to start
            row: dict[str, Any] = {"nodes": n}
            if "serve" in parts:
                row["serve"] = serve(made, given.rounds, given.seconds)
            if "train" in parts:
                row["train"] = train(made, given.preset, symbols)
            seen.append(row)
            print(row, file=sys.stderr, flush=True)
            if n == 2 and "loss" in parts:
                hold_to(LOSS_CORES)
                lost = lose_worker(made, LOAD_PER_SECOND)
                print(lost, file=sys.stderr, flush=True)
    efficient = with_efficiency(seen)
    print(table(seen, efficient), file=sys.stderr)
    command = f"lstmc bench scale --nodes {','.join(map(str, numbers))} --only {','.join(sorted(parts))} --share {given.share:g} --symbols {','.join(symbols)} --preset {given.preset}"
    figures = {"nodes": seen, "efficiency": efficient, "loss": asdict(lost) if lost else None}
    print(json.dumps(figures | {"command": command, "machine": machine()}))
    return 0 if all(map(is_spread, seen)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
