"""Where units of work run: other processes of this machine, or the Ray cluster. The only file of tuning that imports Ray.

`run_units(function, arguments)` yields results in the order of `arguments`. Functions are top-level, arguments numpy.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from market.errors import NotRunning

Unit = Callable[..., Any]
RunUnits = Callable[[Unit, Sequence[tuple[Any, ...]]], Iterator[Any]]

NICENESS = 10  # training steps back for serving
SHARED_BYTES = 64 * 1024
MAX_RETRIES = 2  # a unit is pure: when its worker dies it runs again elsewhere
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def process_pool(workers: int) -> Iterator[RunUnits | None]:
    """A run_units over `workers` fresh processes with one thread each; None (run here) for a single worker."""
    if workers <= 1:
        yield None
        return
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))  # inherited; too late once the child has imported numpy
    try:
        with ProcessPoolExecutor(
            workers, mp_context=multiprocessing.get_context("spawn"), initializer=be_modest
        ) as pool:
            yield lambda function, arguments: pool.map(_call, [function] * len(arguments), arguments)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _call(function: Unit, arguments: tuple[Any, ...]) -> Any:
    return function(*arguments)


@contextmanager
def cluster() -> Iterator[None]:
    """Joined to the running Ray cluster, as a job or from this machine. NotRunning when there is none."""
    import ray

    try:
        ray.init(address="auto", namespace="lstmc", logging_level="warning")
    except ConnectionError:
        raise NotRunning(
            "There is no Ray cluster here.", hint="Start one with `lstmc up`, or train in this process with --local."
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def run_units_on_ray(function: Unit, arguments: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    """Each unit is a Ray task of one CPU, on any node but the terminal's; results in order.

    An argument that several units share, or a large array, goes to the object store once and is read in place there.
    Needs ray.init; a unit's own exception is raised here and the rest is cancelled.
    """
    import ray

    task = ray.remote(run_modestly).options(
        num_cpus=1, max_retries=MAX_RETRIES, label_selector={"role": "!mt5"}, name=getattr(function, "__name__", "unit")
    )
    held = _shared(arguments)
    references = {key: ray.put(value) for key, value in held.items()}
    pending = [task.remote(function, *(references.get(id(a), a) for a in unit)) for unit in arguments]
    try:
        for reference in pending:
            yield _result(reference)
    finally:
        for reference in pending:
            ray.cancel(reference)


def _result(reference: Any) -> Any:
    import ray
    from ray.exceptions import RayTaskError

    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause from error  # our own error with its hint, not Ray's wrapping of it


def _shared(arguments: Sequence[tuple[Any, ...]]) -> dict[int, Any]:
    """id -> object, for arguments in several units and for large arrays."""
    seen: dict[int, int] = {}
    objects: dict[int, Any] = {}
    for unit in arguments:
        for argument in unit:
            seen[id(argument)] = seen.get(id(argument), 0) + 1
            objects[id(argument)] = argument
    return {key: value for key, value in objects.items() if _worth_sharing(value, seen[key])}


def _worth_sharing(value: Any, uses: int) -> bool:
    if isinstance(value, np.ndarray):
        return value.nbytes >= SHARED_BYTES
    plain = value is None or isinstance(value, bool | int | float | str | bytes)
    return uses > 1 and not plain


def run_modestly(function: Unit, *arguments: Any) -> Any:
    be_modest()
    return function(*arguments)


def be_modest() -> None:
    """One thread and a low priority for this process. Absolute, since Ray uses a worker for many units."""
    for name in _ONE_THREAD:
        os.environ.setdefault(name, "1")
    if hasattr(os, "setpriority") and os.getpriority(os.PRIO_PROCESS, 0) < NICENESS:
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    import sys

    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
