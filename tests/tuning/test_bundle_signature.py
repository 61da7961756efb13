"""Keys: made once, kept private, trusted by file; what they sign is the bytes as they are."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from market.errors import BundleRefused, ConfigError, InputError
from tuning.bundle_signature import BundleKeys


@pytest.fixture
def keys(tmp_path):
    return BundleKeys(tmp_path / "secrets" / "model_keys")


def test_the_key_is_made_on_first_use_and_readable_by_the_owner_only(keys):
    assert keys.own() is None
    assert keys.trusted() == {}
    line = keys.sign(b"manifest")
    assert keys.check("m", b"manifest", line) == keys.own()
    private = keys.folder / "signing.pem"
    assert private.stat().st_mode & 0o777 == 0o600
    assert keys.folder.stat().st_mode & 0o777 == 0o700
    assert keys.sign(b"manifest") == line, "Ed25519 is deterministic and the key is kept"


def test_two_that_sign_at_once_make_one_key(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        lines = set(pool.map(lambda _: BundleKeys(tmp_path / "keys").sign(b"m"), range(8)))
    assert len(lines) == 1
    assert len(BundleKeys(tmp_path / "keys").trusted()) == 1


def test_a_serving_node_needs_only_the_public_key(keys):
    line = keys.sign(b"manifest")
    (keys.folder / "signing.pem").unlink()
    assert keys.check("m", b"manifest", line)
    assert keys.own() is None


def test_a_new_key_leaves_older_models_trusted(keys):
    line, old = keys.sign(b"manifest"), keys.own()
    (keys.folder / "signing.pem").unlink()
    keys.sign(b"other")
    assert keys.check("m", b"manifest", line) == old != keys.own()


@pytest.mark.parametrize(
    "line",
    [b"", b"\n", b"ed25519 00 00\n", b"none", b"ed25519 " + b"0" * 16 + b" " + b"0" * 128, b"rsa x y\n", b"\xff" * 150],
)
def test_a_malformed_signature(keys, line):
    keys.sign(b"manifest")
    with pytest.raises(BundleRefused, match="signature is malformed"):
        keys.check("m", b"manifest", line)


def test_a_signature_of_something_else(keys):
    line = keys.sign(b"manifest")
    with pytest.raises(BundleRefused, match="changed after it was signed"):
        keys.check("m", b"manifesT", line)


def test_a_key_is_signed_for_one_purpose_only(keys):
    """What the key signs is never the bare content: another program's signature over it is none of ours."""
    signature = keys._signing_key().sign(b"manifest")
    with pytest.raises(BundleRefused, match="changed after it was signed"):
        keys.check("m", b"manifest", f"ed25519 {keys.own()} {signature.hex()}\n".encode())


def test_trust_goes_by_the_key_not_by_the_files_name(keys, tmp_path):
    keys.sign(b"x")
    other = BundleKeys(tmp_path / "other")
    line = other.sign(b"manifest")
    posing = keys.public_file("0" * 16)
    shutil.copy(other.public_file(other.own()), posing)
    with pytest.raises(BundleRefused, match=f"the key {other.own()}"):
        keys.check("m", b"manifest", line)
    assert keys.trust(posing) == other.own()
    assert keys.check("m", b"manifest", line) == other.own()


def test_what_is_no_public_key_is_not_trusted(keys, tmp_path):
    keys.sign(b"x")
    (tmp_path / "noise.pem").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    with pytest.raises(InputError, match="private key"):
        keys.trust(keys.folder / "signing.pem")
    with pytest.raises(InputError, match="no Ed25519 public key"):
        keys.trust(tmp_path / "noise.pem")
    with pytest.raises(InputError, match="cannot be read"):
        keys.trust(tmp_path / "nowhere.pem")


def test_a_damaged_private_key_is_named(keys):
    keys.sign(b"x")
    (keys.folder / "signing.pem").write_text("nonsense")
    with pytest.raises(ConfigError, match="no Ed25519 key"):
        keys.sign(b"y")
