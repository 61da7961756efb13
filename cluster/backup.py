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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any

from cluster.run_record import members, read_run
from configs.settings import Settings, load_settings
from market.errors import ClusterError, InputError, LedgerBroken, ModelError
from market.forecasts import iso_utc

FORMAT = 1
MANIFEST, LEDGER = "manifest.json", "ledger.sqlite"
TOP_FILES = ("settings.json", "schedule.json")
UNFINISHED = (".staging-", ".arriving-", "_commit_")
CHUNK = 1 << 20
HINT = "Take another backup; this one was cut off, damaged or changed."


# Writing


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
    return _summary(manifest) | {"file": str(out), "archive_bytes": out.stat().st_size}


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
                with path.open("rb") as source:
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
    reader = _Hashing(source)
    archive.addfile(info, reader)
    return {"sha256": reader.digest.hexdigest(), "bytes": size}


class _Hashing:
    def __init__(self, source: IO[bytes]) -> None:
        self._source, self.digest = source, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        part = self._source.read(size)
        self.digest.update(part)
        return part


# Reading


@dataclass(frozen=True)
class _Staged:
    folder: Path
    manifest: dict[str, Any]


def restore(file: Path, home: Path, *, force: bool = False) -> dict[str, Any]:
    """Unpack beside what is there, verify everything, then put it in place; what was there goes to `before-restore-...`.

    Verified: each file's hash, that none is missing or too many, every row of the ledger, every signature of a model,
    that the bars can be read. InputError for what is no sound backup and for a home that is not empty (unless `force`),
    ClusterError while its cluster runs, LedgerBroken and ModelError when its content does not hold. Then nothing changes.
    """
    home = home.expanduser().absolute()
    run = read_run(home)
    if run is not None and members(run):
        raise ClusterError(f"The cluster of {home} runs.", hint="Run `lstmc down` first.")
    if _content(home) and not force:
        raise InputError(f"{home} is not empty.", hint="Give another --home, or --force: what is there is kept beside.")
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix=".restore-", dir=home) as folder:
        staged = _unpack(file, Path(folder))
        settings = load_settings(staged.folder)
        found = _verify(settings, staged)
        _place_ledger(settings, staged, force)
        before = _put_in_place(staged.folder, home)
    return _summary(staged.manifest) | found | {"home": str(home), "before": before}


def _content(home: Path) -> list[Path]:
    ignored = ("lost+found",)  # of a volume of its own
    return [p for p in home.iterdir() if p.name not in ignored] if home.is_dir() else []


def _unpack(file: Path, folder: Path) -> _Staged:
    """Every member into `folder`, compared with the manifest; nothing is believed before it is."""
    hashes: dict[str, dict[str, Any]] = {}
    try:
        with tarfile.open(file, "r:gz") as archive:
            for member in archive:
                if member.name in hashes:
                    raise InputError(f"{file} holds {member.name} twice.", hint=HINT)
                hashes[member.name] = _unpack_one(archive, member, folder)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise InputError(f"{file} cannot be read as a backup ({error or type(error).__name__}).", hint=HINT) from None
    hashes.pop(MANIFEST, None)
    manifest = _manifest(file, folder / MANIFEST)
    listed = manifest["files"]
    wrong = sorted(name for name in listed.keys() | hashes.keys() if listed.get(name) != hashes.get(name))
    if wrong:
        raise InputError(f"{file} does not hold what its manifest says: {', '.join(wrong[:5])}.", hint=HINT)
    (folder / MANIFEST).unlink()
    return _Staged(folder, manifest)


def _unpack_one(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> dict[str, Any]:
    parts = PurePosixPath(member.name).parts
    source = archive.extractfile(member) if member.isreg() else None
    if source is None or not parts or ".." in parts or parts[0] == "/":
        raise InputError(f"The backup holds {member.name!r}, which is no plain file of a home.", hint=HINT)
    path = folder.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    reader = _Hashing(source)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
        while part := reader.read(CHUNK):
            target.write(part)
    return {"sha256": reader.digest.hexdigest(), "bytes": path.stat().st_size}


def _manifest(file: Path, path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_bytes())
        known = manifest["format"] == FORMAT and isinstance(manifest["files"], dict)
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{file} has no manifest.", hint=HINT) from None
    if not known:
        raise InputError(f"{file} has the format {manifest['format']}.", hint=f"This version reads format {FORMAT}.")
    return dict(manifest)


def _verify(settings: Settings, staged: _Staged) -> dict[str, Any]:
    from market.bar_store import BarStore
    from tuning.registry import Registry

    ledger = _verify_ledger(settings, staged.folder / LEDGER)
    registry = Registry.of(settings)
    models = registry.list()
    for refused in registry.refused().values():
        raise refused
    for model in models:
        registry.verified(model.id)
    champions = {t: (registry.champion_pointer(t) or {}).get("id") for t in settings.timeframes}
    lost = [str(c) for c in champions.values() if c is not None and c not in {model.id for model in models}]
    if lost:
        raise ModelError(f"The champion {', '.join(lost)} is not in the backup.", hint=HINT)
    store = BarStore(settings.bars_path)
    bars = sum(store.counts().values())
    return {"bars": bars, "data_version": store.data_version(), "models": len(models), "champions": champions, **ledger}


def _verify_ledger(settings: Settings, copy: Path) -> dict[str, Any]:
    from actors.prediction_ledger import PredictionLedger

    if not copy.exists():
        return {"forecasts": 0, "heads": {}}
    ledger = PredictionLedger(f"sqlite:///{copy}", settings.secret("ledger_key").get_secret_value())
    try:
        verdict = ledger.verify()
    finally:
        ledger.close()
    if not verdict.intact:
        raise LedgerBroken(f"The backup's ledger is not intact: {verdict.broken[0]}.", hint="Use an earlier backup.")
    return {"forecasts": verdict.rows.get("forecasts", 0), "heads": verdict.heads}


def _place_ledger(settings: Settings, staged: _Staged, force: bool) -> None:
    """Into the database that the restored secrets name; a SQLite file beside the bars where they name none."""
    from actors.ledger_copy import copy_ledger, copy_sqlite
    from actors.ledger_database import LedgerDatabase

    copy, url = staged.folder / LEDGER, settings.ledger_url.get_secret_value()
    if not copy.exists():
        return
    if url.startswith("sqlite"):
        settings.data_path.mkdir(parents=True, exist_ok=True)
        copy_sqlite(copy, settings.data_path / LEDGER)
    else:
        source, target = LedgerDatabase(f"sqlite:///{copy}"), LedgerDatabase(url, settings.ledger_schema)
        try:
            copy_ledger(source, target, replace=force)
        finally:
            source.close()
            target.close()
    for path in staged.folder.glob(f"{LEDGER}*"):
        path.unlink()


def _put_in_place(folder: Path, home: Path) -> str | None:
    """By renames inside `home`, which may be a volume of its own; `settings.json`, which makes it an installation, last."""
    old = [path for path in _content(home) if path != folder]
    before = home / f"before-restore-{datetime.now(UTC):%Y%m%dT%H%M%SZ}" if old else None
    if before is not None:
        before.mkdir(mode=0o700)
        for path in old:
            path.rename(before / path.name)
    for path in sorted(folder.iterdir(), key=lambda p: p.name == "settings.json"):
        path.rename(home / path.name)
    return None if before is None else str(before)


def _summary(manifest: dict[str, Any]) -> dict[str, Any]:
    files = manifest["files"]
    kept = {key: manifest[key] for key in ("made_at", "market", "data")}
    return kept | {"files": len(files), "bytes": sum(entry["bytes"] for entry in files.values())}
