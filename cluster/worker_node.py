"""Keeps this Linux machine in the cluster as a node that trains: its Ray node, started again whenever it ends.

Does not know what is trained.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from cluster.attach import heed_stop_signals
from cluster.nodes import serve_ports, temp_dir, worker_command
from cluster.serve_environment import UNTRUSTED, serve_environment
from configs.ray_traces import RAY_LOG_LIMITS, sweep
from configs.settings import ROOT, make_settings
from mt5_actor_windows.kept_program import KeptProgram
from mt5_actor_windows.node import RAY_START_SECONDS, STEP_SECONDS, ray_token, say
from mt5_actor_windows.program_tree import ProgramTree


def worker_environment(home: Path, *, serve: bool = False) -> dict[str, str]:
    """Of the Ray node, its tasks and, where it serves, its HAProxy. ConfigError without a token in RAY_AUTH_TOKEN or
    `<home>/secrets/ray_token`."""
    venv_bin = str(Path(sys.executable).parent)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | RAY_LOG_LIMITS
    if serve:
        kept |= UNTRUSTED | serve_environment(make_settings(home=home), temp_dir(home), serve_ports())
    return kept | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": ray_token(home),
        "PATH": os.pathsep.join([venv_bin, os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": "1",
        "RAY_worker_niceness": "0",  # Ray's 15 would starve a replica; training is nice of its own accord
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "600",  # a head whose state is in Redis comes back
    }


def keep(head: str, address: str, home: Path, *, serve: bool = False) -> None:
    """Until Ctrl-C or TERM. `head`: HOST:PORT; `address`: this machine's own; `home`: of the token and the logs, its own;
    `serve`: HTTP replicas may be here, since the head's home is at the same path here as there."""
    heed_stop_signals()
    ray, *words = worker_command(head, address, temp_dir(home), serve=serve)
    command, environment = [str(Path(sys.executable).parent / ray), *words], worker_environment(home, serve=serve)
    log, record = home / "logs" / "ray_node.log", home / "ray_node.processes.json"

    def start() -> ProgramTree:
        sweep(
            temp_dir(home) / "session_latest", time.time(), others=True
        )  # what earlier heads' sessions have left here
        return ProgramTree(command, environment, log, lambda line: "Ray runtime started" in line, record, "raylet")

    node = KeptProgram("the Ray node", start, say, start_seconds=RAY_START_SECONDS)
    try:
        while True:
            node.step()
            time.sleep(STEP_SECONDS)
    except KeyboardInterrupt:
        pass
    finally:
        node.end()
