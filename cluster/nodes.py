"""Ray's processes on this machine: the head and the second raylet that plays the Windows node. Starts them, ends exactly
them. Knows nothing about actors, bars or models.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import random
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import psutil

from cluster.head_state import redis_environment, redis_flags
from cluster.run_record import NODE_VARIABLE, RUN_VARIABLE, Run, Started, members, read_run, write_run
from cluster.serve_environment import REPLICA_PORTS, UNTRUSTED, serve_environment
from configs.ray_traces import RAY_LOG_LIMITS, RAY_MEMORY_LIMITS
from configs.settings import ROOT, Settings
from market.errors import ClusterError, PortInUse

HEAD_MEMORY = 300 * 1024**2  # bytes of object store; bars and models are small
MT5_MEMORY = 80 * 1024**2
OUR_PORTS = range(20_000, 30_000)
EPHEMERAL_PORTS = 32_768  # from here on the system takes ports of its own accord
NODE_HELPERS = (
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
    "runtime-env-agent-port",
)
HEAD_HELPERS = (*NODE_HELPERS, "ray-client-server-port")
PORT_FLAGS = {
    "port": "--port",
    "dashboard_port": "--dashboard-port",
    "data_api_port": "--data-api-port",
    "head_port": "--head-port",
}
PORT_USES = {
    "port": "the HTTP API",
    "dashboard_port": "the Ray dashboard",
    "data_api_port": "the MT5 data API",
    "head_port": "the Ray head",
}


def temp_dir(home: Path) -> Path:
    """Ray's session folder: short, since unix socket paths end at 107 characters, and one per home."""
    uid = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    return Path(tempfile.gettempdir()) / f"lstmc-{uid}-{hashlib.sha256(str(home).encode()).hexdigest()[:8]}"


def mt5_temp_dir(run: Run) -> Path:
    """Of the second raylet on the head's machine; removed together with the head's."""
    return Path(run.temp_dir) / "mt5"


