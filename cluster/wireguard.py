"""The Linux half of a WireGuard network: a key pair and a configuration for wg-quick. Starts nothing, prints no private key.

The Windows half is mt5_actor_windows/install/wireguard.ps1. A private key is 32 random bytes, its public key their X25519.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from configs.secret_files import changing, write_owner_only
from market.errors import ConfigError, InputError

TUNNEL = "lstmc"  # the interface, and so the file: wg-quick names one after the other
KEY_FILE = "wireguard_private_key"
PORT = 51_820
KEEPALIVE_SECONDS = 25  # below the half minute after which home routers forget a UDP peer


@dataclass(frozen=True)
class Peer:
    """Another machine: its public key, its address in the tunnel, and HOST:PORT where it can be called, if it can."""

    public_key: str
    address: IPv4Address | IPv6Address
    endpoint: str | None = None

    @classmethod
    def parse(cls, text: str) -> Peer:
        """`KEY,ADDRESS[,HOST:PORT]`; InputError says which part is wrong."""
        parts = text.split(",")
        if len(parts) not in (2, 3):
            raise InputError(
                f"The peer {text!r} has {len(parts)} parts.", hint="Write KEY,10.8.0.2 or KEY,10.8.0.2,host:51820."
            )
        endpoint = parts[2] if len(parts) == 3 else None
        if endpoint is not None and not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):\d{1,5}", endpoint):
            raise InputError(f"{endpoint!r} is no HOST:PORT.", hint="Write it like head.example.org:51820.")
        return cls(_public_key(parts[0]), _address(parts[1]), endpoint)


def write_tunnel(home: Path, address: str, peers: Sequence[Peer], port: int = PORT) -> tuple[Path, str]:
    """`<home>/wireguard/lstmc.conf`, for its owner only -> its path and this machine's public key. The key pair is kept."""
    own = _address(address)
    taken = [str(peer.address) for peer in peers]
    if str(own) in taken or len(set(taken)) < len(taken):
        raise InputError(
            "Two machines have one address in the tunnel.", hint="Give each its own, as 10.8.0.1 and 10.8.0.2."
        )
    private, public = key_pair(home)
    folder = home / "wireguard"
    lines = ["[Interface]", f"PrivateKey = {private}", f"Address = {_network(own)}", f"ListenPort = {port}"]
    for peer in peers:
        lines += ["", "[Peer]", f"PublicKey = {peer.public_key}", f"AllowedIPs = {_network(peer.address)}"]
        if peer.endpoint:
            lines += [f"Endpoint = {peer.endpoint}", f"PersistentKeepalive = {KEEPALIVE_SECONDS}"]
    with changing(folder):
        write_owner_only(folder / f"{TUNNEL}.conf", ("\n".join(lines) + "\n").encode())
    return folder / f"{TUNNEL}.conf", public


def key_pair(home: Path) -> tuple[str, str]:
    """(private, public) in base64, made when there is none. ConfigError for a file that holds no key."""
    path = home / "secrets" / KEY_FILE
    with changing(path.parent):
        if not path.exists():
            write_owner_only(path, base64.b64encode(X25519PrivateKey.generate().private_bytes_raw()) + b"\n")
    private = path.read_text().strip()
    try:
        key = X25519PrivateKey.from_private_bytes(base64.b64decode(private, validate=True))
    except ValueError:
        raise ConfigError(f"{path} holds no WireGuard key.", hint="Remove it; the next call makes another.") from None
    return private, base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def _public_key(text: str) -> str:
    try:
        fits = len(base64.b64decode(text, validate=True)) == 32
    except binascii.Error:
        fits = False
    if not fits:
        raise InputError(f"{text!r} is no WireGuard key.", hint="A key has 44 characters, the last is =.")
    return text


def _address(text: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(text)
    except ValueError:
        raise InputError(f"{text!r} is no IP address.", hint="Write it like 10.8.0.1.") from None


def _network(address: IPv4Address | IPv6Address) -> str:
    return f"{address}/{address.max_prefixlen}"
