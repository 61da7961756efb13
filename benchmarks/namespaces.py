"""Machines that share this one's kernel: a Linux network namespace each, wired to one switch. Needs root and `ip`.

Everything, the switch too, is in namespaces of its own, so the machine's own network never sees it, and its firewall not
them. Knows nothing about what runs in them.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from market.errors import ClusterError

SUBNET = "10.213.77"
SWITCH = "switch"
CLONE_NEWNET = 0x40000000


class Network:
    """`addresses`: name of a machine -> its IPv4 address. A client sits at the switch."""

    def __init__(self, names: Sequence[str]) -> None:
        self.addresses = {name: f"{SUBNET}.{n}" for n, name in enumerate(names, start=1)}

    def command(self, name: str, *words: str) -> list[str]:
        """`words` as a command that runs on that machine, or at SWITCH."""
        return ["ip", "netns", "exec", _space(name), *words]

    def cut(self, name: str) -> None:
        """Pull its cable: its own addresses stay, no packet comes or goes."""
        ip("-n", _space(SWITCH), "link", "set", "dev", name, "down")

    def mend(self, name: str) -> None:
        ip("-n", _space(SWITCH), "link", "set", "dev", name, "up")

    def thread(self, name: str) -> ThreadPoolExecutor:
        """One thread whose sockets are that machine's. To be shut down by whoever asked for it."""
        return ThreadPoolExecutor(1, f"at {name}", initializer=_enter, initargs=(_space(name),))

    def pids(self, name: str) -> set[int]:
        return {int(word) for word in ip("netns", "pids", _space(name)).split()}


@contextmanager
def network(names: Sequence[str]) -> Iterator[Network]:
    """The wired machines; ClusterError with the kernel's own words where it gives no namespaces."""
    made, switch = Network(names), _space(SWITCH)
    with ExitStack() as stack:
        for space in (switch, *map(_space, names)):
            ip("netns", "add", space)
            stack.callback(ip, "netns", "delete", space)
            ip("-n", space, "link", "set", "lo", "up")
        ip("-n", switch, "link", "add", "name", "bridge", "type", "bridge")
        ip("-n", switch, "address", "add", f"{SUBNET}.254/24", "dev", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        for name, address in made.addresses.items():
            space = _space(name)
            ip("-n", switch, "link", "add", "name", name, "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("-n", switch, "link", "set", "dev", name, "master", "bridge", "up")
            ip("-n", space, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
            ip("-n", space, "route", "add", "default", "via", f"{SUBNET}.254")  # Ray finds its own address by it
        yield made


def refusal() -> str:
    """Why this machine gives no network namespaces; "" when it does."""
    try:
        with network(["probe"]):
            return ""
    except ClusterError as error:
        return str(error)


def _space(name: str) -> str:
    return f"lstmc-{os.getpid()}-{name}"  # two runs do not meet


def _enter(space: str) -> None:
    with Path("/run/netns", space).open() as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):  # os.setns from Python 3.12
            raise ClusterError(f"Not let into the namespace {space}: {os.strerror(ctypes.get_errno())}")


def ip(*words: str) -> str:
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True)
    except FileNotFoundError:
        raise ClusterError("There is no `ip` here.", hint="apt-get install iproute2") from None
    if done.returncode:
        hint = "Network namespaces need root and a kernel with veth and bridge."
        raise ClusterError(f"`ip {' '.join(words)}`: {done.stderr.strip()}", hint=hint)
    return done.stdout