def auth_environment(settings: Settings) -> dict[str, str]:
    """What a process needs to talk to this cluster."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": settings.secret("ray_token").get_secret_value()}


def ray_environment(settings: Settings, run_id: str, node: str) -> dict[str, str]:
    """The environment of a node's raylet; its workers, actors and jobs inherit it."""
    venv_bin = str(Path(sys.executable).parent)
    old_path = os.environ.get("PYTHONPATH")
    return (
        {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        | auth_environment(settings)
        | RAY_LOG_LIMITS
        | RAY_MEMORY_LIMITS
        | {
            RUN_VARIABLE: run_id,
            NODE_VARIABLE: node,
            "LSTMC_HOME": str(settings.home_path),
            "PATH": os.pathsep.join([venv_bin, os.environ.get("PATH", os.defpath)]),  # `python` in a job is ours
            "PYTHONPATH": os.pathsep.join([str(ROOT), *([old_path] if old_path else [])]),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",  # serving and training share few cores
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",  # Ray's 15 starves Serve beside any ordinary process
            "RAY_health_check_period_ms": "1000",  # a dead node is seen after seconds, not a quarter of a minute
            "RAY_health_check_timeout_ms": "5000",
            "RAY_health_check_failure_threshold": "3",
            **UNTRUSTED,
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "DASHBOARD_METRIC_PORT": str(free_ports(1)[0]),
        }
        | serve_environment(settings, temp_dir(settings.home_path), serve_ports())
    )


def serve_ports() -> tuple[int, int, int, int]:
    """Three free ones, and the first of a run of ports for replicas; those pass over one that is taken."""
    statistics, metrics, fallback = free_ports(3)
    return statistics, metrics, fallback, random.randrange(OUR_PORTS.stop, EPHEMERAL_PORTS - REPLICA_PORTS)


def free_ports(count: int, avoid: Collection[int] = ()) -> list[int]:
    """Distinct ports that nobody listens on, below the range from which the system takes ports of its own accord."""
    candidates = random.sample(OUR_PORTS, len(OUR_PORTS))
    return list(islice((port for port in candidates if port not in avoid and not _busy(port)), count))


def listens(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0


def check_ports(settings: Settings) -> None:
    """PortInUse for the first of our ports that somebody listens on, or two settings with one port. Before anything starts."""
    taken: dict[int, str] = {}
    for name, flag in PORT_FLAGS.items():
        if name == "data_api_port" and not settings.plays_terminal:
            continue  # on the terminal's host, which may be this machine
        port = getattr(settings, name)
        if port in taken:
            raise PortInUse(
                f"Port {port} is set for both {PORT_USES[taken[port]]} and {PORT_USES[name]}.",
                hint=f"Move one with `lstmc up {flag} N`.",
            )
        taken[port] = name
        if _busy(port):
            who = _listener(port)
            raise PortInUse(
                f"Port {port} ({PORT_USES[name]}) is in use{f' by {who}' if who else ''}.",
                hint=f"Stop that program, or move ours with `lstmc up {flag} {_next_free(port)}`.",
            )


def _busy(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT is not a listener
        try:
            listener.bind(("0.0.0.0", port))
            return False
        except OSError:
            return True


def _next_free(port: int) -> int:
    return next((p for p in range(port + 1, min(port + 200, 65536)) if not _busy(p)), free_ports(1)[0])


def _listener(port: int) -> str:
    """`name (pid N)` of who listens on the port, empty when the system will not tell."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if (
                connection.laddr
                and connection.laddr.port == port
                and connection.status == psutil.CONN_LISTEN
                and connection.pid
            ):
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return ""


def gcs_address(settings: Settings) -> str:
    """HOST:PORT that nodes and drivers join."""
    return f"{settings.head_host}:{settings.head_port}"


def head_command(settings: Settings, cores: int, ports: Mapping[str, int]) -> list[str]:
    """`ports`: of Ray's own helpers, see `helper_ports`."""
    return [
        "ray", "start", "--head", "--block", f"--port={settings.head_port}", f"--temp-dir={temp_dir(settings.home_path)}",
        f"--node-ip-address={settings.head_host}", f"--dashboard-host={settings.dashboard_host}", f"--dashboard-port={settings.dashboard_port}",
        f"--num-cpus={max(2, cores)}", "--labels=role=head,os=linux", f"--object-store-memory={HEAD_MEMORY}",
        *_port_flags(ports), "--disable-usage-stats", *redis_flags(settings),
    ]  # fmt: skip


def mt5_command(gcs_address: str, temp_dir: Path, ports: Mapping[str, int]) -> list[str]:
    """`ray start` of the node that holds the terminal: the `mt5` resource, zero CPUs so that nothing else lands there.

    `temp_dir` is its own, never the head's: with a shared one it would unpack a job's code anew, in place of the
    folder in which the job is running already, and whatever looks for its working directory there dies (MKL does).
    """
    return [
        "ray", "start", "--block", f"--address={gcs_address}", f"--temp-dir={temp_dir}", "--num-cpus=0", "--num-gpus=0", '--resources={"mt5": 1}',
        "--labels=role=mt5,os=linux", f"--object-store-memory={MT5_MEMORY}", *_port_flags(ports),
    ]  # fmt: skip


def helper_ports(names: Sequence[str], avoid: Collection[int] = ()) -> dict[str, int]:
    """A port for each of Ray's helpers: its fixed defaults collide when two raylets share a machine."""
    return dict(zip(names, free_ports(len(names), avoid), strict=True))


def _port_flags(ports: Mapping[str, int]) -> list[str]:
    return [f"--{name}={port}" for name, port in ports.items()] + ["--min-worker-port=0", "--max-worker-port=0"]


def spawn(command: Sequence[str], environment: dict[str, str], log: Path) -> Started:
    log.parent.mkdir(parents=True, exist_ok=True)
    program = str(Path(sys.executable).parent / command[0])
    with log.open("ab") as output:
        child = subprocess.Popen(  # its own session: Ctrl-C at the terminal reaches us only, and we end it in order
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd=ROOT,
            start_new_session=True,
        )
    started = Started.of(child.pid)
    child.returncode = 0  # it outlives us and is followed by pid: Popen shall not complain that it still runs
    return started


def new_run(settings: Settings) -> Run:
    before = read_run(settings.home_path)
    return Run(
        cold_s=before.cold_s if before else None,
        run_id=uuid.uuid4().hex,
        state="starting",
        temp_dir=str(temp_dir(settings.home_path)),
        ports={name: getattr(settings, name) for name in PORT_FLAGS},
        started_at=time.time(),
    )


def start_head(settings: Settings) -> Run:
    """Start the head and wait until its control store answers; ClusterError shows the end of its log otherwise."""
    run = new_run(settings)
    shutil.rmtree(run.temp_dir, ignore_errors=True)  # a dead session's sockets and `ray_current_cluster`
    home = settings.home_path
    log = home / "logs" / "head.log"
    helpers = helper_ports(HEAD_HELPERS, run.ports.values())
    helpers |= {"metrics-export-port": settings.metrics_port} if settings.metrics_port else {}
    run = replace(run, ports=run.ports | {f"head {name}": port for name, port in helpers.items()})
    command = head_command(settings, os.cpu_count() or 2, helpers)
    head = spawn(command, ray_environment(settings, run.run_id, "head") | redis_environment(settings), log)
    run = run.with_process("head", head)
    write_run(home, run)
    wait(lambda: listens(settings.head_port, settings.head_host), head, log, "The Ray head did not start")
    return run


def start_mt5_node(settings: Settings, run: Run) -> Run:
    """Start the second raylet of a running head, which plays the terminal's host. Returns before it has joined: see `bootstrap`."""
    home = settings.home_path
    environment = ray_environment(settings, run.run_id, "mt5")
    ports = helper_ports(NODE_HELPERS, run.ports.values())
    command = mt5_command(gcs_address(settings), mt5_temp_dir(run), ports)
    node = spawn(command, environment, home / "logs" / "mt5_node.log")
    run = run.with_process("mt5", node)
    write_run(home, run)
    return run


def wait(ready: Callable[[], bool], started: Started, log: Path, what: str, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if started.process() is None:
            raise ClusterError(f"{what}: {last_lines(log)}", hint=f"The whole log: {log}")
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} within {seconds:.0f} s.", hint=f"See {log}")
        time.sleep(0.1)


def last_lines(log: Path, n: int = 5) -> str:
    """The last `n` non-empty lines of a log, joined."""
    lines = (
        [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    )
    return " | ".join(lines[-n:]) or "its log is empty"


def stop(home: Path) -> int:
    """End every process of the recorded run, then remove Ray's session folder. Returns how many ended; 0 when none ran."""
    run = read_run(home)
    if run is None:
        return 0
    ended = end_processes(members(run))
    ended += end_processes(members(run))  # whoever was born meanwhile
    shutil.rmtree(run.temp_dir, ignore_errors=True)
    write_run(home, replace(run, state="down", processes={}))
    return ended


def stop_node(run: Run, name: str) -> int:
    """End what is left of one node."""
    return end_processes(members(run, name))


def end_processes(processes: Sequence[psutil.Process], patience: float = 2.0) -> int:
    """TERM, then KILL whoever is still there after `patience` seconds: store, ledger and registry survive a KILL."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=patience)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=10)
    return len(processes)


def shell_exports(settings: Settings) -> str:
    """Lines a shell can eval so that `ray` commands reach this cluster."""
    token = settings.home_path / "secrets" / "ray_token"
    return f'export RAY_AUTH_MODE=token RAY_AUTH_TOKEN="$(cat {token})" RAY_ADDRESS=http://127.0.0.1:{settings.dashboard_port}'


def worker_command(
    gcs_address: str, address: str | None = None, temp_dir: Path | None = None, *, serve: bool = False
) -> list[str]:
    """`ray start` of a further node that trains. `address`: its own as the head reaches it; None: Ray finds one. `serve`: it
    has the head's home at the same path, too, and HTTP replicas may be there."""
    return [
        "ray", "start", "--block", f"--address={gcs_address}", *([f"--node-ip-address={address}"] if address else []),
        *([f"--temp-dir={temp_dir}"] if temp_dir else []), f"--labels=role={'serve' if serve else 'train'},os=linux",
    ]  # fmt: skip


def node_plan(
    kind: str, settings: Settings, head_host: str, address: str | None = None, *, serve: bool = False
) -> list[str]:
    """The commands that make another machine a node of this cluster. `kind`: head | worker | windows.

    `address`: that machine's own; None: it is found there, by the route to the head. `serve`: of a worker, see worker_command.
    """
    where = f"{head_host}:{settings.head_port}"
    if kind == "windows":
        return windows_plan(where, address, windows_secrets(settings))
    token = "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=<the token, from the head's secrets/ray_token>"
    if kind == "head":
        return [
            token,
            f"ray start --head --block --port={settings.head_port} --dashboard-host=127.0.0.1 --dashboard-port={settings.dashboard_port} --labels=role=head,os=linux",
        ]
    if serve:  # what its HAProxy has to know is more than a line
        own = ["--address", address or "<this machine's own>"]
        return [
            token,
            shlex.join([".venv/bin/lstmc", "node", "worker", "--start", "--serve", "--host", head_host, *own]),
        ]
    return [token, shlex.join(worker_command(where, address))]


def windows_plan(head: str, address: str | None, secrets: tuple[str, str]) -> list[str]:
    """PowerShell, for an administrator's window in the repository's folder. `secrets`: Ray's token, digest of the API key."""
    token, digest = secrets
    own = f" -Address {address}" if address else ""
    install = r".\mt5_actor_windows\install"
    return [
        "Set-ExecutionPolicy -Scope Process Bypass -Force",
        "Set-PSReadLineOption -HistorySaveStyle SaveNothing",  # the next line holds a secret
        f"{install}\\install.ps1 -Head {head}{own} -RayToken '{token}' -DataApiKeyDigest {digest}",
        f"{install}\\doctor.ps1",
    ]


def windows_secrets(settings: Settings) -> tuple[str, str]:
    """Ray's token and the SHA-256 of the data API's key: the Windows host never sees the key itself. ConfigError without them."""
    token, key = (settings.secret(name).get_secret_value() for name in ("ray_token", "data_api_key"))
    return token, hashlib.sha256(key.encode()).hexdigest()


def outward_address() -> str:
    """The address from which this machine reaches others; nothing is sent. Loopback when it reaches none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # reserved for examples, so nobody's
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
