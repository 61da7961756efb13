"""An installation on three machines, each a network namespace: head, a worker that trains, and the node that plays the
market's terminal. Started by the product's own commands, under a supervisor each; asked by a client at the switch.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.live_cluster import LSTMC, shell
from benchmarks.namespaces import SUBNET, SWITCH, Network, network
from benchmarks.nginx_process import Nginx
from benchmarks.private_installation import until
from cluster import health
from cluster.nodes import end_processes, stop
from configs.settings import ROOT, Settings, ensure_secrets, load_settings, make_settings
from market.errors import ClusterError, LstmcError
from serve_app.auth import issue_token

HEAD, WORKER, MT5 = "head", "worker", "mt5"
SPEED = 600  # an H1 bar every six seconds
SYMBOLS = ("EURUSD", "GBPUSD", "USDJPY")
REDIS_PORT = 6380
TEMPORARY = Path("/run", str(os.getpid()))  # short: HAProxy's socket ends at 97 characters
REST_SECONDS = 5.0  # RestartSec of lstmc-head.service
STORE_BYTES = 64 * 2**20


class Unit:
    """A command that is started again when it ends, as systemd does with the units in cluster/deploy."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path, rest: float = REST_SECONDS):
        self._command, self._environment, self._log, self._rest = command, environment, log, rest
        self._over, self._process = threading.Event(), self._start()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def end(self) -> None:
        self._over.set()
        self._process.terminate()
        self._thread.join(60)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as output:
            return subprocess.Popen(
                self._command, cwd=ROOT, env=dict(self._environment), stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )  # fmt: skip

    def _keep(self) -> None:
        while True:
            self._process.wait()
            if self._over.wait(self._rest):
                return
            self._process = self._start()


