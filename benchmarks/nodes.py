"""Three machines in network namespaces under a light load: what clients and the bar store saw of each fault between them.

    lstmc bench nodes [--seconds 20] [--only worker_cut,mt5_cut] [--out docs/reliability.md]

Prints one JSON object; with --out also the table, between its markers in that page. Needs root. Exit code 1 when something
was not as expected.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.bar_audit import Audit, audit, closes
from benchmarks.machine import machine
from benchmarks.node_faults import FAULTS, Fault
from benchmarks.placed_section import placed
from benchmarks.private_installation import answers, chosen, until
from benchmarks.three_machines import SPEED, ThreeMachines, three_machines
from cluster.attach import heed_stop_signals
from market.errors import LstmcError
from market.market_clock import MarketClock, add_open_time, grace

BEFORE_SECONDS = 3.0  # of load before each fault
SLACK_SECONDS = 1.0  # between a bar's being late and every answer's saying so
HOUR = timedelta(hours=1)
BEGIN, END = "<!-- nodes: begin -->", "<!-- nodes: end -->"


@dataclass(frozen=True)
class Seen:
    """`failed`: kind -> how many GETs. `out_s`: from the fault to the last failure's end. `heal_s`: from the fault's end until
    all nodes are there and a newer forecast is served; None: not within the time allowed. `wrong`: 200s that are."""

    fault: str
    title: str
    expected: str
    requests: int
    failed: dict[str, int]
    out_s: float
    heal_s: float | None
    wrong: list[str]
    audit: Audit
    proof: str
    ok: bool
    load: float


def watch(made: ThreeMachines, fault: Fault, seconds: float) -> Seen:
    """Let the fault happen under load, wait until all is well again, and look for `seconds` from its begin at least."""
    time.sleep(BEFORE_SECONDS)
    began = time.time()
    proof, healed = "", None
    try:
        proof = fault.happen(made)
        at_end = made.settings.market_clock.now().isoformat()
        healed = until(lambda: made.is_well(at_end), fault.heal_s, "all is well again")
    except LstmcError as error:
        proof = f"{proof} NOT AS EXPECTED: {error}".strip()
    time.sleep(max(0.0, began + seconds - time.time()))
    ended = time.time()
    time.sleep(SLACK_SECONDS)  # answers that are on their way
    told = answers(made.load_file, began - BEFORE_SECONDS, ended)
    settings = made.settings
    real = closes(settings, datetime.now(UTC) - timedelta(days=30))
    wrong = [why for line in told if (why := fault_of(line, settings.market_clock, real))]
    return judge(fault, told, began, healed, wrong, audit(settings), proof, os.getloadavg()[0])


def fault_of(line: Mapping[str, Any], clock: MarketClock, closes: Mapping[tuple[str, datetime], float]) -> str:
    """What is wrong with an answer of benchmarks.http_load, by the clock and the market; "" when nothing is."""
    forecast = line.get("forecast")
    if forecast is None:
        return ""
    symbol, as_of = forecast["symbol"], datetime.fromisoformat(forecast["as_of"])
    sent, came = clock.now(line["at"] - SLACK_SECONDS), clock.now(line["at"] + line["seconds"])
    if as_of > came:
        return f"{symbol} as of {as_of:%d %H:%M} was told at {came:%d %H:%M}"
    if sent > add_open_time(as_of, HOUR) + grace(clock.speed) and not forecast["stale"]:
        return f"{symbol} as of {as_of:%d %H:%M} was not called stale at {sent:%d %H:%M}"
    if closes.get((symbol, as_of)) != forecast["last_close"]:
        return f"{symbol} closed at {closes.get((symbol, as_of))}, not {forecast['last_close']}, at {as_of:%d %H:%M}"
    return ""


def judge(
    fault: Fault,
    told: Sequence[Mapping[str, Any]],
    began: float,
    healed: float | None,
    wrong: list[str],
    audit: Audit,
    proof: str,
    load: float,
) -> Seen:
    bad = [line for line in told if line["kind"] != "ok"]
    out_s = max((float(line["at"]) + float(line["seconds"]) - began for line in bad), default=0.0)
    forecasts = sum("forecast" in line for line in told)
    ok = healed is not None and out_s <= fault.out_s and not wrong and audit.clean and forecasts > 0
    heal_s = None if healed is None else round(healed, 1)
    failed = dict(Counter(str(line["kind"]) for line in bad))
    return Seen(
        fault.name, fault.title, fault.expected, len(told), failed, round(out_s, 1), heal_s, wrong, audit, proof, ok, round(load, 1)
    )  # fmt: skip


def section(seen: Sequence[Seen], command: str, rate: float, when: datetime, old: str = "") -> str:
    """The part of docs/reliability.md between the markers. `old`: the last one, whose rows stay where `seen` has no newer."""
    rows = {fault.title: line for line in old.splitlines() for fault in FAULTS if line.startswith(f"| {fault.title} |")}
    rows |= {one.title: _row(one) for one in seen}
    return "\n".join([
        BEGIN,
        "## Three machines",
        "",
        f"`{command}`, {when:%Y-%m-%d}, {machine()}. With `--only` it measures some of the faults anew and leaves the other rows.",
        "",
        "Head, worker and the node that plays the market's terminal are three Linux network namespaces on one switch, with raylets that",
        "`lstmc up`, `lstmc node worker --start --serve` and `python -m mt5_actor_windows.node` start, each under a supervisor; the head's state is in Redis.",
        "Head and worker have an HTTP replica and an HAProxy each, and nginx stands before both at the switch, where a",
        f"client asks it {rate:g} times a second and repeats nothing. Out is the time from the fault to the end of the last failed GET. Healed is",
        "the time from the fault's end (a kill has none) until all nodes are there, the head has deployed all, and a newer forecast is served that is not stale. Lost, doubled: stored bars",
        "against the simulated market's own, all of them. Wrong: forecasts whose price is not the market's, that come from the future, or are late without",
        "saying stale. Load: the machine's load average.",
        "",
        "| fault | expected | GETs | failed | out | healed | lost | doubled | wrong | seen | load | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(rows[fault.title] for fault in FAULTS if fault.title in rows),
        "",
        END,
    ])  # fmt: skip


def _row(one: Seen) -> str:
    failed = ", ".join(f"{n} x {kind}" for kind, n in one.failed.items()) or "0"
    healed = "not" if one.heal_s is None else f"{one.heal_s:g} s"
    return (
        f"| {one.title} | {one.expected} | {one.requests} | {failed} | {one.out_s:g} s | {healed} | {one.audit.lost} | {one.audit.doubled} | "
        f"{len(one.wrong)} | {one.proof.replace('|', '/')} | {one.load:g} | {'as expected' if one.ok else '**not as expected**'} |"
    )


def run(faults: Sequence[Fault], seconds: float, rate: float) -> Iterator[Seen]:
    with three_machines(rate, redis=True) as made:
        for fault in faults:
            one = watch(made, fault, seconds)
            print(f"{'ok ' if one.ok else 'BAD'} {one.fault}: {one.failed or 0} of {one.requests}, healed {one.heal_s} s, {one.audit}, wrong {one.wrong[:3]}; {one.proof}", file=sys.stderr, flush=True)  # fmt: skip
            yield one


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lstmc bench nodes", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="each fault is watched for so long at least")
    parser.add_argument("--rate", type=float, default=5.0, help="GETs a second")
    parser.add_argument("--only", help=f"some of {', '.join(fault.name for fault in FAULTS)}")
    parser.add_argument("--out", type=Path, help="put the table into this page, as docs/reliability.md")
    given = parser.parse_args(argv)
    command = f"python -m benchmarks.nodes --seconds {given.seconds:g}"
    heed_stop_signals()  # or nothing would be taken down
    seen = []
    for one in run(chosen(FAULTS, given.only), given.seconds, given.rate):
        seen.append(one)
        if given.out:
            page = given.out.read_text() if given.out.exists() else ""
            given.out.write_text(placed(page, section([one], command, given.rate, datetime.now(UTC), page)))
    print(
        json.dumps({"faults": [asdict(one) for one in seen], "command": command, "speed": SPEED, "machine": machine()})
    )
    return 0 if all(one.ok for one in seen) else 1


if __name__ == "__main__":
    raise SystemExit(main())
