"""`lstmc backup`, `lstmc restore`: an installation as one file, and back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.console import Json, note, settings, show


def backup(
    out: Annotated[Path, typer.Option(help="A new file; it will hold every secret of the installation.")],
    as_json: Json = False,
) -> None:
    """Settings, secrets, bars, models and ledger in one file, while everything runs."""
    from cluster.backup import backup as write_backup

    outside = sorted(name for name in os.environ if name.startswith("LSTMC_SECRET_"))
    if outside:
        note(f"not in the backup, since they are no files: {', '.join(outside)}")
    show(write_backup(settings(), out), as_json, _backup_words)


def _backup_words(done: dict[str, Any]) -> str:
    return f"{done['file']}: {done['files']} files of the {done['market']} market, {_megabytes(done['archive_bytes'])}"


def restore(
    file: Annotated[Path, typer.Argument(help="What `lstmc backup` wrote.")],
    force: Annotated[bool, typer.Option("--force", help="Also where something is; it is kept beside.")] = False,
    as_json: Json = False,
) -> None:
    """Verify a backup and put it into the home, which must be empty. The cluster must not run."""
    from cluster.restore import restore as read_backup

    home = Path(os.environ.get("LSTMC_HOME") or ".lstmc")
    show(read_backup(file, home, force=force), as_json, _restore_words)


def _restore_words(done: dict[str, Any]) -> str:
    lines = [
        f"{done['home']}: as of {done['made_at']}, every hash as written",
        f"bars     {done['bars']:,} ({done['data_version']})",
        f"models   {done['models']}, all signed; champions {done['champions']}",
        f"ledger   {done['forecasts']} forecasts, intact; ends {done['heads']}",
    ]
    return "\n".join(lines + ([f"before   {done['before']}"] if done["before"] else []))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