@dataclass
class ThreeMachines:
    """`folder` holds a home for each machine. Every machine but HEAD and MT5 is a worker."""

    folder: Path
    wire: Network
    redis: bool
    market: Sequence[str] = ("--speed", str(SPEED), "--symbols", ",".join(SYMBOLS))
    worker_flags: Sequence[str] = ()
    head_settings: Mapping[str, str] = field(default_factory=dict)
    held_to: Mapping[str, Sequence[str]] = field(default_factory=dict)  # machine -> the command's first words
    units: dict[str, Unit] = field(default_factory=dict)
    threads: dict[str, ThreadPoolExecutor] = field(default_factory=dict)

    def home(self, name: str) -> Path:
        return self.folder / name

    @property
    def settings(self) -> Settings:
        return load_settings(self.home(HEAD))

    @property
    def roles(self) -> dict[str, str]:
        """machine -> its role in the cluster."""
        worker = "serve" if "--serve" in self.worker_flags else "train"
        return {name: name if name in (HEAD, MT5) else worker for name in self.wire.addresses}

    @property
    def url(self) -> str:
        return self.proxies[0]

    @property
    def proxies(self) -> list[str]:
        """URLs at which HAProxy is asked: on the head, and on each machine that serves."""
        serving = [HEAD, *(name for name, role in self.roles.items() if role == "serve")]
        return [f"http://{self.wire.addresses[name]}:8000" for name in serving]

    @property
    def load_file(self) -> Path:
        return self.folder / "load.jsonl"

    def environment(self, name: str) -> dict[str, str]:
        address = self.wire.addresses[HEAD]
        more = {"LSTMC_HEAD_HOST": address, "LSTMC_CLIENT_HOST": "0.0.0.0", "LSTMC_MT5_NODE": "elsewhere", "LSTMC_REQUESTS_PER_MINUTE": "6000"}  # fmt: skip
        redis = {"LSTMC_REDIS_ADDRESS": f"127.0.0.1:{REDIS_PORT}"} if self.redis else {}
        told = more | redis | dict(self.head_settings) if name == HEAD else {}
        return shell(self.home(name), TMPDIR=str(TEMPORARY), **told)

    def command(self, name: str, *words: str) -> list[str]:
        """On that machine. Its temporary folder is its own, since Ray lays every machine's HAProxy into the head's path."""
        own = ["sh", "-c", 'mount --bind "$0" "$TMPDIR" && exec "$@"', str(self.temporary(name))]
        return self.wire.command(name, *(own if name != HEAD else []), *words)

    def temporary(self, name: str) -> Path:
        return self.home(name).with_suffix(".tmp")

    def start(self, name: str, **more: str) -> None:
        self.units[name] = Unit(
            [*self.held_to.get(name, ()), *self.command(name, *self._words(name))],
            self.environment(name) | more,
            self.folder / f"{name}.log",
        )

    def start_redis(self) -> None:
        words = ["redis-server", "--port", str(REDIS_PORT), "--bind", "127.0.0.1", "--appendonly", "yes"]
        words += ["--dir", str(self.folder)]
        command = self.command(HEAD, *words)
        self.units["redis"] = Unit(command, os.environ, self.folder / "redis.log", rest=1.0)

    def _words(self, name: str) -> list[str]:
        head, own = self.wire.addresses[HEAD], self.wire.addresses[name]
        if name == HEAD:
            return [LSTMC, "up", "--market", "simulated", *self.market, "--no-train", "--no-schedule"]
        if name != MT5:
            return [LSTMC, "node", "worker", "--start", "--host", head, "--address", own, *self.worker_flags]
        words = ["--head", f"{head}:6379", "--address", own, "--no-data-api", "--temp-dir", str(TEMPORARY / "node")]
        return [sys.executable, "-m", "mt5_actor_windows.node", *words]

    def lstmc(self, *words: str, seconds: float = 300.0) -> str:
        """A command on the head, as a user calls it: its output. ClusterError when it fails."""
        command = self.command(HEAD, LSTMC, *words)
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment(HEAD), capture_output=True, text=True, timeout=seconds
        )
        if done.returncode:
            raise ClusterError(f"lstmc {' '.join(words)}: {done.stderr.strip()[-500:]}")
        return done.stdout

    def get(self, path: str) -> Any:
        """What a client at the switch is told by the first machine that serves; None while it is no 200."""
        told = (self.answers(url, path) for url in self.proxies)
        return next((body for body in told if body is not None), None)

    def answers(self, url: str, path: str = "/api/v1/status") -> Any:
        token = (self.folder / "token").read_text()
        status, body = self.threads[SWITCH].submit(health.http_get, url + path, token).result()
        return body if status == 200 else None

    def forecast(self) -> dict[str, Any]:
        return dict(self.get("/api/v1/predictions/EURUSD") or {})

    def nodes(self) -> dict[str, str]:
        """Ray's id -> role of the nodes that the head takes for living; {} while it cannot say."""
        try:
            found = self.threads[HEAD].submit(health.nodes, self.settings).result()
        except LstmcError:
            return {}
        return {node["id"]: node["role"] for node in found if node["state"] == "ALIVE"}

    def are_all_there(self) -> bool:
        return sorted(self.nodes().values()) == sorted(self.roles.values())

    def processes(self, name: str) -> list[psutil.Process]:
        """All of a machine but its supervisors' own children, which are what a supervisor starts again."""
        kept = {unit.pid for unit in self.units.values()}
        found = []
        for pid in self.wire.pids(name) - kept:
            try:
                found.append(psutil.Process(pid))
            except psutil.NoSuchProcess:
                continue
        return found

    def titles(self, name: str) -> set[str]:
        """What Ray's workers of a machine are doing now, such as `ray::fit_unit`."""
        found = set()
        for process in self.processes(name):
            try:
                found |= {word for word in process.cmdline()[:1] if word.startswith("ray::")}
            except psutil.Error:
                continue
        return found - {"ray::IDLE"}

    def is_up(self) -> bool:
        """The head's newest start, which its supervisor may have made, is over: it has nothing left to deploy."""
        return "forecasts are served" in self.units[HEAD].said.rpartition("head started")[2]

    def is_well(self, newer_than: str) -> bool:
        """All nodes are there, and a forecast at a later close than `newer_than` is served and not stale."""
        forecast = self.forecast()
        fresh = forecast.get("stale") is False and forecast["as_of"] > newer_than
        return fresh and self.are_all_there() and self.is_up()


