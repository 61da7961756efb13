"""`lstmc deploy`: what stands around an installation in production."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.console import Json, comma_list, example, new_app, note, settings, show

app = new_app()


@app.callback()
def _deploy() -> None:
    """What stands around an installation in production."""


@app.command(
    epilog=example(
        "lstmc deploy nginx --name fx.example --certificate /etc/ssl/fx.pem --key /etc/ssl/private/fx.pem --out /etc/lstmc-nginx"
    )
)
def nginx(
    name: Annotated[
        str, typer.Option(help="Host names that clients use, comma-separated; the first one is redirected to.")
    ],
    out: Annotated[Path, typer.Option(help="Where configuration, logs and pid go.")],
    certificate: Annotated[Path | None, typer.Option(help="PEM with its chain. Default: OUT/tls, self-signed.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    upstreams: Annotated[str | None, typer.Option(help="HOST:PORT of each node's proxy. Default: this one's.")] = None,
    behind: Annotated[
        str | None, typer.Option(help="Load balancers in front, whose X-Forwarded-For is believed.")
    ] = None,
    port: Annotated[int, typer.Option(help="HTTPS.")] = 443,
    http_port: Annotated[int, typer.Option(help="Plain HTTP, redirected.")] = 80,
    rate: Annotated[int, typer.Option(help="Requests a second of one address; twice as many at once.")] = 20,
    as_json: Json = False,
) -> None:
    """Write nginx's configuration: TLS, limits, rules, retries. The same command again changes it; then reload."""
    from cluster.certificate import write_certificate
    from cluster.edge import Edge, write
    from market.errors import InputError
    from mt5_actor_windows.listening import CERTIFICATE, CERTIFICATE_KEY

    here, folder, names = settings(), out.expanduser().absolute(), comma_list(name) or []
    if (certificate is None) != (key is None):
        raise InputError("--certificate and --key belong together.", hint="Give both, or neither.")
    if certificate is None or key is None:
        certificate, key = folder / "tls" / CERTIFICATE, folder / "tls" / CERTIFICATE_KEY
        if not certificate.exists():
            write_certificate(names, folder / "tls")
            note("made a certificate that signs itself: browsers will not trust it")
    path = write(
        Edge(
            folder, names, comma_list(upstreams) or [f"127.0.0.1:{here.port}"], certificate.absolute(), key.absolute(),
            port=port, http_port=http_port, rate=rate, behind=comma_list(behind) or [],
        )
    )  # fmt: skip
    if not here.trusted_proxies:
        note(
            "the API believes no proxy yet: start it with LSTMC_TRUSTED_PROXIES=127.0.0.1, or all clients share one limit"
        )
    commands = [f"nginx -t -c {path}", f"nginx -c {path}", f"nginx -s reload -c {path}"]
    show(
        {"config": str(path), "test": commands[0], "start": commands[1], "reload": commands[2]},
        as_json,
        lambda _: "\n".join(commands),
    )
