"""On which nodes the replicas of the HTTP side may be, as Ray's label selectors. Serve spreads them over those that are there.

Not strictly, which is Serve's `max_replicas_per_node`: with 1 the second replica of a single machine would never start, nor a
new version beside the old one.
"""

from __future__ import annotations

from collections.abc import Collection

from configs.settings import LOOPBACK, Settings

WHERE_THE_HOME_IS = {"role": "!in(mt5,train)"}  # a node that only trains has not the home, either
ON_THE_HEAD = {"role": "head"}
OFF_THE_HEAD = {"role": "serve"}


def of_replicas(settings: Settings) -> dict[str, str]:
    # HAProxy is on the head and speaks to replicas over the network, where loopback ends at the machine.
    if settings.serve_proxy == "haproxy" and settings.client_host in LOOPBACK:
        return ON_THE_HEAD
    return OFF_THE_HEAD if settings.http_nodes == "serve" else WHERE_THE_HOME_IS


def awaited_machine(settings: Settings, roles: Collection[str]) -> str:
    """Which node replicas wait for, `roles` being those of the nodes that are there; "" when they need not wait."""
    selector = of_replicas(settings)
    if selector == OFF_THE_HEAD and OFF_THE_HEAD["role"] not in roles:
        return "a machine that serves: `lstmc node worker --start --serve` there, or LSTMC_HTTP_NODES=all"
    return ""
