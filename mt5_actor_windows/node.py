"""Keeps the terminal's host in the cluster: its Ray node and, beside it, the data API, each started again when it ends.

`python -m mt5_actor_windows.node --head 10.8.0.1:6379 --address 10.8.0.2`, as the user who runs the terminal. Does not
know bars or terminals; what it starts does.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from configs.ray_traces import RAY_LOG_LIMITS
from market.errors import ConfigError, LstmcError
from mt5_actor_windows import node_ports
from mt5_actor_windows.kept_program import KeptProgram
from mt5_actor_windows.program_tree import ProgramTree

ROOT = Path(__file__).resolve().parent.parent
APART = "LSTMC_DATA_API_APART"  # set for the Ray node: the data API runs beside it, the actor shall not open its port
OBJECT_STORE_BYTES = 200_000_000  # bars are small, and Windows must be able to commit it (error 1455 otherwise)
RAY_START_SECONDS = 75.0  # the raylet gives its agent 15 s, then `ray start` hangs for minutes: it is started again
API_START_SECONDS = 60.0
STEP_SECONDS = 1.0
WARM_SECONDS = 300.0
WARM = "import ray, ray._private.log_monitor, ray.dashboard.agent, ray._private.runtime_env.agent.main, actors.handles"
TEMP_DIR = r"C:\rt" if sys.platform == "win32" else None  # short: Ray's own default is longer than its paths may be


def ray_command(head: str, address: str, temp_dir: str | None = TEMP_DIR, port_shift: int = 0) -> list[str]:
    """`ray start` of the node that holds the terminal: zero CPUs, the resource `mt5`, ports that a firewall can name."""
    low, high = node_ports.WORKERS
    ports = {
        "node-manager-port": node_ports.NODE_MANAGER,
        "object-manager-port": node_ports.OBJECT_MANAGER,
        "dashboard-agent-listen-port": node_ports.AGENT_LISTEN,
        "dashboard-agent-grpc-port": node_ports.AGENT_GRPC,
        "metrics-export-port": node_ports.METRICS,
        "min-worker-port": low,
        "max-worker-port": high,
    }
    system = "windows" if sys.platform == "win32" else "linux"
    return [
        sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={head}", f"--node-ip-address={address}",
        "--num-cpus=0", "--num-gpus=0", '--resources={"mt5": 1}', f"--labels=role=mt5,os={system}",
        f"--object-store-memory={OBJECT_STORE_BYTES}", *(f"--{name}={port + port_shift}" for name, port in ports.items()),
        *([f"--temp-dir={temp_dir}"] if temp_dir else []), "--include-log-monitor=false", "--block", "--log-style=record", "--log-color=false",
    ]  # fmt: skip


def ray_environment(home: Path, *, apart: bool) -> dict[str, str]:
    """For the Ray node and its workers. ConfigError without a token: the head would refuse the node again and again."""
    kept = {name: value for name, value in _environment(home).items() if name != APART}
    return kept | ({APART: "1"} if apart else {}) | {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",  # unofficial there, so it must be asked for
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": ray_token(home),
        "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor",  # 3.11.x here and there need not be the same x
        "RAY_USAGE_STATS_ENABLED": "0",
        **RAY_LOG_LIMITS,
    }  # fmt: skip


def _environment(home: Path) -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"LSTMC_HOME": str(home), "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}


def ray_token(home: Path) -> str:
    """From RAY_AUTH_TOKEN, else `<home>/secrets/ray_token`."""
    path = home / "secrets" / "ray_token"
    token = os.environ.get("RAY_AUTH_TOKEN") or (path.read_text().strip() if path.is_file() else "")
    if not token:
        raise ConfigError(
            f"There is no Ray token: RAY_AUTH_TOKEN is not set and {path} is missing or empty.",
            hint="Copy the head's secrets/ray_token there; `lstmc node windows --print` on the head shows it.",
        )
    return token


def programs(options: argparse.Namespace, home: Path, say: Callable[[str], None]) -> list[KeptProgram]:
    """What is to be kept running, by the command line's options."""
    logs, kept = home / "logs", []

    def tree(
        name: str, command: list[str], environment: dict[str, str], up: str, vital: str = ""
    ) -> Callable[[], ProgramTree]:
        log, record = logs / f"{name}.log", home / f"{name}.processes.json"
        return lambda: ProgramTree(command, environment, log, lambda line: up in line, record, vital)

    if not options.no_ray:
        command = ray_command(options.head, options.address, options.temp_dir, options.port_shift)
        environment = ray_environment(home, apart=not options.no_data_api)
        start = tree("ray_node", command, environment, "Ray runtime started", vital="raylet")
        kept.append(KeptProgram("the Ray node", start, say, start_seconds=RAY_START_SECONDS))
    if not options.no_data_api:
        command = [sys.executable, "-m", "mt5_actor_windows.data_api", "--market", "mt5", "--home", str(home), "--json"]
        command += ["--host", options.address, "--port", str(options.data_api_port)]
        start = tree("data_api", command, _environment(home), '"url"')
        kept.append(KeptProgram("the data API", start, say, start_seconds=API_START_SECONDS))
    return kept


