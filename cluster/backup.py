"""One file that holds an installation: settings, secrets, bars, models and ledger of its market. Written while it runs.

    manifest.json    what is in the file, each with its SHA-256; the last member, so a cut-off backup has none
    ledger.sqlite    the ledger, wherever it lives
    everything else  as it lies in the home

Consistent because bars and models are files that never change, named by a log and a pointer that are read first, under
their writers' locks. Left out: logs, locks, what is half written, other markets.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any

from configs.settings import Settings
from market.errors import InputError
from market.forecasts import iso_utc

FORMAT = 1
MANIFEST, LEDGER = "manifest.json", "ledger.sqlite"
TOP_FILES = ("settings.json", "schedule.json")
UNFINISHED = (".staging-", ".arriving-", "_commit_")


def backup(settings: Settings, out: Path) -> dict[str, Any]:
    """Write `out`, readable by its owner only since it holds every secret; the manifest without its list of files.

    InputError when `out` exists or its folder does not; LedgerUnavailable when the ledger's database is away.
    """
    out = out.expanduser().absolute()
    if out.exists() or not out.parent.is_dir():
        why = "exists already" if out.exists() else "is in a folder that does not exist"
        raise InputError(f"{out} {why}.", hint="Give a new file in a folder that is there.")
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            manifest = _write(settings, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return summary(manifest) | {"file": str(out), "archive_bytes": out.stat().st_size}


def _write(settings: Settings, file: IO[bytes]) -> dict[str, Any]:
    home = settings.home_path
    files: dict[str, dict[str, Any]] = {}
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=3) as archive:
        with _held(settings):
            changing = [(name, _whole_lines(path)) for name, path in _found(settings) if not _is_immutable(name)]
        for name, content in changing:
            files[name] = _add(archive, name, io.BytesIO(content), len(content))
        for name, path in _found(settings):
            if _is_immutable(name):
                # A file of bars that the versions noted above no longer have may be removed meanwhile.
                gone = [FileNotFoundError] if name.endswith(".parquet") else []
                with suppress(*gone), path.open("rb") as source:
                    files[name] = _add(archive, name, source, os.fstat(source.fileno()).st_size)
        with tempfile.TemporaryDirectory(prefix="lstmc-backup-") as folder:
            copy = Path(folder) / LEDGER
            if _copy_ledger(settings, copy):
                with copy.open("rb") as source:
                    files[LEDGER] = _add(archive, LEDGER, source, copy.stat().st_size)
        manifest = {
            "format": FORMAT,
            "made_at": iso_utc(datetime.now(UTC).replace(microsecond=0)),
            "market": settings.market,
            "data": settings.data_path.relative_to(home).as_posix(),
            "files": files,
        }
        content = json.dumps(manifest, indent=1).encode()
        _add(archive, MANIFEST, io.BytesIO(content), len(content))
    return manifest


@contextmanager
def _held(settings: Settings) -> Iterator[None]:
    """The writers' locks of the bar store and of the registry; both are held for milliseconds."""
    bars, registry = settings.bars_path, settings.registry_path
    with ExitStack() as stack:
        for folder, lock in ((bars, bars.with_name(f"{bars.name}.lock")), (registry, registry / ".lock")):
            if folder.is_dir():
                fcntl.flock(stack.enter_context(lock.open("w")), fcntl.LOCK_EX)
        yield


def _found(settings: Settings) -> Iterator[tuple[str, Path]]:
    """(name in the archive, path), sorted."""
    home = settings.home_path
    for name in TOP_FILES:
        if (home / name).is_file():
            yield name, home / name
    for top in (home / "secrets", settings.data_path):
        for path in sorted(top.rglob("*")):
            name = path.relative_to(home).as_posix()
            if path.is_file() and not path.is_symlink() and not _is_left_out(name):
                yield name, path


def _is_left_out(name: str) -> bool:
    parts = PurePosixPath(name).parts
    last = parts[-1]
    return (
        last.endswith((".tmp", ".lock"))
        or last == ".lock"
        or last.startswith(LEDGER)  # copied as a database, with what its WAL holds
        or any(part.startswith(UNFINISHED) for part in parts)
    )


def _is_immutable(name: str) -> bool:
    """Data files of a Delta table, and bundles: written once under a name of their own."""
    parts = PurePosixPath(name).parts
    return (name.endswith(".parquet") and "_delta_log" not in parts) or "models" in parts


def _whole_lines(path: Path) -> bytes:
    """Of a file that is only appended to, without a last line that is being written."""
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1] if path.suffix == ".jsonl" else content


def _copy_ledger(settings: Settings, copy: Path) -> bool:
    from actors.ledger_copy import copy_ledger, copy_sqlite
    from actors.ledger_database import LedgerDatabase

    url = settings.ledger_url.get_secret_value()
    if url.startswith("sqlite"):
        path = settings.data_path / LEDGER
        if path.exists():
            copy_sqlite(path, copy)
        return path.exists()
    source, target = LedgerDatabase(url, settings.ledger_schema), LedgerDatabase(f"sqlite:///{copy}")
    try:
        copy_ledger(source, target)
    finally:
        source.close()
        target.close()
    copy_sqlite(copy, plain := copy.with_name("plain"))
    plain.replace(copy)
    return True


def _add(archive: tarfile.TarFile, name: str, source: IO[bytes], size: int) -> dict[str, Any]:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    reader = Hashing(source)
    archive.addfile(info, reader)
    return {"sha256": reader.digest.hexdigest(), "bytes": size}


class Hashing:
    """A stream that says afterwards what went through it."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source, self.digest = source, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        part = self._source.read(size)
        self.digest.update(part)
        return part


def summary(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest without its list of files."""
    files = manifest["files"]
    kept = {key: manifest[key] for key in ("made_at", "market", "data")}
    return kept | {"files": len(files), "bytes": sum(entry["bytes"] for entry in files.values())}
