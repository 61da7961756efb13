"""Faults of `lstmc bench reliability` that are deploys: `cluster/deploy/roll.sh` on a checkout of the installation's own, to code
that is better, that does not start and that never becomes healthy.

The last two start and import well where `lstmc roll` tries them, so that only replicas can find out.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.live_cluster import LSTMC
from benchmarks.private_installation import Installation, until
from configs.settings import ROOT
from market.errors import ClusterError
from serve_app.routes_background import API_VERSION

SECONDS = 180.0  # a roll or a way back may take so long
LOOKS = 15  # of roll.sh at /readyz, a second apart
VERSION = f'API_VERSION = "{API_VERSION}"'
# file, its text, what a revision has instead
BETTER = ("serve_app/routes_background.py", VERSION, VERSION.replace(API_VERSION, f"{API_VERSION}.1"))
BROKEN = ("serve_app/app.py", "self._settings = load_settings(home)", 'raise RuntimeError("a fault of this revision")')
ILL = ("serve_app/routes_background.py", "if not board.ready:\n            reason", "if True:\n            reason")


@contextmanager
def checkout() -> Iterator[Path]:
    """A clone of the committed code, and beside it the repository that it came from, which takes new revisions."""
    with TemporaryDirectory(prefix="lstmc-code-") as folder:
        origin, code = Path(folder) / "origin", Path(folder) / "code"
        for source, target in ((ROOT, origin), (origin, code)):
            subprocess.run(["git", "clone", "--quiet", str(source), str(target)], check=True)
        yield code


def better_code(made: Installation) -> str:
    """There and back."""
    said = []
    old, before = _git(made.code, "rev-parse", "HEAD"), _everything(made)
    for revision, version in ((_revision(made, *BETTER), f"{API_VERSION}.1"), (old, API_VERSION)):
        took = _roll(made, revision, expected=0)
        if (told := _versions(made)) != {version}:
            raise ClusterError(f"Version {version} was rolled out, {told} answer.")
        said.append(f"{version} after {took:.0f} s")
    if left := before & _everything(made):
        raise ClusterError(f"These processes never changed: {left}.")
    return f"{', back to '.join(said)}; {len(before)} processes gone"


def broken_code(made: Installation) -> str:
    return _sent_back(made, BROKEN)


def ill_code(made: Installation) -> str:
    return _sent_back(made, ILL)


def _sent_back(made: Installation, change: tuple[str, str, str]) -> str:
    old = _git(made.code, "rev-parse", "HEAD")
    took = _roll(made, _revision(made, *change), expected=1)
    if _git(made.code, "rev-parse", "HEAD") != old:
        raise ClusterError("The old revision is not checked out.")
    until(lambda: made.get("/readyz"), 10, "the old revision is ready")
    return f"`roll.sh` ended with 1 after {took:.0f} s, the old revision is checked out and ready"


def _revision(made: Installation, file: str, text: str, instead: str) -> str:
    """A new commit in the repository that the installation's checkout comes from."""
    origin = made.code.parent / "origin"
    before = (origin / file).read_text()
    if before.count(text) != 1:
        raise ClusterError(f"{file} does not have {text!r} once: benchmarks/deploy_faults.py is behind the code.")
    (origin / file).write_text(before.replace(text, instead))
    _git(
        origin,
        "-c",
        "user.name=bench",
        "-c",
        "user.email=bench@localhost",
        "commit",
        "--quiet",
        "-am",
        f"Change {file}",
    )
    made_here = _git(origin, "rev-parse", "HEAD")
    _git(origin, "reset", "--quiet", "--hard", "HEAD~1")  # the next one starts from the same code
    _git(origin, "tag", f"bench-{made_here[:12]}", made_here)
    return made_here


def _roll(made: Installation, revision: str, expected: int) -> float:
    backups = made.home.parent / "backups"
    backups.mkdir(exist_ok=True)
    looks = {"LSTMC_PATIENCE": str(LOOKS), "LSTMC_PAUSE": "1", "LSTMC_URL": f"http://127.0.0.1:{made.port}"}
    script, began = str(made.code / "cluster" / "deploy" / "roll.sh"), time.monotonic()
    done = made.run([script, revision], 900, LSTMC=LSTMC, LSTMC_BACKUPS=str(backups), **looks)
    took = time.monotonic() - began
    if done.returncode != expected:
        raise ClusterError(f"roll.sh ended with {done.returncode}: {done.stderr[-500:]}")
    if expected and "rolling back to" not in done.stderr:
        raise ClusterError(f"roll.sh ended before it rolled anything: {done.stderr[-500:]}")
    if expected == 0 and took > SECONDS:
        raise ClusterError(f"It took {took:.0f} s, not {SECONDS:.0f} s.")
    return took


def _versions(made: Installation) -> set[str]:
    """Of the code behind twenty answers, each by one replica or another."""
    return {str((made.get("/api/v1/status") or {}).get("version")) for _ in range(20)}


def _everything(made: Installation) -> set[int]:
    return made.api() | made.predictor() | made.forecaster()


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
