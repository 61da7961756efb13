"""A self-signed certificate for the MT5 data API: one host, one client that is told to trust exactly this one. Knows no HTTP."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from market.errors import InputError
from market.forecasts import iso_utc
from mt5_actor_windows.listening import CERTIFICATE, CERTIFICATE_KEY

LONGEST_DAYS = 3650
CLOCK_SLACK = timedelta(hours=1)  # the host's clock may be behind ours
_NAME = re.compile(
    r"^(?=.{1,253}$)([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$"
)


def write_certificate(
    addresses: Sequence[str], out: Path, days: int = 730, now: datetime | None = None
) -> dict[str, Any]:
    """Both PEM files in `out`, the key for its owner only; returns paths, addresses, `until` and the SHA-256 fingerprint.

    addresses: IP addresses or DNS names, all of which it is valid for. InputError for one that is neither, for days
    beyond 1 to 3650, and for a folder that holds a certificate already: one in use is never overwritten.
    """
    names = [_alternative(address) for address in addresses]
    if not names:
        raise InputError("A certificate needs an address.", hint="For example --address 10.8.0.2.")
    if not 1 <= days <= LONGEST_DAYS:
        raise InputError(f"{days} days cannot be.", hint=f"Give 1 to {LONGEST_DAYS}.")
    paths = out.expanduser().absolute() / CERTIFICATE, out.expanduser().absolute() / CERTIFICATE_KEY
    for path in paths:
        if path.exists():
            raise InputError(f"{path} is there already.", hint="Choose another folder, or remove both files.")
    key = ec.generate_private_key(ec.SECP256R1())
    made = _sign(key, addresses[0], names, (now or datetime.now(UTC)), days)
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(paths[1], secret, 0o600)
    _write(paths[0], made.public_bytes(serialization.Encoding.PEM), 0o644)
    return {
        "certificate": str(paths[0]),
        "key": str(paths[1]),
        "addresses": list(addresses),
        "until": iso_utc(made.not_valid_after_utc),
        "sha256": made.fingerprint(hashes.SHA256()).hex(),
    }


def _alternative(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        if not _NAME.match(address) or address.replace(".", "").isdigit():
            raise InputError(f"{address!r} is neither an IP address nor a host name.", hint="As 10.8.0.2.") from None
        return x509.DNSName(address)


def _sign(
    key: ec.EllipticCurvePrivateKey, title: str, names: list[x509.GeneralName], now: datetime, days: int
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title[:64])])
    public = key.public_key()
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)  # digital signatures only
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)  # it vouches for nobody else
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    return builder.sign(key, hashes.SHA256())


def _write(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
