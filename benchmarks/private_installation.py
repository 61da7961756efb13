"""A production-like installation of a benchmark's own: PostgreSQL ledger, two Api replicas, nginx in front, load from a second
process. On loopback, free ports and temporary folders; ends exactly what it started.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import psutil

from benchmarks.embedded_postgres import Postgres
from benchmarks.live_cluster import LSTMC, live_cluster, shell
from benchmarks.nginx_process import Nginx
from cluster import health
from cluster.run_record import members, read_run
from configs.settings import ROOT, Settings, ensure_secrets, load_settings, make_settings
from market.errors import ClusterError, InputError

SPEED = 600  # an H1 bar every six seconds
SYMBOLS = "EURUSD,GBPUSD,USDJPY"
STARTED = {"Api": 2, "Predictor": 1}  # replicas


@dataclass
class Installation:
    home: Path
    port: int
    postgres: Postgres
    nginx: Nginx
    token_file: Path
    load_file: Path
    code: Path  # the checkout that runs

    @property
    def settings(self) -> Settings:
        return load_settings(self.home)

    def lstmc(self, *words: str, seconds: float = 300.0) -> subprocess.CompletedProcess[str]:
        """The command as a user calls it, on this home; its output as text, whatever its exit code."""
        return self.run([LSTMC, *words], seconds)

    def run(self, command: Sequence[str], seconds: float, **more: str) -> subprocess.CompletedProcess[str]:
        """Beside the code that runs, in an operator's environment and `more`."""
        environment = shell(self.home, **MORE, PYTHONPATH=str(self.code), **more)
        return subprocess.run(
            command, cwd=self.code, env=environment, capture_output=True, text=True, timeout=seconds
        )  # fmt: skip

    def new_token(self) -> None:
        """A token of the newest key, for the load and for us."""
        made = self.lstmc("token", "issue", "--subject", "load", "--days", "1")
        if made.returncode:
            raise ClusterError(f"No token: {made.stderr}")
        temporary = self.token_file.with_suffix(".tmp")
        temporary.write_text(made.stdout.strip())
        temporary.replace(self.token_file)

    def get(self, path: str) -> Any:
        """What the API says, past nginx and the load; None while it does not answer with 200."""
        status, body = health.http_get(f"http://127.0.0.1:{self.port}{path}", self.token_file.read_text())
        return body if status == 200 else None

    def status(self) -> dict[str, Any]:
        """The forecaster's own part of /api/v1/status; {} while it does not answer."""
        return dict((self.get("/api/v1/status") or {}).get("source") or {})

    def pids(self, *titles: str) -> set[int]:
        """Processes of the cluster whose title or program begins with one of `titles`."""
        run = read_run(self.home)
        found = set()
        for process in members(run) if run else []:
            try:
                title = " ".join(process.cmdline()) or process.name()
            except psutil.Error:
                continue
            if title.startswith(titles) or process.name().startswith(titles):
                found.add(process.pid)
        return found

    def api(self) -> set[int]:
        return self.pids("ray::ServeReplica:lstmc:Api")

    def predictor(self) -> set[int]:
        return self.pids("ray::ServeReplica:lstmc:Predictor")

    def proxy(self) -> set[int]:
        """Who listens on Serve's port. Not the proxy actor that Serve keeps behind HAProxy."""
        return self.pids("haproxy" if self.settings.serve_proxy == "haproxy" else "ray::ProxyActor")

    def controller(self) -> set[int]:
        return self.pids("ray::ServeController")

    def forecaster(self) -> set[int]:
        return self.pids("ray::ForecasterActor")


MORE = {
    "LSTMC_REQUESTS_PER_MINUTE": "1000000",  # the load is one subject
    "LSTMC_TRUSTED_PROXIES": "127.0.0.1",
}


@contextmanager
def installation(
    rate: float, code: Path = ROOT, symbols: str = SYMBOLS, speed: float = SPEED, load: Sequence[str] = ()
) -> Iterator[Installation]:
    """Running and under load of `rate` requests a second when it is yielded. `load`: further options of benchmarks.http_load."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lstmc-rel-")))
        home = folder / "home"
        postgres = Postgres()
        stack.callback(postgres.remove)
        ensure_secrets(make_settings(home=home))
        (home / "secrets" / "ledger_url").write_text(postgres.url)
        words = ["--profile", "production", "--market", "simulated", "--speed", str(speed), "--symbols", symbols]
        port = stack.enter_context(live_cluster(home, *words, code=code, **MORE)).port
        nginx = stack.enter_context(Nginx(folder / "nginx", [f"127.0.0.1:{port}"], rate=10_000, connections=1000))
        made = Installation(home, port, postgres, nginx, folder / "token", folder / "load.jsonl", code)
        made.new_token()
        until(lambda: len(made.api()) == STARTED["Api"], 60, "both Api replicas")
        stack.enter_context(_load(made, rate, load))
        yield made


@contextmanager
def _load(made: Installation, rate: float, more: Sequence[str]) -> Iterator[None]:
    words = ["--url", made.nginx.url, "--ca", str(made.nginx.edge.certificate), "--token", str(made.token_file)]
    with made.load_file.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.http_load", *words, "--rate", str(rate), *more], cwd=ROOT, stdout=output
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


class Named(Protocol):
    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=Named)


def chosen(faults: Sequence[N], only: str | None) -> list[N]:
    """The faults named in `only`, all without; InputError names the known ones."""
    names = [name for name in (only or "").split(",") if name]
    known = {fault.name: fault for fault in faults}
    if strange := [name for name in names if name not in known]:
        raise InputError(f"There is no fault {strange[0]!r}.", hint=f"Known: {', '.join(known)}.")
    return [known[name] for name in names] or list(faults)


def until(true: Callable[[], Any], seconds: float, what: str) -> float:
    """Seconds until `true`; ClusterError after `seconds`."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            raise ClusterError(f"Not within {seconds:.0f} s: {what}.")
        time.sleep(0.3)  # looking at every process costs CPU that what is looked at wants
    return time.monotonic() - began


def answers(file: Path, since: float, until: float) -> list[dict[str, Any]]:
    """Lines of benchmarks.http_load about requests that were sent between the two epoch seconds."""
    lines = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")]
    return [line for line in lines if since <= line["at"] < until]
