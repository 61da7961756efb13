"""Reliability: one fault after the other on a live installation behind nginx under constant load; what clients saw of it.

    lstmc bench reliability [--seconds 120] [--only replica,proxy] [--out docs/reliability.md]

Prints one JSON object; with --out also the table as a page. Exit code 1 when something was not as expected.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.deploy_faults import checkout
from benchmarks.machine import machine
from benchmarks.nodes import BEGIN
from benchmarks.private_installation import Installation, answers, chosen, installation
from benchmarks.reliability_faults import FAULTS, Fault
from cluster.attach import heed_stop_signals
from market.errors import LstmcError

BEFORE_SECONDS = 3.0  # of load before each fault
CLEAN = "clean 503"


@dataclass(frozen=True)
class Seen:
    """failed: kind -> how many. out_s: from the fault to the last failure's end. worst_s: the slowest good answer.
    load: the machine's load average of the last minute. watched_s: from the fault to the last look."""

    fault: str
    title: str
    expected: str
    requests: int
    failed: dict[str, int]
    out_s: float
    worst_s: float
    proof: str
    ok: bool
    load: float
    watched_s: float


def watch(made: Installation, fault: Fault, seconds: float) -> Seen:
    """Let the fault happen under load, and count for `seconds` or until all is well again."""
    began = time.time()
    time.sleep(BEFORE_SECONDS)
    happened = time.time()
    try:
        proof, came_true = fault.happen(made), True
    except LstmcError as error:
        proof, came_true = f"NOT AS EXPECTED: {error}", False
    time.sleep(max(0.0, happened + max(seconds, fault.needs_s) - time.time()))
    ended = time.time()
    time.sleep(1.0)  # answers that are on their way
    told = answers(made.load_file, began, ended)
    return judge(fault, told, happened, proof, came_true, os.getloadavg()[0], ended - happened)


def judge(
    fault: Fault,
    seen: Sequence[dict[str, Any]],
    happened: float,
    proof: str,
    came_true: bool,
    load: float,
    watched_s: float,
) -> Seen:
    bad = [line for line in seen if line["kind"] != "ok"]
    failed = dict(Counter(str(line["kind"]) for line in bad))
    out_s = max((float(line["at"]) + float(line["seconds"]) - happened for line in bad), default=0.0)
    worst = max((float(line["seconds"]) for line in seen if line["kind"] == "ok"), default=0.0)
    if fault.out_s:
        as_expected = set(failed) <= {CLEAN} and out_s <= fault.out_s
    else:
        as_expected = not failed
    ok = came_true and as_expected and len(seen) > len(bad)
    return Seen(
        fault.name, fault.title, fault.expected, len(seen), failed, round(out_s, 1), round(worst, 2), proof, ok, round(load, 1), round(watched_s)
    )  # fmt: skip


def page(seen: Sequence[Seen], command: str, rate: float, when: datetime, old: str = "") -> str:
    """docs/reliability.md. `old`: the last one, whose rows stay where `seen` has no newer, and whose other table stays."""
    before, begin, other = old.partition(BEGIN)
    rows = {
        fault.title: line for line in before.splitlines() for fault in FAULTS if line.startswith(f"| {fault.title} |")
    }
    rows |= {one.title: _row(one) for one in seen}
    lines = [
        "# Reliability",
        "",
        f"What clients saw while parts were killed or changed: `{command}`, {when:%Y-%m-%d}, {machine()}. With `--only` it",
        "measures some of the faults anew and leaves the other rows.",
        "",
        "A private installation in the production profile on a simulated market with a bar every six seconds: two Api replicas, one",
        "Predictor, the ledger in PostgreSQL, Debian's nginx in front with the configuration of `lstmc deploy nginx`. A second process",
        f"asks over TLS, up to {rate:g} times a second as far as it gets the time, and repeats nothing. Each row says how long",
        "the fault was watched. A failed request is any answer but 200. A clean 503 is a problem (RFC 9457) with `Retry-After`. Out is the time from",
        "the fault to the end of the last failed request; the slowest is of the good answers. Load: the machine's load average; clients, cluster",
        "and nginx share its cores.",
        "",
        "| fault | expected | watched | requests | failed | out | slowest | proof that it happened | load | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(rows[fault.title] for fault in FAULTS if fault.title in rows),
        "",
        "The unfit models are data, signed and intact (`benchmarks/doctored_models.py`). `lstmc models promote` refuses all three; here they are made",
        "champion past that trial, so that serving has to find out by itself.",
    ]
    return "\n".join(lines) + (f"\n\n{begin}{other}" if begin else "\n")


def _row(one: Seen) -> str:
    failed = ", ".join(f"{n} x {kind}" for kind, n in one.failed.items()) or "0"
    return (
        f"| {one.title} | {one.expected} | {one.watched_s:g} s | {one.requests} | {failed} | {one.out_s:g} s | {one.worst_s:g} s | "
        f"{one.proof.replace('|', '/')} | {one.load:g} | {'as expected' if one.ok else '**not as expected**'} |"
    )


def run(faults: Sequence[Fault], seconds: float, rate: float) -> Iterator[Seen]:
    with checkout() as code, installation(rate, code) as made:
        for fault in faults:
            seen = watch(made, fault, seconds)
            print(f"{'ok ' if seen.ok else 'BAD'} {seen.fault}: {seen.failed or 0} of {seen.requests}, out {seen.out_s} s; {seen.proof}", file=sys.stderr, flush=True)  # fmt: skip
            yield seen


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lstmc bench reliability", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="each fault is watched for so long")
    parser.add_argument("--rate", type=float, default=30.0, help="requests a second")
    parser.add_argument("--only", help=f"some of {', '.join(fault.name for fault in FAULTS)}")
    parser.add_argument("--out", type=Path, help="write the table here, as docs/reliability.md")
    given = parser.parse_args(argv)
    words = [f"--seconds {given.seconds:g}"] + ([f"--only {given.only}"] if given.only else [])
    command = f"python -m benchmarks.reliability {' '.join(words)}"
    heed_stop_signals()  # or nothing would be taken down
    seen = []
    for one in run(chosen(FAULTS, given.only), given.seconds, given.rate):
        seen.append(one)
        if given.out:
            old = given.out.read_text() if given.out.exists() else ""
            given.out.write_text(page([one], command, given.rate, datetime.now(UTC), old))
    print(json.dumps({"faults": [asdict(one) for one in seen], "command": command, "machine": machine()}))
    return 0 if all(one.ok for one in seen) else 1


if __name__ == "__main__":
    raise SystemExit(main())
