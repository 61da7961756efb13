"""`lstmc schedule`, `lstmc node`: small commands around the running cluster."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.console import Json, example, new_app, note, rows, settings, show

if TYPE_CHECKING:
    from actors.retrain_scheduler import DueRun
    from configs.settings import Settings

schedule_app, node_app = new_app(), new_app()
LOOP_SECONDS = 30.0


@schedule_app.command("show", epilog=example("lstmc schedule show"))
def show_schedule(as_json: Json = False) -> None:
    """The timetable and the next slot of each run."""
    from actors.retrain_scheduler import load_timetable, next_slot
    from market.forecasts import iso_utc

    now = datetime.now(UTC)
    table = [
        {
            "name": e.name,
            "cron": e.cron,
            "zone": e.zone,
            "preset": e.preset,
            "budget": e.budget,
            "next": iso_utc(next_slot(e, now)),
        }
        for e in load_timetable()
    ]
    show(
        table, as_json, lambda _: rows(list(table[0]), [list(line.values()) for line in table]) if table else "no runs"
    )


@schedule_app.command("run", epilog=example("lstmc schedule run --loop"))
def run_schedule(
    name: Annotated[str | None, typer.Option(help="Submit this run now, whatever its slot.")] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Stay, and submit each run at its slot.")] = False,
    as_json: Json = False,
) -> None:
    """Submit what is due (or one run by name) as Ray jobs."""
    here = settings()
    submitted = [_submit_named(here, name)] if name else _one_pass(here)
    show({"submitted": submitted}, as_json, lambda _: "\n".join(submitted) or "nothing is due")
    while loop:
        time.sleep(LOOP_SECONDS)
        for submission in _one_pass(here):
            note(f"submitted {submission}")


def _submit_named(here: Settings, name: str) -> str:
    from actors.retrain_scheduler import load_timetable
    from cluster.console import one_of
    from cluster.jobs import submit_training

    table = {entry.name: entry for entry in load_timetable()}
    entry = table[one_of(name, list(table), "run")]
    return submit_training(here, entry.preset, budget=entry.budget)


def _one_pass(here: Settings) -> list[str]:
    from actors.retrain_scheduler import load_timetable, run_once
    from cluster.jobs import submit_training
    from market.forecasts import iso_utc, parse_utc

    path = here.home_path / "schedule.json"
    last = {name: parse_utc(text) for name, text in json.loads(path.read_text()).items()} if path.exists() else {}
    submitted: list[str] = []

    def submit(due: DueRun) -> None:
        submitted.append(
            submit_training(here, due.entry.preset, budget=due.entry.budget, submission_id=due.submission_id)
        )

    after = run_once(datetime.now(UTC), last, load_timetable(), submit)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({name: iso_utc(slot) for name, slot in after.items()}))
    temporary.replace(path)
    return submitted


Print = Annotated[bool, typer.Option("--print", help="Print the commands; nothing else is done. This is the default.")]
Host = Annotated[str, typer.Option(help="The head's address as the other machine sees it.")]
WindowsHost = Annotated[
    str | None, typer.Option(help="The head's address as the Windows host sees it. Default: this machine's own.")
]
Address = Annotated[
    str | None, typer.Option(help="The Windows host's own address. Default: found there, by its route to the head.")
]


def _plan(kind: str, host: str, as_json: bool) -> None:
    from cluster.nodes import node_plan
    from configs.settings import load_settings, make_settings
    from market.errors import NotRunning

    try:
        here: Any = load_settings()
    except NotRunning:
        here = make_settings()
    lines = node_plan(kind, here, host)
    show({"node": kind, "commands": lines}, as_json, lambda _: "\n".join(lines))


def _windows_plan(host: str | None, address: str | None, as_json: bool) -> None:
    from cluster.nodes import node_plan, outward_address, windows_plan
    from configs.settings import LOOPBACK, load_settings, make_settings
    from market.errors import NotRunning

    try:
        here = load_settings()
    except NotRunning as error:
        note(f"{error} Until then the lines below have placeholders.")
        where = f"{host or 'HEAD'}:{make_settings().head_port}"
        lines = windows_plan(where, address, ("RAY_TOKEN", "DATA_API_KEY_DIGEST"))
    else:
        reachable = None if here.head_host in LOOPBACK else here.head_host
        head = host or reachable or outward_address()
        if host is None and reachable is None:
            note(f"The head is taken to be at {head}; if the Windows host reaches it elsewhere, give that with --host.")
        note("The lines hold the cluster's token: paste them on the Windows host, as administrator, and keep no copy.")
        lines = node_plan("windows", here, head, address)
    show({"node": "windows", "commands": lines}, as_json, lambda _: "\n".join(lines))


@node_app.command(epilog=example("lstmc node head --print"))
def head(print_: Print = True, host: Host = "HEAD", as_json: Json = False) -> None:
    """Commands for a head on a machine of its own."""
    _plan("head", host, as_json)


@node_app.command(epilog=example("lstmc node worker --print --host 10.8.0.1"))
def worker(print_: Print = True, host: Host = "HEAD", as_json: Json = False) -> None:
    """Commands for a further Linux node that trains."""
    _plan("worker", host, as_json)


@node_app.command(epilog=example("lstmc node windows --print --host 10.8.0.1 --address 10.8.0.2"))
def windows(print_: Print = True, host: WindowsHost = None, address: Address = None, as_json: Json = False) -> None:
    """PowerShell lines for the Windows node with the terminal, with this installation's token: paste them there."""
    _windows_plan(host, address, as_json)


@node_app.command(epilog=example("lstmc node wireguard --address 10.8.0.1 --peer KEY,10.8.0.2"))
def wireguard(
    address: Annotated[str, typer.Option(help="This machine's address inside the tunnel.")],
    peer: Annotated[
        list[str] | None, typer.Option(help="KEY,ADDRESS[,HOST:PORT] of another machine; repeat it.")
    ] = None,
    listen: Annotated[int, typer.Option(min=1, max=65535, help="UDP port.")] = 51820,
    as_json: Json = False,
) -> None:
    """Keys and wg-quick configuration of this Linux machine, for its owner only; prints the public key."""
    from cluster.wireguard import Peer, write_tunnel

    home = Path(os.environ.get("LSTMC_HOME") or ".lstmc").absolute()
    config, public_key = write_tunnel(home, address, [Peer.parse(text) for text in peer or []], listen)
    words = f"public key  {public_key}\nwritten     {config}\nstart       sudo wg-quick up {config}"
    show({"public_key": public_key, "config": str(config)}, as_json, lambda _: words)
