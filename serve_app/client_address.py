"""Where a request comes from, when proxies stand in between. Knows neither tokens nor limits."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from starlette.types import Scope

UNKNOWN = "unknown"  # no socket: a test, or a server on a Unix socket
MOST_HOPS = 20  # of X-Forwarded-For, from the right; more is not looked at


class ClientAddress:
    """Finds the client behind `trusted` proxies (addresses or networks). With none, X-Forwarded-For is never read."""

    def __init__(self, trusted: Sequence[str] = ()) -> None:
        self._trusted = [ip_network(one) for one in trusted]

    def of(self, scope: Scope) -> str:
        """The right-most address that is no trusted proxy's; what stands left of it is the client's own invention."""
        peer = (scope.get("client") or (UNKNOWN,))[0]
        if not self._trusted or not self._is_trusted(peer):
            return peer
        nearest = peer
        for hop in reversed(_hops(scope)):
            if _parse(hop) is None:
                break  # a proxy of ours writes addresses only, so from here on it is not ours
            nearest = hop
            if not self._is_trusted(hop):
                break
        return nearest

    def _is_trusted(self, address: str) -> bool:
        found = _parse(address)
        return found is not None and any(found.version == net.version and found in net for net in self._trusted)


def _hops(scope: Scope) -> list[str]:
    lines = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return [hop.strip() for hop in ",".join(lines).rsplit(",", MOST_HOPS)[-MOST_HOPS:]]


def _parse(address: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(address.split("%")[0])
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found
