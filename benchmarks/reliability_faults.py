"""The faults of `lstmc bench reliability`: what is done, what proves that it was done, what is expected meanwhile.

Each fault is a function of a running installation that returns when all is well again, with the proof in words;
ClusterError says what did not come true.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.prediction_ledger import PredictionLedger
from benchmarks import asked_models, deploy_faults, doctored_models
from benchmarks.private_installation import STARTED, Installation, until
from market.errors import ClusterError
from tuning.bundle_signature import BundleKeys
from tuning.registry import Registry

TIMEFRAME = "H1"
PATIENCE = 60.0
NONE = "no failed GET"


@dataclass(frozen=True)
class Fault:
    """`out_s`: how long clean 503s may be given for; 0: no request may fail at all. `needs_s`: it takes that long."""

    name: str
    title: str
    happen: Callable[[Installation], str]
    expected: str = NONE
    out_s: float = 0.0
    needs_s: float = 0.0


def _kill(pids: set[int]) -> None:
    if not pids:
        raise ClusterError("There is no such process to kill.")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def _replaced(look: Callable[[], set[int]], gone: set[int], count: int = 1) -> str:
    seconds = until(lambda: not gone & look() and len(look()) >= count, PATIENCE, f"others than {gone}")
    return f"pid {_words(gone)} gone, {_words(look())} in place after {seconds:.1f} s"


def _words(pids: set[int]) -> str:
    return ", ".join(map(str, sorted(pids)))


def replica(made: Installation) -> str:
    gone = {min(made.api())}
    _kill(gone)
    return _replaced(made.api, gone, STARTED["Api"])


def all_replicas(made: Installation) -> str:
    gone = made.api() | made.predictor()
    _kill(gone)
    return _replaced(lambda: made.api() | made.predictor(), gone, sum(STARTED.values()))


def proxy(made: Installation) -> str:
    gone = made.proxy()
    _kill(gone)
    said = _replaced(made.proxy, gone)
    seconds = until(lambda: made.get("/readyz"), PATIENCE, "an answer through the new proxy")
    return f"{said}; it answered {seconds:.1f} s later"


def controller(made: Installation) -> str:
    gone = made.controller()
    _kill(gone)
    return _replaced(made.controller, gone)


def forecaster(made: Installation) -> str:
    gone, before = made.forecaster(), as_of(made)
    _kill(gone)
    said = _replaced(made.forecaster, gone)
    return f"{said}; next forecast after {until(lambda: as_of(made) > before, PATIENCE, 'a newer forecast'):.1f} s"


# Models


def as_of(made: Installation) -> str:
    return str((made.get("/api/v1/predictions/EURUSD") or {}).get("as_of") or "")


def _card(made: Installation) -> dict[str, Any]:
    return dict((made.get("/api/v1/models/EURUSD") or {}).get("model") or {})


def _all_served_by(made: Installation, model_id: str) -> bool:
    forecasts = (made.get("/api/v1/forex/all") or {}).get("forecasts") or []
    return bool(forecasts) and all(one["model_id"] == model_id for one in forecasts)


def _new_model(made: Installation, change: Callable[[Path], None]) -> tuple[str, str]:
    """(champion, the new model)."""
    registry = Registry.of(made.settings)
    champion = registry.champion_pointer(TIMEFRAME)
    assert champion is not None
    return champion["id"], doctored_models.add(registry, champion["id"], change).id


def good_model(made: Installation) -> str:
    old, new = _new_model(made, doctored_models.good)
    done = made.lstmc("models", "promote", new)
    if done.returncode:
        raise ClusterError(f"The good model was not promoted: {done.stderr}")
    seconds = until(lambda: _all_served_by(made, new), PATIENCE, f"{new} serves")
    back = made.lstmc("models", "rollback")
    if back.returncode:
        raise ClusterError(f"It was not rolled back: {back.stderr}")
    again = until(lambda: _all_served_by(made, old), PATIENCE, f"{old} serves again")
    return (
        f"{old} to {new} {seconds:.1f} s after the command; `lstmc models rollback` served {again:.1f} s after its end"
    )


def _unfit(change: Callable[[Path], None], seconds: float) -> Callable[[Installation], str]:
    """It is made champion past the trial that `promote` gives it, so that serving has to find out."""

    def happen(made: Installation) -> str:
        old, new = _new_model(made, change)
        settings = made.settings
        predictor, before, began = made.predictor(), as_of(made), time.monotonic()
        Registry(settings.registry_path, BundleKeys(settings.model_keys_path)).promote(new, "past its trial")
        until(lambda: (_card(made).get("refused") or {}).get("id") == new, seconds, f"{new} is refused")
        took = time.monotonic() - began
        reason = _card(made)["refused"]["reason"]
        if not _all_served_by(made, old):
            raise ClusterError(f"{old} did not stay.")
        if made.predictor() != predictor:
            raise ClusterError("The model took a replica with it.")
        if as_of(made) <= before and took > 15:
            raise ClusterError("The old model made no forecast meanwhile.")
        if (Registry.of(settings).champion_pointer(TIMEFRAME) or {}).get("id") != old:
            raise ClusterError("The registry still names it.")
        cause = reason.partition("in its trial process: ")[2].partition(" The champion")[0].rstrip(".") or reason
        return f"{new} refused after {took:.1f} s ({cause}); {old} stayed, also in the registry"

    return happen


# Changes


def nginx_reload(made: Installation) -> str:
    before = made.nginx.workers()
    made.nginx.reload(rate=made.nginx.edge.rate + 1)
    seconds = until(lambda: not before & made.nginx.workers(), PATIENCE + 60, "the old workers end")
    return f"{len(before)} workers gone after {seconds:.1f} s, {len(made.nginx.workers())} new ones"


def key_rotation(made: Installation) -> str:
    kid = made.lstmc("token", "keys", "rotate").stdout.strip()
    until(lambda: kid in str(made.get("/.well-known/jwks.json")), 10, f"the key {kid} is published")
    time.sleep(2)  # tokens of the old key go on
    made.new_token()
    return f"{kid} in the key set; tokens of the old key, then of the new one"


def ledger_away(made: Installation) -> str:
    made.postgres.kill()
    until(lambda: (made.status().get("spooled") or 0) > 0, PATIENCE, "forecasts wait in the spool")
    before = as_of(made)
    until(lambda: as_of(made) > before, PATIENCE, "a newer forecast meanwhile")
    spooled = made.status()["spooled"]
    made.postgres.start()
    seconds = until(lambda: made.status().get("spooled") == 0, PATIENCE, "the spool is empty")
    ledger = PredictionLedger.of(made.settings)
    try:
        verdict = ledger.verify()
    finally:
        ledger.close()
    if not verdict.intact:
        raise ClusterError(f"The ledger is not intact: {verdict}")
    return f"{spooled} forecasts waited in the spool, written {seconds:.1f} s after the start; ledger intact, {verdict.rows['forecasts']} rows"


FAULTS = (
    Fault("replica", "kill -9 of one Api replica", replica),
    Fault("all_replicas", "kill -9 of all replicas", all_replicas, "back within 15 s, clean 503 until then", 15.0),
    Fault("proxy", "kill -9 of the only proxy", proxy, "back within 8 s, clean 503 until then", 8.0),
    Fault("controller", "kill -9 of the Serve controller", controller),
    Fault("forecaster", "kill -9 of the forecaster", forecaster),
    Fault("good_model", "promotion of a good model, then rollback", good_model, needs_s=30),
    Fault("crashing_model", "promotion of a model that crashes its process", _unfit(doctored_models.crashing, 90)),
    Fault("hanging_model", "promotion of a model that never returns", _unfit(doctored_models.hanging, 120), needs_s=75),
    Fault("nan_model", "promotion of a model that forecasts NaN", _unfit(doctored_models.nan, 90)),
    Fault(
        "asked",
        "six models that do not serve are asked for",
        asked_models.many_models,
        f"{NONE}; from no process to several and back to none",
    ),
    Fault(
        "asked_crash",
        "a model that crashes its process is asked for",
        asked_models.crashing,
        f"{NONE}; a clean 503 for who asked",
    ),
    Fault(
        "asked_hang",
        "a model that never returns is asked for",
        asked_models.hanging,
        f"{NONE}; a clean 503 for who asked",
    ),
    Fault("better_code", "`roll.sh` to another version, and back", deploy_faults.better_code),
    Fault("broken_code", "`roll.sh` to code whose replicas do not start", deploy_faults.broken_code),
    Fault("ill_code", "`roll.sh` to code that is never ready", deploy_faults.ill_code),
    Fault("nginx_reload", "nginx reloaded with another configuration", nginx_reload),
    Fault("key_rotation", "signing key of tokens rotated", key_rotation),
    Fault("ledger_away", "PostgreSQL killed and started again", ledger_away),
)
