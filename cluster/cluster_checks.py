"""What is right and what is wrong about a head or a Linux worker, as functions of what was looked up.

Each returns (ok, found, fix). Looks nothing up itself; that is `doctor`'s part. What cannot be known is said and not bad.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from mt5_actor_windows.node_checks import Finding
from mt5_actor_windows.versions import mismatch

MAX_CLOCK_SECONDS = 2.0  # a bar is believed two seconds after its close
MIN_STORE_MB = 20.0  # a commit of bars is far smaller; how much a home wants is said by the check `disk`
SAME_CODE = "Bring it to the head's commit, run `make install` there, start its node again."
NTP = "`timedatectl set-ntp true` (Linux), `w32tm /resync /force` (Windows)"

Answers = Sequence[Mapping[str, Any]]  # of `node_answers`


def fingerprint(token: str) -> str:
    """Enough to compare a token by eye, nothing to guess it from."""
    return f"present, SHA-256 begins {hashlib.sha256(token.encode()).hexdigest()[:8]}"


def kernel_clock(seconds: float | None) -> Finding:
    """`seconds`: how far off the kernel says its clock may be; None when nobody has told it the time."""
    if seconds is None:
        return True, "not known: no time service has told the kernel; `timedatectl set-ntp true` starts one", ""
    return True, f"kept by a time service, at most {seconds:.2f} s off", ""


def gpu(names: Sequence[str] | None) -> Finding:
    """`names`: of the devices that PyTorch sees; None: PyTorch cannot be asked."""
    if names is None:
        return True, "not known: PyTorch cannot be imported", ""
    return True, ", ".join(names) or "none that PyTorch sees: nets are trained on the CPU", ""


# -- A cluster that runs here


def nodes(answers: Answers) -> Finding:
    """Whether each living node answers a call: the way there and, in the answer, the way back."""
    silent = [f"{one['node']}: {one['error']}" for one in answers if "error" in one]
    fix = "Is the head let in there on all ports of the tunnel? See <home>/logs/ray_node.log of that machine."
    return not silent, "; ".join(silent) or f"{', '.join(one['node'] for one in answers)} answer", fix


def node_versions(ours: dict[str, str], answers: Answers) -> Finding:
    found = {one["node"]: mismatch(ours, dict(one["versions"])) for one in answers if "versions" in one}
    wrong = [f"{node}: {text}" for node, text in found.items() if text]
    return not wrong, "; ".join(wrong) or f"Ray {ours['ray']}, Python {ours['python']} and what fits on all", SAME_CODE


def node_clocks(answers: Answers) -> Finding:
    """Against this machine's clock."""
    measured = [one for one in answers if "ahead" in one]
    found = ", ".join(_offset(one["node"], one) for one in measured) or "not known: no node answered"
    fix = f"There, or here when all are off by the same: {NTP}."
    return not any(map(_is_off, measured)), found, fix


def _offset(who: str, one: Mapping[str, Any]) -> str:
    return f"{who} {one['ahead']:+.2f} s (to {one['within']:.2f} s)"


def _is_off(one: Mapping[str, Any]) -> bool:
    """Surely, whatever the round trip."""
    return bool(abs(one["ahead"]) - one["within"] > MAX_CLOCK_SECONDS)


def terminal(market: str, sources: Mapping[str, Mapping[str, Any]] | None) -> Finding:
    """`sources`: what each way to the terminal says, by its name; None: none was asked, since the cluster does not run."""
    if sources is None:
        return True, f"{market} market; not asked, since the cluster does not run", ""
    bad: list[str] = []
    well: list[str] = []
    for name, said in sources.items():
        why = said.get("error") or ("" if said.get("connected") else said.get("reason") or "not connected")
        kind, server = "simulated" if said.get("simulated") else "real", said.get("server")
        (bad if why else well).append(f"{name}: {why or f'a {kind} terminal answers, server {server}'}")
    hint = next((str(said["hint"]) for said in sources.values() if said.get("hint")), "")
    fix = hint or "Run the doctor on the terminal's host: `python -m mt5_actor_windows.doctor` or doctor.ps1."
    return not bad, f"{market} market; {'; '.join(bad + well)}", fix


