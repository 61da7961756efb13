"""A trained model as a folder that proves what it is: weights and JSON, every file hashed, the manifest signed.

Loading checks the signature over the manifest's bytes, then names, sizes and hashes, before any parser sees a byte, and
refuses everything it does not know. There is no pickle. Knows no registry and no training.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from market.errors import BundleRefused
from market.forecasts import HorizonForecast
from tuning.bundle_signature import RETRAIN, BundleKeys, refused
from tuning.model_version import ModelVersion

FORMAT = 1
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
PROOFS = (MANIFEST, SIGNATURE)  # what the manifest itself does not list
MAX_MANIFEST_BYTES = 4 * 2**20
MAX_SIGNATURE_BYTES = 1024
EXTENSIONS = frozenset({".json", ".safetensors", ".txt", ".ubj"})
MAX_FILE_BYTES = 512 * 1024 * 1024
# Beside the model, hashed, but no part of its identity: how it was judged.
REPORT = "report.json"
LOSSES = "judged_losses.safetensors"
ATTACHMENTS = frozenset({REPORT, LOSSES})
_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$")


class Forecaster(Protocol):
    """What a bundle holds. `tuning.ensemble.Ensemble` is the real one."""

    @property
    def bars_needed(self) -> int: ...

    @property
    def spec_digest(self) -> str: ...

    def forecast(self, bars: Mapping[str, pa.Table]) -> dict[str, tuple[HorizonForecast, ...]]: ...

    def save(self, folder: Path) -> None: ...


@dataclass(frozen=True)
class Bundle:
    """A verified, loaded model."""

    version: ModelVersion
    ensemble: Forecaster
    path: Path

    @property
    def bars_needed(self) -> int:
        return self.ensemble.bars_needed

    def forecast(self, bars: Mapping[str, pa.Table]) -> dict[str, tuple[HorizonForecast, ...]]:
        """The newest closed bars of each symbol, at least `bars_needed` -> one HorizonForecast per horizon."""
        return self.ensemble.forecast(bars)


def save_bundle(
    ensemble: Forecaster,
    version_fields: Mapping[str, Any],
    folder: Path,
    *,
    report: Mapping[str, Any] | None = None,
    losses: Mapping[str, np.ndarray] | None = None,
) -> ModelVersion:
    """Write the model into the new or empty `folder`, the manifest last. Loading it wants a `sign` first.

    version_fields: ModelVersion's fields without `id`, `spec_digest`. report: what `evaluate` writes, for this model.
    losses: judged out-of-fold losses by target, and their rows, kept for later comparisons.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise BundleRefused(f"{folder} is not empty.", hint="Save a bundle into a new folder.")
    ensemble.save(folder)
    if report is not None:
        write_json(folder / REPORT, report)
    if losses is not None:
        _save_losses(folder / LOSSES, losses)
    files = {name: _entry(folder / name) for name in _names(folder)}
    identity = bundle_id(str(version_fields["timeframe"]), files, ensemble.spec_digest)
    fields = {"made_at": datetime.now(UTC).replace(microsecond=0)} | dict(version_fields)
    version = ModelVersion(id=identity, spec_digest=ensemble.spec_digest, **fields)
    write_json(folder / MANIFEST, {"format": FORMAT, "version": version.to_dict(), "files": files})
    return version


def bundle_id(timeframe: str, files: Mapping[str, Mapping[str, Any]], spec_digest: str) -> str:
    """ "h1-" + 16 hex digits of the hash of the model's sorted (name, sha256) pairs and the specification's digest."""
    identity = sorted((name, entry["sha256"]) for name, entry in files.items() if name not in ATTACHMENTS)
    digest = hashlib.sha256(json.dumps([identity, spec_digest]).encode()).hexdigest()
    return f"{timeframe.lower()}-{digest[:16]}"


def sign(folder: Path, keys: BundleKeys) -> None:
    """Put the installation's signature over the manifest, as it is now, beside it."""
    write_whole(Path(folder) / SIGNATURE, keys.sign(_read_proof(Path(folder), MANIFEST, MAX_MANIFEST_BYTES)))


def load_bundle(path: Path, keys: BundleKeys, load: Callable[[Path], Forecaster] | None = None) -> Bundle:
    """Verify, then parse. BundleRefused says what is wrong. `load`: a folder -> the model (default: Ensemble.load)."""
    path = Path(path)
    version = verify(path, keys)
    try:
        ensemble = (load or _load_ensemble)(path)
    except BundleRefused:
        raise
    except Exception as error:  # a parser's own error on a file that is intact but not what it claims to be
        raise _refused(path, f"it cannot be read ({type(error).__name__}: {error})") from error
    if ensemble.spec_digest != version.spec_digest:
        raise _refused(path, "the feature specification differs from the one it was trained with")
    return Bundle(version, ensemble, path)


def _load_ensemble(path: Path) -> Forecaster:
    from tuning.ensemble import Ensemble

    return Ensemble.load(path)


def verify(path: Path, keys: BundleKeys) -> ModelVersion:
    """Check a bundle's folder byte by byte -> its ModelVersion, or BundleRefused.

    In this order: the signature over the manifest's bytes, the manifest, every name, size and hash; only then are the
    files looked into, for numbers that are none.
    """
    path = Path(path)
    manifest = _read_manifest(path, keys)
    files = manifest["files"]
    for name in files:
        _check_name(path, name)
    present = set(_names(path))
    if unknown := sorted(present - set(files)):
        raise _refused(path, f"{unknown[0]} is not in its manifest")
    if missing := sorted(set(files) - present):
        raise _refused(path, f"{missing[0]} is missing")
    for name, entry in files.items():
        if _entry(path / name) != entry:
            raise _refused(path, f"{name} was changed after it was saved")
    version = _version(path, manifest)
    if bundle_id(version.timeframe, files, version.spec_digest) != version.id:
        raise _refused(path, f"its id {version.id} does not match its content")
    for name in files:
        _check_numbers(path, name)
    return version


