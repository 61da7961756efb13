"""Who made a bundle: an Ed25519 signature over its manifest, and the public keys whose bundles this installation loads.

    <home>/secrets/model_keys/signing.pem       the private key, made when the first bundle is signed
    <home>/secrets/model_keys/trusted/<fingerprint>.pem   public keys, its own among them

Public-key signatures, since a node that only serves must not be able to make models. Knows bytes, no models.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from configs.secret_files import changing, write_owner_only
from market.errors import BundleRefused, ConfigError, InputError

PURPOSE = b"lstmc bundle manifest\n"  # signed in front, so that no other signature of the key passes for one
MAX_PEM_BYTES = 4096
RETRAIN = "It is not served. Train again: `lstmc train`."
_LINE = re.compile(rb"ed25519 ([0-9a-f]{16}) ([0-9a-f]{128})\n")


class BundleKeys:
    """The keys in `folder`; an absent one trusts nobody, and the first `sign` makes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._private = self.folder / "signing.pem"
        self._trusted = self.folder / "trusted"

    def sign(self, manifest: bytes) -> bytes:
        """One line: the algorithm, the key's fingerprint and the signature over `manifest` as it is, in hex."""
        key = self._signing_key()
        signature = key.sign(PURPOSE + manifest)
        return f"ed25519 {fingerprint(key.public_key())} {signature.hex()}\n".encode()

    def check(self, name: str, manifest: bytes, line: bytes) -> str:
        """The fingerprint of the trusted key that signed `manifest` of the bundle called `name`, or BundleRefused."""
        found = _LINE.fullmatch(line)
        if found is None:
            raise refused(name, "its signature is malformed", RETRAIN)
        signer, signature = found[1].decode(), bytes.fromhex(found[2].decode())
        key = self.trusted().get(signer)
        if key is None:
            raise refused(
                name,
                f"it is signed with the key {signer}, which this installation does not trust",
                f"If you know who made it: get {signer}.pem from that installation's secrets/model_keys/trusted by a "
                f"way you trust, then `lstmc models trust {signer}.pem`.",
            )
        try:
            key.verify(signature, PURPOSE + manifest)
        except InvalidSignature:
            raise refused(name, "its manifest.json or signature was changed after it was signed") from None
        return signer

    def trusted(self) -> dict[str, Ed25519PublicKey]:
        """Fingerprint -> key. A file that is not named after the key in it is left out."""
        found = {}
        for path in sorted(self._trusted.glob("*.pem")):
            try:
                key = _public_key(path)
            except InputError:
                continue
            if fingerprint(key) == path.stem:
                found[path.stem] = key
        return found

    def trust(self, file: Path) -> str:
        """Load bundles signed with the key whose public half is in the PEM `file`, from now on -> its fingerprint."""
        return self._keep(_public_key(Path(file)))

    def own(self) -> str | None:
        """The fingerprint of this installation's own key; None while it has signed nothing."""
        return fingerprint(self._signing_key().public_key()) if self._private.exists() else None

    def public_file(self, signer: str) -> Path:
        return self._trusted / f"{signer}.pem"

    def _signing_key(self) -> Ed25519PrivateKey:
        if not self._private.exists():
            with changing(self.folder):
                if not self._private.exists():
                    made = Ed25519PrivateKey.generate()
                    self._keep(made.public_key())
                    write_owner_only(
                        self._private, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
                    )
        try:
            key = load_pem_private_key(self._private.read_bytes(), password=None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(
                f"{self._private} is no Ed25519 key that can be read.",
                hint="Restore it, or remove it: the next training makes another, and older models stay trusted.",
            )
        return key

    def _keep(self, key: Ed25519PublicKey) -> str:
        signer = fingerprint(key)
        self._trusted.mkdir(parents=True, exist_ok=True, mode=0o700)
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        write_owner_only(self.public_file(signer), pem)
        return signer


def fingerprint(key: Ed25519PublicKey) -> str:
    """16 hex digits of the SHA-256 of the raw public key."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def refused(name: str, reason: str, hint: str = "") -> BundleRefused:
    return BundleRefused(
        f"The model in {name} was refused: {reason}.",
        hint=hint or "It is not served. Promote another (`lstmc models list`), or train again.",
    )


def _public_key(file: Path) -> Ed25519PublicKey:
    """InputError for anything but the public half of an Ed25519 key."""
    try:
        with open(file, "rb") as stream:
            pem = stream.read(MAX_PEM_BYTES + 1)
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}).", hint="Give a PEM file.") from None
    if b"PRIVATE KEY" in pem:
        raise InputError(
            f"{file} is a private key.", hint="It must not leave its installation: ask for the file in trusted/."
        )
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if len(pem) > MAX_PEM_BYTES or not isinstance(key, Ed25519PublicKey):
        raise InputError(f"{file} is no Ed25519 public key.", hint="Give a PEM file out of another's trusted/ folder.")
    return key