# -- A cluster that this machine shall join


def head(host: str, port: int, connects: Callable[[str, int], bool]) -> Finding:
    fix = "Is the cluster up there with --head-host, the tunnel connected, its firewall open for this machine?"
    ok = connects(host, port)
    return ok, f"{host}:{port} {'answers' if ok else 'cannot be reached'}", fix


def joining_versions(ours: Mapping[str, str], cluster: Mapping[str, str]) -> Finding:
    """Ray's own rule: a node with another Ray, or another Python to the last digit, ends as it starts."""
    words = ("Ray {ray} on Python {python}".format_map(one) for one in (cluster, ours))
    there, here = words
    fix = f"Make the environment with Python {cluster['python']}: `make PYTHON=... install` of the head's commit."
    return there == here, there if there == here else f"the cluster runs {there}, this machine {here}", fix


def head_ports(nodes: Answers, connects: Callable[[str, int], bool]) -> Finding:
    """Ports of the nodes' raylets and object stores: a node that cannot reach them is dead after a minute."""
    wanted = [(one, port) for one in nodes for port in one["ports"]]
    with ThreadPoolExecutor(16) as pool:
        reached = list(pool.map(lambda pair: connects(pair[0]["address"], pair[1]), wanted))
    closed = [f"{one['node']}:{port}" for (one, port), ok in zip(wanted, reached, strict=True) if not ok]
    found = f"closed: {', '.join(closed)}" if closed else f"all {len(wanted)} of {len(nodes)} nodes answer"
    fix = "Let this machine's tunnel address in on all TCP ports there."
    if any(one["address"].startswith("127.") for one in nodes):
        fix = "The head is on loopback, so nobody else reaches it: start it with `lstmc up --head-host ADDR`."
    return not closed, found, fix


def head_clock(offset: Mapping[str, float] | None) -> Finding:
    """`offset`: by the HTTP Date of the head's metrics; None where it gave none."""
    if offset is None:
        return True, "not known: the head's metrics port told no time", ""
    return not _is_off(offset), _offset("the head's is", offset), f"Here or on the head: {NTP}."


# -- Storage


def storage(folders: Mapping[str, Path], free_bytes: Callable[[Path], int]) -> Finding:
    """`folders`: what lies there -> where. One that is not there yet is tried where it would be made."""
    bad: list[str] = []
    well: list[str] = []
    for name, folder in folders.items():
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = free_bytes(there) / 1e6
        why = f"only {free:.0f} MB free" if free < MIN_STORE_MB else refusal(there)
        words = f"{name} in {there}" if there == folder else f"{name}, not there yet, in {there}"
        (bad if why else well).append(f"{words}: {why or f'{free / 1000:.1f} GB free'}")
    fix = "A local disk or a share with exclusive creation, hard links, locks and renaming, writable for this user."
    return not bad, "; ".join(bad or well), fix


def refusal(folder: Path) -> str:
    """Which of the things that bar store and registry ask of a file system it refuses, "" when none. Leaves nothing there."""
    first, second = (folder / f".doctor-{uuid.uuid4().hex}" for _ in range(2))
    step = "creating a file exclusively"
    try:
        with first.open("xb") as file:
            step = "locking it"
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            step = "writing it"
            file.write(b"lstmc")
            file.flush()
            os.fsync(file.fileno())
        step = "a hard link"
        os.link(first, second)
        first.unlink()
        step = "renaming it"
        second.replace(first)
        step = "reading it back"
        if first.read_bytes() != b"lstmc":
            return "what is read is not what was written"
        step = "removing it"
        first.unlink()
    except OSError as error:
        return f"{step} fails: {error.strerror or error}"
    finally:
        for path in (first, second):
            with suppress(OSError):  # a read-only file system refuses this, too, whatever is there
                path.unlink()
    return ""
