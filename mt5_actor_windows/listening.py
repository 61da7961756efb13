"""Where the data API listens: which addresses need TLS, the certificate, the socket, the thread. Knows no routes."""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from market.errors import ClusterError, ConfigError, PortInUse

CERTIFICATE, CERTIFICATE_KEY = "data_api_cert.pem", "data_api_cert_key.pem"
MAX_HEAD = 16 * 1024  # bytes of a request's line and headers
# A tunnel or a local network: RFC 1918, RFC 6598, RFC 4193. Python's `is_private` is wider and counts 0.0.0.0.
LOOPBACK = tuple(ipaddress.ip_network(net) for net in ("127.0.0.0/8", "::1/128"))
PRIVATE = tuple(
    ipaddress.ip_network(net) for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)


@dataclass(frozen=True)
class Tls:
    """PEM files of a certificate and its private key."""

    certificate: Path
    key: Path


def find_tls(home: Path) -> Tls | None:
    """The node's certificate in `<home>/secrets`; None: plain HTTP. ConfigError when only one of both files is there."""
    found = Tls(home / "secrets" / CERTIFICATE, home / "secrets" / CERTIFICATE_KEY)
    there = [path for path in (found.certificate, found.key) if path.exists()]
    if len(there) == 1:
        missing = found.key if there == [found.certificate] else found.certificate
        raise ConfigError(f"{missing} is missing beside {there[0].name}.", hint="Copy both, or remove both.")
    return found if there else None


def check_address(host: str, tls: Tls | None) -> str:
    """The address to listen on. ConfigError for a public one without TLS: keys and prices would be readable on the way."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise ConfigError(f"data_api_host={host!r} is no IP address.", hint="For example 10.8.0.2.") from None
    open_to_all = not any(address in net for net in LOOPBACK + PRIVATE if net.version == address.version)
    if open_to_all and tls is None:
        raise ConfigError(
            f"The MT5 data API does not listen on {host} without TLS.",
            hint="Put a certificate into its secrets (`lstmc key certificate`), or listen on a tunnel's private address.",
        )
    return str(address)


def url_of(host: str, port: int, tls: Tls | None) -> str:
    """`("::1", 8001, None)` -> `http://[::1]:8001`. What listens everywhere is reached on this machine, too."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}.get(host, host)
    return f"{'https' if tls else 'http'}://{f'[{shown}]' if ':' in shown else shown}:{port}"


@dataclass(frozen=True)
class DataApi:
    """A running data API: where it listens, and how to end it."""

    host: str
    port: int
    tls: Tls | None
    server: uvicorn.Server
    thread: threading.Thread

    @property
    def url(self) -> str:
        return url_of(self.host, self.port, self.tls)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(timeout=10)


def serve_in_thread(app: ASGIApp, host: str, port: int, tls: Tls | None = None) -> DataApi:
    """Serve on a daemon thread; returns when it listens. Port 0 takes a free one.

    Raises PortInUse when it is taken; ConfigError for an address that is not ours or must not be used, or a bad certificate.
    """
    address = check_address(host, tls)
    server = uvicorn.Server(_config(app, tls))
    listener = _listener(address, port)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="mt5-data-api", daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.005)
    if not server.started:
        raise ClusterError("The MT5 data API did not start.", hint="Its log says why.")
    return DataApi(address, listener.getsockname()[1], tls, server, thread)


def _config(app: ASGIApp, tls: Tls | None) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        http="h11",  # on every host, since it bounds what a stranger can send before the key is looked at
        h11_max_incomplete_event_size=MAX_HEAD,
        proxy_headers=False,  # else a client could name the address that its wrong keys are counted for
        server_header=False,
        timeout_graceful_shutdown=5,
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        if tls is None:
            raise
        raise ConfigError(
            f"{tls.certificate} and {tls.key.name} cannot be used for TLS: {error}.",
            hint="Make a new pair: `lstmc key certificate`.",
        ) from None
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return config


def _listener(address: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        if not hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # on Windows reuse would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
    except OSError as error:
        listener.close()
        where = f"The MT5 data API cannot listen on {address}:{port}: {error.strerror}."
        if error.errno == errno.EADDRNOTAVAIL:
            raise ConfigError(where, hint="data_api_host must be this host's own address; is the tunnel up?") from None
        raise PortInUse(where, hint="Set another data_api_port.") from None
    return listener
