"""nginx's configuration in front of the HTTP API, rendered from a template. Starts nothing, knows neither Ray nor models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from string import Template

from market.errors import InputError

TEMPLATE = Path(__file__).parent / "deploy" / "nginx" / "nginx.conf.template"
CONFIG = "nginx.conf"
RETRY_AFTER_SECONDS = 2
# Status -> code, title, detail, hint. The shape is that of serve_app.problems.
PROBLEMS = {
    400: ("bad-request", "The request cannot be read", "Its address or a header is not one that is taken here.", "/openapi.json describes every request."),
    404: ("not-found", "Not found", "There is nothing at this address.", "/openapi.json lists all addresses."),
    405: ("method-not-allowed", "Method not allowed", "Everything here is read.", "Allowed here: GET, HEAD, OPTIONS."),
    411: ("length-required", "A body of unknown length", "The request brings a body and does not say how long it is.", "Send no body: everything is read with GET."),
    413: ("body-too-large", "The body is too large", "A request may bring at most 1024 bytes.", "Send no body: everything is read with GET."),
    414: ("address-too-long", "The address is too long", "At most 2048 bytes are read.", "/openapi.json describes every parameter."),
    421: ("misdirected", "Another host", "This server does not answer for the host that was asked.", "Use the name in its certificate."),
    429: ("too-many-requests", "Too many requests", "Too many requests came from this address.", "Wait as Retry-After says, or use /api/v1/stream."),
    503: ("unavailable", "Not available right now", "No server behind this one answers.", "Ask again as Retry-After says; servers that died are started again by themselves."),
}  # fmt: skip


class _Template(Template):
    delimiter = "%%"  # nginx has its own use for $ and @


@dataclass(frozen=True)
class Edge:
    """folder: configuration, logs and pid of this nginx. upstreams: HOST:PORT of each node's proxy. behind: addresses or
    networks of load balancers in front, whose X-Forwarded-For is believed. rate: requests a second of one address."""

    folder: Path
    names: Sequence[str]
    upstreams: Sequence[str]
    certificate: Path
    key: Path
    port: int = 443
    http_port: int = 80
    rate: int = 20
    connections: int = 100
    behind: Sequence[str] = ()


def render(edge: Edge) -> str:
    """The whole nginx.conf. InputError for what nginx would refuse or misread."""
    for word in (*edge.names, *edge.upstreams, str(edge.folder), str(edge.certificate), str(edge.key)):
        if not word or any(character in word for character in " ;{}\"'$\n"):
            raise InputError(f"{word!r} cannot stand in nginx's configuration.", hint="Use plain names and paths.")
    if not edge.names or not edge.upstreams:
        raise InputError(
            "A host name and an upstream are needed.", hint="As --name fx.example --upstream 10.8.0.1:8000."
        )
    behind = [f"    set_real_ip_from {_network(one)};" for one in edge.behind]
    if behind:
        behind += ["    real_ip_header X-Forwarded-For;", "    real_ip_recursive on;"]
    return _Template(TEMPLATE.read_text()).substitute(
        folder=edge.folder,
        behind="\n".join(behind),
        rate=edge.rate,
        burst=2 * edge.rate,
        connections=edge.connections,
        hosts="\n".join(f"        {name.lower()} 0;" for name in edge.names),
        upstreams="\n".join(_upstreams(edge.upstreams)),
        certificate=edge.certificate,
        key=edge.key,
        port=edge.port,
        http_port=edge.http_port,
        name=edge.names[0],
        port_suffix="" if edge.port == 443 else f":{edge.port}",
        problems="\n\n".join(_problem(status) for status in PROBLEMS),
    )


def write(edge: Edge) -> Path:
    """Put the configuration into its folder, the old one replaced whole; its path."""
    for folder in (edge.folder, edge.folder / "temp"):
        folder.mkdir(parents=True, exist_ok=True)
    path = edge.folder / CONFIG
    text = render(edge)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)
    return path


def _network(text: str) -> str:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise InputError(f"{text!r} is no IP address or network.", hint="As 10.8.0.0/24.") from None
    if network.prefixlen == 0:
        raise InputError(f"{text!r} trusts everybody.", hint="Name the load balancer's own address.")
    return str(network)


def _upstreams(addresses: Sequence[str]) -> list[str]:
    if len(addresses) == 1:  # never out: there is nobody else to ask
        return [f"        server {addresses[0]} max_fails=0;"] * 2
    return [f"        server {address} max_fails=2 fail_timeout=2s;" for address in addresses]


def _problem(status: int) -> str:
    code, title, detail, hint = PROBLEMS[status]
    body = {"type": f"urn:lstmc:problem:{code}", "title": title, "status": status, "detail": detail, "hint": hint}
    text = json.dumps(body)[:-1] + ', "instance": "$safe_path", "request_id": "$identity"}'
    extra = {
        405: ['add_header Allow "GET, HEAD, OPTIONS" always;'],
        429: [f"add_header Retry-After {RETRY_AFTER_SECONDS} always;"],
        503: [f"add_header Retry-After {RETRY_AFTER_SECONDS} always;"],
    }
    lines = [
        f"location = /.problem/{status} {{",
        "    internal;",
        "    default_type application/problem+json;",
        '    add_header Strict-Transport-Security "max-age=31536000" always;',
        "    add_header Content-Security-Policy \"default-src 'none'; frame-ancestors 'none'\" always;",
        "    add_header X-Content-Type-Options nosniff always;",
        "    add_header X-Frame-Options DENY always;",
        "    add_header Referrer-Policy no-referrer always;",
        "    add_header Cache-Control no-store always;",
        "    add_header X-Request-Id $identity always;",
        *(f"    {line}" for line in extra.get(status, [])),
        f"    return {status} '{text}';",
        "}",
    ]
    return "\n".join(" " * 8 + line for line in lines)