def warm_up(home: Path, say: Callable[[str], None]) -> None:
    """Import once what the raylet's helpers import, so that their files are cached and scanned before its 15 s begin."""
    began = time.monotonic()
    try:
        subprocess.run(
            [sys.executable, "-c", WARM],
            env=_environment(home),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=WARM_SECONDS,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        last = (error.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise ConfigError(f"Ray cannot be imported here: {last}", hint="Run install.ps1 again.") from None
    except subprocess.TimeoutExpired:
        say(f"importing Ray takes more than {WARM_SECONDS:.0f} s: is a virus scanner at work on the environment?")
        return
    say(f"imported Ray in {time.monotonic() - began:.0f} s")


def step_all(kept: Sequence[KeptProgram]) -> None:
    """One step each; a program waits while one before it comes up for the first time, so as not to slow it down."""
    for program in kept:
        program.step()
        if program.is_first_start:
            return


def say(text: str) -> None:
    print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text}", flush=True)


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    example = "example: python -m mt5_actor_windows.node --head 10.8.0.1:6379 --address 10.8.0.2"
    parser = argparse.ArgumentParser(prog="python -m mt5_actor_windows.node", description=__doc__, epilog=example)
    parser.add_argument("--head", help="HOST:PORT of the cluster's head; needed unless --no-ray")
    parser.add_argument("--address", default="127.0.0.1", help="this host's address as the head sees it")
    parser.add_argument("--home", help="folder of secrets and logs; default: LSTMC_HOME, else .lstmc in the repository")
    parser.add_argument("--data-api-port", type=int, default=node_ports.DATA_API)
    parser.add_argument("--temp-dir", default=TEMP_DIR, help="Ray's session folder")
    parser.add_argument("--no-ray", action="store_true", help="a host that cannot join: the data API only")
    parser.add_argument("--no-data-api", action="store_true", help="the Ray node only")
    parser.add_argument("--port-shift", type=int, default=0, help="added to Ray's ports where others hold them")
    return parser.parse_args(argv)


def _checked(options: argparse.Namespace) -> None:
    if options.no_ray and options.no_data_api:
        raise ConfigError("--no-ray and --no-data-api together leave nothing to run.", hint="Give one of them.")
    host, _, port = (options.head or "").rpartition(":")
    if not options.no_ray and not (host and port.isdigit()):
        raise ConfigError(f"--head {options.head!r} is not HOST:PORT.", hint="For example --head 10.8.0.1:6379.")


def main(argv: Sequence[str] | None = None) -> int:
    options = _parsed(argv)
    home = Path(options.home or os.environ.get("LSTMC_HOME") or ROOT / ".lstmc").expanduser().resolve()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a supervisor above us ends us as Ctrl-C does
    kept: list[KeptProgram] = []
    try:
        _checked(options)
        kept += programs(options, home, say)
        if not options.no_ray:
            warm_up(home, say)
        while True:
            step_all(kept)
            time.sleep(STEP_SECONDS)
    except LstmcError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    finally:
        for program in kept:
            program.end()


if __name__ == "__main__":
    raise SystemExit(main())
