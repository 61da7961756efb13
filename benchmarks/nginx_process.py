"""A private nginx before given upstreams: started, reloaded and ended by pid, on free ports of loopback, with a certificate of
its own. For the reliability benchmark and the tests."""

from __future__ import annotations

import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from cluster.certificate import write_certificate
from cluster.edge import CONFIG, Edge, write
from cluster.nodes import free_ports, listens
from market.errors import ClusterError

NAME = "127.0.0.1"


def program() -> str | None:
    """Where nginx is; None when it is not installed. Not every user's path has Debian's place for it."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


class Nginx:
    """`with Nginx(folder, upstreams) as nginx`: answers at `nginx.url`, trusted by `nginx.tls`."""

    def __init__(self, folder: Path, upstreams: Sequence[str], **given: Any) -> None:
        found = program()
        if found is None:
            raise ClusterError("nginx is not installed.", hint="Run tests/edge/install_nginx.sh.")
        self._program = found
        made = write_certificate([NAME, "localhost"], folder / "tls", days=2)
        port, http_port = free_ports(2)
        pair = Path(made["certificate"]), Path(made["key"])
        self.edge = Edge(
            folder, [NAME, "localhost"], upstreams, *pair, **({"port": port, "http_port": http_port} | given)
        )
        self.tls = ssl.create_default_context(cafile=made["certificate"])
        self.url, self.http_url = f"https://{NAME}:{port}", f"http://{NAME}:{http_port}"

    def __enter__(self) -> Nginx:
        write(self.edge)
        self.test()
        self._process = subprocess.Popen(self._command("-g", "daemon off;"), stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not listens(self.edge.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ClusterError(f"nginx did not start: {(self.edge.folder / 'error.log').read_text()[-300:]}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)  # QUIT would wait for open streams
        self._process.wait(15)

    def test(self) -> str:
        """What `nginx -t` says; ClusterError when it refuses."""
        done = subprocess.run(self._command("-t"), capture_output=True, text=True)
        if done.returncode:
            raise ClusterError(f"nginx refuses its configuration: {done.stderr}")
        return done.stderr

    def reload(self, **changed: Any) -> None:
        """With a configuration written anew; returns at once, the old workers end when their requests have."""
        self.edge = replace(self.edge, **changed)
        write(self.edge)
        self._process.send_signal(signal.SIGHUP)

    def workers(self) -> set[int]:
        return {child.pid for child in psutil.Process(self._process.pid).children()}

    def _command(self, *words: str) -> list[str]:
        return [self._program, "-c", str(self.edge.folder / CONFIG), *words]
