"""The Ed25519 keys that sign tokens: one PEM per key in `<home>/secrets/jwt_keys`, named by its `kid`.

The newest signs. Older ones verify until they are retired. Does not know tokens or HTTP.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from configs.secret_files import changing, stamp, write_owner_only
from market.errors import ConfigError, InputError
from market.forecasts import iso_utc

ALGORITHM = "EdDSA"  # RFC 8037; here always over Ed25519
ROTATE = "lstmc token keys rotate"
_KID = re.compile(r"^\d{8}T\d{6}Z-[0-9a-f]{8}$")
_KID_TIME = "%Y%m%dT%H%M%SZ"
_log = structlog.get_logger("lstmc.api")


@dataclass(frozen=True)
class SigningKey:
    """`kid`: when it was made (UTC, by the second) and the start of its public key's digest; kids sort by age."""

    kid: str
    private: Ed25519PrivateKey

    @property
    def public(self) -> Ed25519PublicKey:
        return self.private.public_key()

    @property
    def made_at(self) -> datetime:
        return _made_at(self.kid)

    def jwk(self) -> dict[str, str]:
        """The public half as RFC 7517 and RFC 8037 write it."""
        x = urlsafe_b64encode(_raw(self.public)).rstrip(b"=").decode()
        return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.kid, "alg": ALGORITHM, "use": "sig"}


def key_folder(home: Path) -> Path:
    return home / "secrets" / "jwt_keys"


def read_keys(home: Path) -> list[SigningKey]:
    """All keys, oldest first. One that cannot be read is left out and named in the log: the others still serve."""
    found = []
    for path in _files(home):
        try:
            private = load_pem_private_key(path.read_bytes(), password=None)
            if not isinstance(private, Ed25519PrivateKey):
                raise ValueError("it is no Ed25519 key")
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            _log.error("a signing key cannot be read", key=path.stem, reason=str(error))
            continue
        found.append(SigningKey(path.stem, private))
    return found


def active_key(home: Path) -> SigningKey | None:
    """The newest key: the one that signs."""
    keys = read_keys(home)
    return keys[-1] if keys else None


def rotate(home: Path, now: datetime | None = None) -> SigningKey:
    """Make a key that signs from now on. The others still verify."""
    folder = key_folder(home)
    with changing(folder):
        moment = (now or datetime.now(UTC)).replace(microsecond=0)
        newest = max((_made_at(path.stem) for path in _files(home)), default=None)
        if newest is not None and moment <= newest:  # twice in a second, or a clock that was set back
            moment = newest + timedelta(seconds=1)
        private = Ed25519PrivateKey.generate()
        digest = sha256(_raw(private.public_key())).hexdigest()[:8]
        key = SigningKey(f"{moment.strftime(_KID_TIME)}-{digest}", private)
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_owner_only(folder / f"{key.kid}.pem", pem)
    return key


def retire(home: Path, kid: str) -> None:
    """Delete a key, and with it every token it signed. InputError for the one that signs, and for an unknown one."""
    with changing(key_folder(home)):
        paths = {path.stem: path for path in _files(home)}  # looked up, never joined: a kid is no path
        if kid not in paths:
            raise InputError(f"No signing key {kid!r}.", hint=f"There is {', '.join(paths) or 'none'}.")
        if kid == max(paths):
            raise InputError(f"{kid} is the key that signs.", hint=f"Make its successor first: {ROTATE}.")
        paths[kid].unlink()


def ensure_signing_key(home: Path) -> None:
    """Make the first key of an installation; nothing when there is one."""
    if not _files(home):
        rotate(home)


def key_stamps(home: Path) -> tuple[Any, ...]:
    """Differs whenever a key came, went or was replaced."""
    return tuple((path.stem, stamp(path)) for path in _files(home))


def listed(home: Path) -> list[dict[str, Any]]:
    """Newest first: kid, made_at, active; JSON-ready."""
    keys = list(reversed(read_keys(home)))
    return [{"kid": key.kid, "made_at": iso_utc(key.made_at), "active": key is keys[0]} for key in keys]


def no_key() -> ConfigError:
    return ConfigError("There is no key to sign tokens with.", hint=f"Make one: {ROTATE}.")


def _files(home: Path) -> list[Path]:
    return sorted(path for path in key_folder(home).glob("*.pem") if _is_kid(path.stem))


def _is_kid(name: str) -> bool:
    try:
        return bool(_KID.match(name) and _made_at(name))
    except ValueError:  # a 31st of February
        return False


def _made_at(kid: str) -> datetime:
    return datetime.strptime(kid.split("-")[0], _KID_TIME).replace(tzinfo=UTC)


def _raw(public: Ed25519PublicKey) -> bytes:
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)