def read_version(path: Path, keys: BundleKeys) -> ModelVersion:
    """The identity card from the signed manifest; the files it names are not looked at: for listings."""
    return _version(Path(path), _read_manifest(Path(path), keys))


def signer(path: Path, keys: BundleKeys) -> str:
    """The fingerprint of the trusted key whose signature over the manifest holds, or BundleRefused."""
    return _signed(Path(path), keys)[1]


def read_report(path: Path) -> dict[str, Any]:
    """The report written beside the model; {} when it has none."""
    file = Path(path) / REPORT
    return json.loads(file.read_text()) if file.is_file() else {}


def read_losses(path: Path) -> dict[str, np.ndarray]:
    """The judged out-of-fold losses kept beside the model; {} when it has none."""
    from safetensors.numpy import load_file

    file = Path(path) / LOSSES
    return dict(load_file(file)) if file.is_file() else {}


def write_json(path: Path, content: Any) -> None:
    write_whole(path, json.dumps(content, indent=1, allow_nan=False).encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write to a temporary name, flush to disk, rename: a reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _save_losses(path: Path, losses: Mapping[str, np.ndarray]) -> None:
    from safetensors.numpy import save

    path.write_bytes(save({name: np.ascontiguousarray(values) for name, values in losses.items()}))


def _refused(path: Path, reason: str) -> BundleRefused:
    return refused(path.name, reason)


def _read_proof(path: Path, name: str, limit: int) -> bytes:
    """The bytes of the manifest or its signature, from a plain file of a size that such a file can have."""
    file = path / name
    if not path.is_dir() or not file.is_file() or file.is_symlink():
        if name == SIGNATURE and path.is_dir():
            raise refused(path.name, "it is not signed", RETRAIN)
        raise _refused(path, f"it has no {name}")
    with open(file, "rb") as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise _refused(path, f"its {name} is larger than {limit} bytes")
    return content


def _signed(path: Path, keys: BundleKeys) -> tuple[bytes, str]:
    """The manifest's bytes and who signed them."""
    manifest = _read_proof(path, MANIFEST, MAX_MANIFEST_BYTES)
    line = _read_proof(path, SIGNATURE, MAX_SIGNATURE_BYTES)
    return manifest, keys.check(path.name, manifest, line)


def _read_manifest(path: Path, keys: BundleKeys) -> dict[str, Any]:
    content, _ = _signed(path, keys)
    try:
        manifest = json.loads(content)
    except ValueError:
        raise _refused(path, "its manifest.json is not JSON") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _refused(path, f"its format is not {FORMAT}")
    if not isinstance(manifest.get("files"), dict) or not isinstance(manifest.get("version"), dict):
        raise _refused(path, "its manifest.json lacks files or version")
    return manifest


def _version(path: Path, manifest: Mapping[str, Any]) -> ModelVersion:
    try:
        return ModelVersion.from_dict(manifest["version"])
    except (TypeError, KeyError, ValueError, AttributeError):
        raise _refused(path, "its version card is malformed") from None


def _check_name(path: Path, name: str) -> None:
    if not _NAME.match(name) or ".." in name.split("/"):
        raise _refused(path, f"the file name {name!r} is not allowed")
    if Path(name).suffix not in EXTENSIONS:
        raise _refused(path, f"files like {name!r} are not allowed, only {', '.join(sorted(EXTENSIONS))}")


def _names(folder: Path) -> list[str]:
    """Relative names of all files but the proofs. Links and special files are refused: they may lead outside."""
    names = []
    for file in sorted(folder.rglob("*")):
        if file.is_symlink() or not (file.is_file() or file.is_dir()):
            raise _refused(folder, f"{file.relative_to(folder)} is not a plain file")
        if file.is_file() and file.relative_to(folder).as_posix() not in PROOFS:
            names.append(file.relative_to(folder).as_posix())
    for name in names:
        _check_name(folder, name)
    return names


def _entry(file: Path) -> dict[str, Any]:
    size = file.stat().st_size
    if size > MAX_FILE_BYTES:
        raise _refused(file.parent, f"{file.name} is larger than {MAX_FILE_BYTES // 2**20} MiB")
    with open(file, "rb") as stream:
        return {"sha256": hashlib.file_digest(stream, "sha256").hexdigest(), "bytes": size}


def _check_numbers(path: Path, name: str) -> None:
    """No NaN and no infinity in weights: such a model answers, but with nothing."""
    if name.endswith(".safetensors") and name not in ATTACHMENTS:
        from safetensors.numpy import load_file

        try:
            weights = load_file(path / name)
        except Exception as error:
            raise _refused(path, f"{name} is not a safetensors file ({error})") from None
        for key, values in weights.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise _refused(path, f"{name} holds NaN or infinite weights in {key}")
    elif name.endswith(".json"):
        try:
            json.loads((path / name).read_bytes(), parse_constant=_no_constant)
        except ValueError as error:
            raise _refused(path, f"{name} is not clean JSON ({error})") from None
    elif name.endswith(".txt") and re.search(rb"[=\s][-+]?(nan|inf)\b", (path / name).read_bytes(), re.IGNORECASE):
        raise _refused(path, f"{name} holds NaN or infinite values")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
