"""Which Python, Ray, numpy and pyarrow a node runs, and whether two nodes can talk: arrays and actors cross between them."""

from __future__ import annotations

import importlib.metadata
import platform

# Package -> how many parts of its version must agree. numpy 1's arrays cannot be read by numpy 2, nor the other way round.
AGREE = {"python": 2, "ray": 3, "numpy": 1}


def versions() -> dict[str, str]:
    """Of this process: {"python": "3.11.9", "ray": "2.60.0", "numpy": "2.1.3", "pyarrow": "26.0.0"}."""
    packages = {name: importlib.metadata.version(name) for name in ("ray", "numpy", "pyarrow")}
    return {"python": platform.python_version()} | packages


def mismatch(ours: dict[str, str], theirs: dict[str, str]) -> str:
    """What disagrees, as "numpy 2.1.3 here, 1.26.4 there"; empty when the two can work together."""
    wrong = [
        f"{name} {ours[name]} here, {theirs.get(name, 'none')} there"
        for name, parts in AGREE.items()
        if ours[name].split(".")[:parts] != theirs.get(name, "").split(".")[:parts]
    ]
    return "; ".join(wrong)