@contextmanager
def three_machines(rate: float, *, redis: bool = False) -> Iterator[ThreeMachines]:
    """Forecasts are served and asked for `rate` times a second when it is yielded. Nothing of it is left afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lstmc-net-")))
        wire = stack.enter_context(network([HEAD, WORKER, MT5]))
        behind = ",".join([*wire.addresses.values(), f"{SUBNET}.254"])
        served = {"LSTMC_HTTP_REPLICAS": "2", "LSTMC_TRUSTED_PROXIES": behind}
        made = ThreeMachines(folder, wire, redis, worker_flags=["--serve"], head_settings=served)
        stack.enter_context(_small_store(made))
        prepare(made, stack)
        if redis:
            made.start_redis()
        made.start(HEAD)
        until(lambda: "head started" in made.units[HEAD].said, 120, "the head has started")
        made.start(WORKER)
        until(lambda: "serve" in made.nodes().values(), 90, "the worker is there")
        made.start(MT5)  # the head waits for it, and has both machines for its replicas then
        await_forecasts(made)
        until(made.are_all_there, 90, "all three nodes are there")
        until(lambda: all(map(made.answers, made.proxies)), 60, "both machines serve")
        stack.enter_context(load(made, rate, stack.enter_context(_edge(made))))
        yield made


def prepare(made: ThreeMachines, stack: ExitStack) -> None:
    """Homes, tokens, and that nothing of it is left when `stack` ends."""
    TEMPORARY.mkdir(exist_ok=True)
    stack.callback(shutil.rmtree, TEMPORARY, ignore_errors=True)
    for name in made.wire.addresses:
        made.home(name).mkdir(exist_ok=True)
        made.temporary(name).mkdir()
    stack.callback(_end, made)
    for name in (HEAD, SWITCH):
        made.threads[name] = stack.enter_context(made.wire.thread(name))
    _share_token(made)


def await_forecasts(made: ThreeMachines, seconds: float = 240.0) -> None:
    """Until the head serves them to a client at the switch; ClusterError with every machine's last words."""
    try:
        until(lambda: "forecasts are served" in made.units[HEAD].said, seconds, "forecasts are served")
    except ClusterError as error:
        said = {name: unit.said[-1500:] for name, unit in made.units.items()}
        raise ClusterError(f"{error} {json.dumps(said, indent=1)}") from None
    (made.folder / "token").write_text(issue_token(made.settings, "load", days=1))
    until(made.forecast, 60, "a client at the switch is served")


def _share_token(made: ThreeMachines) -> None:
    """As docs/deployment.md says: the head's token is copied to the other machines. This process shows it, too."""
    from ray._private.authentication_test_utils import reset_auth_token_state

    ensure_secrets(make_settings(home=made.home(HEAD)))
    health.use_token(make_settings(home=made.home(HEAD)))
    reset_auth_token_state()  # Ray keeps the first token that a process has shown
    for name in set(made.wire.addresses) - {HEAD}:
        secret = made.home(name) / "secrets" / "ray_token"
        secret.parent.mkdir(mode=0o700)
        secret.write_text((made.home(HEAD) / "secrets" / "ray_token").read_text())


@contextmanager
def _small_store(made: ThreeMachines) -> Iterator[None]:
    """The bars lie on a file system of their own, which can be full or read-only."""
    path = str(make_settings(home=made.home(HEAD), market="simulated").bars_path)
    os.makedirs(path)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={STORE_BYTES}", "lstmc", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def _end(made: ThreeMachines) -> None:
    for name in sorted(made.units, key=lambda unit: (unit == "redis", unit == HEAD)):  # whoever asks before who answers
        made.units[name].end()
    stop(made.home(HEAD))
    for name in made.wire.addresses:
        end_processes([psutil.Process(pid) for pid in made.wire.pids(name) if psutil.pid_exists(pid)])


@contextmanager
def _edge(made: ThreeMachines) -> Iterator[Nginx]:
    """nginx at the switch, before every machine that serves."""
    nginx = Nginx(
        made.folder / "nginx", [url.removeprefix("http://") for url in made.proxies], rate=10_000, connections=1000
    )
    made.threads[SWITCH].submit(nginx.__enter__).result()
    try:
        yield nginx
    finally:
        made.threads[SWITCH].submit(nginx.__exit__, None, None, None).result()


@contextmanager
def load(made: ThreeMachines, rate: float, nginx: Nginx | None = None) -> Iterator[None]:
    """Through nginx, or to the head's HAProxy."""
    where = ["--url", nginx.url, "--ca", str(nginx.edge.certificate)] if nginx else ["--url", made.url]
    words = [*where, "--token", str(made.folder / "token"), "--rate", str(rate), "--forecasts"]
    command = made.wire.command(SWITCH, sys.executable, "-m", "benchmarks.http_load", *words)
    with made.load_file.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, env=shell(made.folder))
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)
