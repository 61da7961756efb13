"""`lstmc node`: what to run on other machines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.console import Json, example, new_app, note, show

node_app = new_app()


Print = Annotated[bool, typer.Option("--print", help="Print the commands; nothing else is done. This is the default.")]
Host = Annotated[str, typer.Option(help="The head's address as the other machine sees it.")]
WindowsHost = Annotated[
    str | None, typer.Option(help="The head's address as the Windows host sees it. Default: this machine's own.")
]
Address = Annotated[
    str | None, typer.Option(help="The Windows host's own address. Default: found there, by its route to the head.")
]


def _plan(kind: str, host: str, as_json: bool, address: str | None = None, *, serve: bool = False) -> None:
    from cluster.nodes import node_plan
    from configs.settings import load_settings, make_settings
    from market.errors import NotRunning

    try:
        here: Any = load_settings()
    except NotRunning:
        here = make_settings()
    lines = node_plan(kind, here, host, address, serve=serve)
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


@node_app.command(epilog=example("lstmc node worker --start --host 10.8.0.1 --address 10.8.0.3"))
def worker(
    print_: Print = True,
    host: Host = "HEAD",
    address: Annotated[str | None, typer.Option(help="This node's own address, as the head reaches it.")] = None,
    start: Annotated[bool, typer.Option("--start", help="Be that node, until Ctrl-C; Ray is started again.")] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="HTTP replicas may be there, too: it has the head's home, at the same path.")
    ] = False,
    as_json: Json = False,
) -> None:
    """A further Linux node that trains: the commands for it or, on it, the node itself."""
    if not start:
        return _plan("worker", host, as_json, address, serve=serve)
    from cluster.worker_node import keep
    from configs.settings import make_settings
    from market.errors import ConfigError

    if host == "HEAD" or not address:
        raise ConfigError("--start needs --host and --address.", hint="As --host 10.8.0.1 --address 10.8.0.3.")
    here = make_settings()
    keep(f"{host}:{here.head_port}", address, here.home_path, serve=serve)


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
