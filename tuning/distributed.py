"""Where units of work run: other processes of this machine, or the Ray cluster.

`run_units(function, arguments)` yields results in the order of `arguments`. Functions are top-level, arguments numpy.
Whoever gives `seconds_left` gets BudgetSpent once it is over, even from a unit that never returns: that one is killed.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from math import inf
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread, Timer
from typing import Any

import numpy as np

from configs.ray_traces import sweep
from market.errors import NotRunning
from tuning.budget import BudgetSpent, Wall

Unit = Callable[..., Any]
RunUnits = Callable[[Unit, Sequence[tuple[Any, ...]]], Iterator[Any]]

NICENESS = 10  # training steps back for serving
SHARED_BYTES = 64 * 1024
SETTLING_SECONDS = 5.0  # the replacement of a champion takes milliseconds
MAX_RETRIES = 2  # a unit is pure: when its worker dies it runs again elsewhere
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def process_pool(workers: int, seconds_left: Callable[[], float] = lambda: inf) -> Iterator[RunUnits | None]:
    """A run_units over `workers` fresh processes with one thread each; None (run here) for a single worker and no end."""
    if workers <= 1 and seconds_left() == inf:
        yield None
        return
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))  # inherited; too late once the child has imported numpy
    pools: list[ProcessPoolExecutor] = []  # none or one

    def run_units(function: Unit, arguments: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        if not pools:
            context = multiprocessing.get_context("spawn")
            pools.append(ProcessPoolExecutor(max(workers, 1), mp_context=context, initializer=_serve_parent))
        left = seconds_left()
        results = pools[0].map(
            _call, [function] * len(arguments), arguments, timeout=None if left == inf else max(left, 0.0)
        )
        try:
            yield from results
        except TimeoutError:
            _kill(pools.pop())
            raise _spent(function) from None

    try:
        yield run_units
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _spent(function: Unit) -> BudgetSpent:
    return BudgetSpent(f"The budget was spent while {function.__name__} ran; the champion stays.")


def _kill(pool: ProcessPoolExecutor) -> None:
    """End a pool whose workers may never return. `kill_workers` from Python 3.14."""
    for process in list(pool._processes.values()):
        process.kill()
    pool.shutdown(cancel_futures=True)


def _serve_parent() -> None:
    """A worker steps back for serving, and ends when its parent is killed: its queue would never tell it."""
    be_modest()
    parent = multiprocessing.parent_process()
    if parent is not None:
        Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()


def _call(function: Unit, arguments: tuple[Any, ...]) -> Any:
    return function(*arguments)


@contextmanager
def hard_stop(wall: Wall, say: Callable[[], None]) -> Iterator[None]:
    """At the wall, whatever this process is doing: `say`, end the workers and then this process, with exit code 0.

    The last resort, for what no cancelled unit explains. Safe at any moment: see registry.py.
    """

    def end() -> None:
        wall.settling.acquire(timeout=SETTLING_SECONDS)
        try:
            say()
        finally:
            for child in multiprocessing.active_children():
                child.kill()
            os._exit(0)

    timer = Timer(max(wall.left(), 0.0), end) if wall.finite else None
    if timer:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        if timer:
            timer.cancel()


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
        session = Path(ray._private.worker._global_node.get_session_dir_path())
        sweep(session, time.time())  # what earlier runs have left on this node
        yield
    finally:
        ray.shutdown()


def units_on_ray(seconds_left: Callable[[], float] = lambda: inf) -> RunUnits:
    """Each unit is a Ray task of one CPU, on any node but the terminal's; results in order.

    An argument that several units share, or a large array, goes to the object store once and is read in place there.
    Needs ray.init; a unit's own exception is raised here and the rest is cancelled.
    """

    def run_units(function: Unit, arguments: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        import ray

        task = ray.remote(run_modestly).options(
            num_cpus=1,
            max_retries=MAX_RETRIES,
            label_selector={"role": "!mt5"},
            name=getattr(function, "__name__", "unit"),
        )
        held = _shared(arguments)
        references = {key: ray.put(value) for key, value in held.items()}
        pending = [task.remote(function, *(references.get(id(a), a) for a in unit)) for unit in arguments]
        late = False
        try:
            for reference in pending:
                left = seconds_left()
                yield _result(reference, None if left == inf else max(left, 0.0))
        except TimeoutError:
            late = True
            raise _spent(function) from None
        finally:
            for reference in _unfinished(pending):
                ray.cancel(reference, force=late)  # a unit that never returns would not see a polite one

    return run_units


def _unfinished(references: list[Any]) -> list[Any]:
    """Those that have no result. Ray 2.60 aborts the driver when it cancels a task whose end it has not booked yet."""
    import ray

    return ray.wait(references, num_returns=len(references), timeout=0)[1] if references else []


def slots() -> int:
    """Units of one CPU that the joined cluster has room for now."""
    import ray

    return max(int(ray.available_resources().get("CPU", 1)), 1)


def _result(reference: Any, timeout: float | None) -> Any:
    import ray
    from ray.exceptions import RayTaskError

    try:
        return ray.get(reference, timeout=timeout)
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
