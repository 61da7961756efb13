"""How the installation is doing: nodes, actors, Serve, jobs, champion, age of the bars, memory, and the first root cause.

Reads only, and every part separately: what cannot be read says why and does not hide the rest.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from cluster.nodes import auth_environment, listens
from cluster.run_record import Run, memory_mb, read_run
from configs.settings import Settings
from market.errors import LstmcError, WrongToken
from market.forecasts import iso_utc

Fetch = Callable[[str], tuple[int, Any]]
WATCHERS = ("prometheus", "grafana-server")


def http_get(url: str, token: str = "", seconds: float = 5.0) -> tuple[int, Any]:
    """(status, body as JSON or text) of a local URL; status 0 and the reason when nobody answers."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=seconds) as response:
            return response.status, _body(response.read())
    except urllib.error.HTTPError as error:
        return error.code, _body(error.read())
    except (OSError, ValueError) as error:
        return 0, str(getattr(error, "reason", error))


def _body(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode(errors="replace")


def api_url(settings: Settings, path: str = "") -> str:
    return f"http://127.0.0.1:{settings.port}{path}"


def dashboard_get(settings: Settings, path: str) -> Any:
    """JSON from Ray's dashboard; WrongToken or LstmcError says why not."""
    url = f"http://127.0.0.1:{settings.dashboard_port}{path}"
    code, body = http_get(url, auth_environment(settings)["RAY_AUTH_TOKEN"], seconds=10.0)
    if code in (401, 403):
        raise WrongToken(
            "The Ray dashboard refused our token.",
            hint="The cluster was started with another one: run `lstmc down`, then `lstmc up`.",
        )
    if code != 200:
        raise LstmcError(f"Ray's dashboard answered {code or 'nothing'} ({str(body)[:120]}).")
    return body


def check_token(settings: Settings) -> None:
    """WrongToken when the running cluster does not take ours; a dashboard that does not answer yet says nothing."""
    try:
        dashboard_get(settings, "/api/version")
    except WrongToken:
        raise
    except LstmcError:
        return


def nodes(settings: Settings) -> list[dict[str, Any]]:
    """Ray's view of its nodes: role, state, address, resources."""
    body = dashboard_get(settings, "/api/v0/nodes?limit=1000&detail=1")
    return [
        {
            "id": row["node_id"],
            "role": (row.get("labels") or {}).get("role", "head" if row.get("is_head_node") else "worker"),
            "state": row["state"],
            "address": row.get("node_ip"),
            "resources": {k: v for k, v in (row.get("resources_total") or {}).items() if k in ("CPU", "GPU", "mt5")},
        }
        for row in body["data"]["result"]["result"]
    ]


def actors(settings: Settings) -> list[dict[str, Any]]:
    """The named actors of this product: name, class, state, node, pid, restarts."""
    body = dashboard_get(settings, "/api/v0/actors?limit=1000&detail=1")
    return [
        {
            "name": row["name"],
            "class": row.get("class_name"),
            "state": row["state"],
            "node_id": row.get("node_id"),
            "pid": row.get("pid"),
            "restarts": int(row.get("num_restarts") or 0),
        }
        for row in body["data"]["result"]["result"]
        if row.get("ray_namespace") == "lstmc" and row.get("name") and row["state"] != "DEAD"
    ]


def serve_app(settings: Settings) -> dict[str, Any]:
    """Serve's view of the app: status and its deployments."""
    body = dashboard_get(settings, "/api/serve/applications/")
    app = (body.get("applications") or {}).get("lstmc")
    if app is None:
        return {"status": "NOT_DEPLOYED", "deployments": {}}
    return {
        "status": app["status"],
        "message": app.get("message", ""),
        "deployments": {name: d["status"] for name, d in (app.get("deployments") or {}).items()},
    }


def api_status(settings: Settings) -> Any:
    """The HTTP side's own status; LstmcError when it does not answer."""
    from serve_app.auth import issue_token

    code, body = http_get(api_url(settings, "/api/v1/status"), issue_token(settings, "lstmc-status", days=0.01))
    if code == 401:
        raise WrongToken("The HTTP API refused our token.", hint="Restart it: `lstmc down`, then `lstmc up`.")
    if code == 0:
        raise LstmcError(f"The HTTP API does not answer at {api_url(settings)} ({body}).")
    return body


def champions(settings: Settings) -> dict[str, Any]:
    from tuning.registry import Registry

    registry = Registry.of(settings)
    found = {timeframe: registry.champion(timeframe) for timeframe in settings.timeframes}
    return {
        timeframe: None
        if version is None
        else {"id": version.id, "kind": version.kind, "trained_until": iso_utc(version.trained_until)}
        for timeframe, version in found.items()
    }


def last_training(settings: Settings) -> dict[str, Any]:
    """How the last training run of each timeframe ended; None where there was none."""
    from tuning.registry import Registry

    registry = Registry.of(settings)
    return {timeframe: next(reversed(registry.runs(timeframe)), None) for timeframe in settings.timeframes}


def bar_ages(settings: Settings) -> dict[str, Any]:
    """Newest stored close of each series and its age in market seconds."""
    from market.bar_store import BarStore

    store, now = BarStore(settings.bars_path), settings.market_clock.now()
    ages = {}
    for symbol in settings.symbols:
        for timeframe in settings.timeframes:
            last = store.last_close(symbol, timeframe)
            age = (now - last).total_seconds() if last else None
            ages[f"{symbol}/{timeframe}"] = {"last_close": iso_utc(last), "age_market_seconds": age}
    return ages


def feed_clock(settings: Settings) -> dict[str, Any]:
    """The source's clock when it last answered, as kept with the evidence; {} when none ever did."""
    from market.coverage import Coverage

    return Coverage.beside(settings.bars_path).clock


def schedule(settings: Settings) -> dict[str, Any]:
    """The next slot of the timetable, what is at work or waits, and how the last run ended."""
    from actors.retrain_scheduler import log_file
    from actors.timetable import load_timetable, next_slot, of_installation

    log, now = log_file(settings).read(), datetime.now(UTC)
    slots = [(next_slot(e, now), e.name) for e in of_installation(load_timetable(), settings.timeframes)]
    slot, name = min(slots, default=(None, None))
    last = log.last()
    return {
        "by_itself": settings.schedule,
        "paused_since": iso_utc(log.paused_since),
        "next": {"run": name, "slot": iso_utc(slot)},
        "open": [{"run": run.name, "slot": iso_utc(run.slot), "state": run.state, "why": run.why} for run in log.open],
        "last": last and {"run": last.name, "slot": iso_utc(last.slot), "state": last.state, "why": last.why},
    }


def collect(settings: Settings, run: Run | None) -> dict[str, Any]:
    """Everything `lstmc status` prints, JSON-ready."""
    report: dict[str, Any] = {
        "home": str(settings.home_path),
        "market": settings.market,
        "running": is_running(settings, run),
        "mt5_elsewhere": not settings.plays_terminal,
    }
    report["market_now"] = iso_utc(settings.market_clock.now())
    parts: dict[str, Callable[[], Any]] = {
        "champions": lambda: champions(settings),
        "last_training": lambda: last_training(settings),
        "bars": lambda: bar_ages(settings),
        "clock": lambda: feed_clock(settings),
        "schedule": lambda: schedule(settings),
    }
    if report["running"] and run is not None:
        parts |= {
            "nodes": lambda: nodes(settings),
            "actors": lambda: actors(settings),
            "serve": lambda: serve_app(settings),
            "jobs": lambda: _jobs(settings),
            "api": lambda: api_status(settings),
            "memory_mb": lambda: memory_mb(run),
        }
        report["processes"] = {name: run.alive(name) for name in ("head", "mt5")}
        report["watch"] = watchers(run)
    for name, read in parts.items():
        report[name] = _try(read)
    report["root_cause"] = root_cause(report)
    return report


def _try(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except LstmcError as error:
        return {"error": str(error)}
    except Exception as error:  # one unreadable part must not hide the others
        return {"error": f"{type(error).__name__}: {error}"}


def _jobs(settings: Settings) -> list[dict[str, Any]]:
    from cluster.jobs import list_jobs

    return list_jobs(settings)[:5]


def is_running(settings: Settings, run: Run | None) -> bool:
    return (
        run is not None
        and run.alive("head")
        and listens(run.ports.get("head_port", settings.head_port), settings.head_host)
    )


def root_cause(report: dict[str, Any]) -> str:
    """The first thing that is wrong, in the order in which one fault causes the next; empty when all is well."""
    if not report["running"]:
        return "The cluster does not run: start it with `lstmc up`."
    for part in ("nodes", "actors", "serve", "api"):
        if isinstance(report.get(part), dict) and report[part].get("error"):
            return str(report[part]["error"])
    if report["market"] != "http" and not any(n["role"] == "mt5" and n["state"] == "ALIVE" for n in report["nodes"]):
        if report["market"] == "mt5":
            return "The Windows node is not in the cluster: its supervisor starts it again; if this lasts, run doctor.ps1 there."
        if report["mt5_elsewhere"]:
            return "The mt5 node is not in the cluster: its supervisor starts it again; serving goes on with the bars that are stored."
        return "The mt5 node is down: `lstmc up` brings it back; serving goes on with the bars that are stored."
    for actor in report["actors"]:
        if actor["state"] != "ALIVE":
            return f"The actor {actor['name']} is {actor['state']}: see `ray logs actor` and the Ray dashboard."
    serve = report["serve"]
    if serve["status"] != "RUNNING":
        return f"The Serve app is {serve['status']}: {serve.get('message') or 'see the Ray dashboard'}."
    absent = [timeframe for timeframe, champion in report["champions"].items() if champion is None]
    if absent:
        return f"There is no champion for {absent[0]} yet."
    return _data_cause(report)


def _data_cause(report: dict[str, Any]) -> str:
    api = report["api"] if isinstance(report["api"], dict) else {}
    source = (api.get("source") or {}).get("source") or {}
    if source.get("connected") is False:
        return f"The market data source is not connected: {source.get('reason') or 'no reason given'}."
    if unwritten := (source.get("problems") or {}).get("evidence"):
        return str(unwritten)
    training = [job for job in report["jobs"] if job["training"]] if isinstance(report["jobs"], list) else []
    if training and training[0]["status"] == "FAILED":
        return f"The last training run failed: {training[0]['message']}"
    return ""


def watchers(run: Run) -> dict[str, str | None]:
    """Where to see each program that `up --watch` started; None for one that has ended since."""
    return {
        name: f"http://127.0.0.1:{run.ports[name]}" if run.alive(name) else None
        for name in WATCHERS
        if name in run.processes
    }


def current_run(settings: Settings) -> Run | None:
    return read_run(settings.home_path)


def use_token(settings: Settings) -> None:
    """Let Ray's own clients in this process show our token."""
    os.environ |= auth_environment(settings)
