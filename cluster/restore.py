"""A backup back into a home: unpacked beside what is there, verified, and only then put in place."""

from __future__ import annotations

import json
import os
import tarfile
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from cluster.backup import FORMAT, LEDGER, MANIFEST, Hashing, summary
from cluster.run_record import members, read_run
from configs.settings import Settings, load_settings
from market.errors import ClusterError, InputError, LedgerBroken, ModelError

CHUNK = 1 << 20
HINT = "Take another backup; this one was cut off, damaged or changed."


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
    return summary(staged.manifest) | found | {"home": str(home), "before": before}


def _content(home: Path) -> list[Path]:
    """What is in it; empty folders, which volumes and images bring along, are nothing."""
    entries = home.iterdir() if home.is_dir() else []
    return [path for path in entries if path.name != "lost+found" and not (path.is_dir() and not any(path.iterdir()))]


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
    reader = Hashing(source)
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
