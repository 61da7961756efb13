"""`lstmc key`: keys and certificate of the MT5 data API, for an API that runs beside the head or elsewhere."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.console import Json, comma_list, example, new_app, show

app = new_app()
Name = Annotated[str, typer.Option(help="Who holds it.")]


@app.callback()
def _key() -> None:
    """Keys and certificate of the MT5 data API.

    They act on this home. On the terminal's host: python -m mt5_actor_windows.api_keys.
    """


def _home() -> Path:
    """As for every command, but no installation is needed: keys may be there before it is."""
    return Path(os.environ.get("LSTMC_HOME") or ".lstmc").expanduser().resolve()


@app.command(epilog=example("lstmc key issue --name desk-7 --json"))
def issue(name: Name = "client", as_json: Json = False) -> None:
    """Make a key, on stdout. It is shown once; only its digest is kept. At most two live at a time."""
    from mt5_actor_windows import api_keys

    key, entry = api_keys.issue(_home(), name)
    show({"key": key} | asdict(entry), as_json, lambda _: key)


@app.command(epilog=example("lstmc key accept DIGEST --name desk-7"))
def accept(digest: str, name: Name = "client", as_json: Json = False) -> None:
    """Let in a key that was made elsewhere, by the SHA-256 digest of it."""
    from mt5_actor_windows import api_keys

    entry = api_keys.accept(_home(), digest, name)
    show(asdict(entry), as_json, lambda _: f"{entry.id} {entry.name}: accepted")


@app.command(epilog=example("lstmc key revoke 1f0c7a2b"))
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID")], as_json: Json = False) -> None:
    """Shut out a key at once; a running API needs no restart."""
    from mt5_actor_windows import api_keys

    entry = api_keys.revoke(_home(), key_id)
    show(asdict(entry), as_json, lambda _: f"{entry.id} {entry.name}: revoked")


@app.command("list", epilog=example("lstmc key list"))
def list_(as_json: Json = False) -> None:
    """The keys that an API of this home lets in: id, when made, digest, name. The digest is what `accept` takes."""
    from mt5_actor_windows import api_keys

    show(api_keys.live_keys(_home()), as_json, api_keys.list_words)


@app.command(epilog=example("lstmc key certificate --address 10.8.0.2 --out certificate"))
def certificate(
    address: Annotated[str, typer.Option(help="IP addresses or names by which the API is reached, with commas.")],
    out: Annotated[Path, typer.Option(help="Folder for both files.")],
    days: Annotated[int, typer.Option(help="Days it is valid.")] = 730,
    as_json: Json = False,
) -> None:
    """A self-signed certificate for the MT5 data API and its private key."""
    from cluster.certificate import write_certificate

    show(write_certificate(comma_list(address) or [], out, days), as_json, _certificate_words)


def _certificate_words(made: dict[str, Any]) -> str:
    first = made["addresses"][0]
    host = f"[{first}]" if ":" in first else first
    return "\n".join(
        (
            f"{made['certificate']}",
            f"{made['key']}",
            f"Valid until {made['until']} for {', '.join(made['addresses'])}.",
            "On the API's host: put both into <home>/secrets and start the API again.",
            f"On the head: keep {Path(made['certificate']).name} only, and set",
            f"  LSTMC_DATA_API_CA={made['certificate']} LSTMC_DATA_API_URL=https://{host}:8001",
        )
    )
