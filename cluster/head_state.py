"""Where the head keeps what it knows of nodes, jobs and actors: its own memory, or a Redis that outlives it.

In Redis it survives a crash. A head that is ended on purpose forgets it: the next one may have other settings and code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from configs.settings import Settings
from market.errors import ConfigError


def redis_flags(settings: Settings) -> list[str]:
    """For `ray start --head`, which takes the password nowhere else."""
    password = settings.redis_password if settings.redis_address else None
    return [f"--redis-password={password.get_secret_value()}"] if password else []


def redis_environment(settings: Settings) -> dict[str, str]:
    """Of the head's processes; nodes wait ten minutes for a head that is away."""
    if settings.redis_address is None:
        return {}
    return {
        "RAY_REDIS_ADDRESS": settings.redis_address,
        "RAY_external_storage_namespace": _namespace(settings),
        "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
    }


def forget(settings: Settings) -> None:
    """Once the head is ended. ConfigError for an address without a port."""
    if settings.redis_address is None:
        return
    host, _, port = settings.redis_address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"redis_address {settings.redis_address!r} is no HOST:PORT.", hint="As 10.8.0.1:6379.")
    from ray._private.gcs_utils import cleanup_redis_storage  # what KubeRay calls when a cluster is deleted

    password = settings.redis_password
    cleanup_redis_storage(host, int(port), password.get_secret_value() if password else "", False, _namespace(settings))


def has_ghosts(nodes: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a head that has just come back still takes the nodes that died with the old one for living ones."""
    roles = [node["Labels"].get("role") for node in nodes if node["Alive"]]
    return roles.count("head") != 1 or roles.count("mt5") > 1


def _namespace(settings: Settings) -> str:
    """Two installations may share a Redis."""
    return f"lstmc-{hashlib.sha256(str(settings.home_path).encode()).hexdigest()[:8]}"
