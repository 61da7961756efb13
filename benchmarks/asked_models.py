"""Faults of `lstmc bench reliability` about forecasts on demand: models that nobody has tried are asked for, from no process to
several and back to none, and some of them crash or never return. Meanwhile the load sees nothing of it.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil

from benchmarks import doctored_models
from benchmarks.private_installation import SYMBOLS, Installation, until
from market.errors import ClusterError
from serve_app.predictor import HUNG_SECONDS
from tuning.registry import Registry

MODELS, ASKING = 6, 24
LOAD_SECONDS = 30.0
ZERO_SECONDS = 420.0  # the last question, five minutes, and Serve's own pace
BACK_SECONDS = HUNG_SECONDS + 90.0
FAILED = {"on-demand-failed", "on-demand-under-way"}


def many_models(made: Installation) -> str:
    """From no process to several under load, and back to none."""
    if processes(made):
        raise ClusterError("There is a process before anybody has asked.")
    models = [_add(made, _sound(n)) for n in range(MODELS)]
    first = until(lambda: _ask(made, models[0])[0] == 200, 60, "a forecast by a model that does not serve")
    memory = max(psutil.Process(pid).memory_full_info().pss for pid in processes(made))
    ends, most, told = time.monotonic() + LOAD_SECONDS, 1, Counter[tuple[int, str]]()
    questions = itertools.cycle(itertools.product(models, SYMBOLS.split(",")))

    def keep_asking(_: int) -> Counter[tuple[int, str]]:
        mine = Counter[tuple[int, str]]()
        while time.monotonic() < ends:
            mine[_ask(made, *next(questions))] += 1
        return mine

    with ThreadPoolExecutor(ASKING) as crowd:
        work = crowd.map(keep_asking, range(ASKING))
        while time.monotonic() < ends:
            most = max(most, len(processes(made)))
            time.sleep(0.5)
        told = sum(work, told)
    if set(status for status, _ in told) - {200, 503}:
        raise ClusterError(f"Neither forecasts nor clean refusals: {dict(told)}.")
    if most < 2:
        raise ClusterError("Load made no second process.")
    gone = until(lambda: not processes(made), ZERO_SECONDS, "no process is left")
    busy = sum(n for (status, _), n in told.items() if status == 503)
    return (
        f"first forecast after {first:.1f} s, {memory / 2**20:.0f} MB of the machine's memory; {ASKING} clients and {MODELS} models: {most} processes, "
        f"{told[200, '']} forecasts, {busy} x clean 503; none left {gone:.0f} s later"
    )


def _unfit(change: Callable[[Path], None], what: str) -> Callable[[Installation], str]:
    def happen(made: Installation) -> str:
        unfit, sound = _add(made, change), _add(made, _sound(MODELS))
        predictor = made.predictor()
        until(lambda: _ask(made, sound)[0] == 200, 60, "a forecast by a sound model")
        before, began = processes(made), time.monotonic()
        status, problem = _ask(made, unfit)
        if status != 503 or problem not in FAILED:
            raise ClusterError(f"The model that {what} was answered with {status} {problem}.")
        took = time.monotonic() - began
        replaced = until(lambda: not before & processes(made), BACK_SECONDS, "its process is replaced")
        back = until(lambda: _ask(made, sound, SYMBOLS.split(",")[1])[0] == 200, 60, "another model's forecast")
        if made.predictor() != predictor:
            raise ClusterError("It took the Predictor with it.")
        return f"503 {problem} after {took:.1f} s, its process gone {replaced:.1f} s later, another model's forecast {back:.1f} s after that; the Predictor stayed"

    return happen


crashing, hanging = _unfit(doctored_models.crashing, "crashes"), _unfit(doctored_models.hanging, "never returns")


def processes(made: Installation) -> set[int]:
    return made.pids("ray::ServeReplica:lstmc:OnDemand")


def _sound(n: int) -> Callable[[Path], None]:
    return lambda folder: doctored_models.good(folder, 1.2 + n / 10)


def _add(made: Installation, change: Callable[[Path], None]) -> str:
    registry = Registry.of(made.settings)
    champion = registry.champion_pointer("H1")
    assert champion is not None
    return doctored_models.add(registry, champion["id"], change).id


def _ask(made: Installation, model: str, symbol: str = "EURUSD") -> tuple[int, str]:
    """(status, code of the problem or "")."""
    url = f"http://127.0.0.1:{made.port}/api/v1/predictions/{symbol}"
    headers = {"Authorization": f"Bearer {made.token_file.read_text()}"}
    answer = httpx.get(url, params={"model": model}, headers=headers, timeout=120, trust_env=False)
    if answer.status_code == 200:
        return 200, ""
    if answer.status_code == 503 and "retry-after" not in answer.headers:
        raise ClusterError(f"A 503 without Retry-After: {answer.text[:200]}")
    return answer.status_code, str(answer.json().get("type", "")).rpartition(":")[2]
