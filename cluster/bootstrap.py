"""`up`: from nothing, or from whatever half of it runs, to forecasts over HTTP. Idempotent ordered steps, each visible.

Settings and secrets -> clock -> head -> mt5 node -> actors -> backfill, champion and Serve -> first forecast -> training.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster import health, jobs, nodes
from cluster.fill import fill, import_ray
from cluster.head_state import has_ghosts
from cluster.market_start import start_market
from cluster.progress import Progress
from cluster.run_record import Run, members, read_run, write_run
from cluster.watch import watch
from configs.settings import LOOPBACK, Settings, ensure_secrets, load_settings, make_settings, save_settings
from market.errors import ClusterError, ConfigError

FORECAST_SECONDS = 180.0
WINDOWS_SECONDS, FALLBACK_SECONDS = 900.0, 60.0


def up(
    given: dict[str, Any], progress: Progress, *, profile: str = "local", watched: bool = False
) -> tuple[Settings, Run, bool]:
    """Bring everything up and wait for the first forecast. `given`: settings from flags, None where not given. `watched`: with
    Prometheus and Grafana beside it, where there are such.

    Returns settings, record, and whether this call started the cluster (False: it ran already). ClusterError says which
    step failed; what was started stays up, so that `status` and the logs can be read.
    """
    began = time.time()
    home = make_settings(profile, **_only(given, "home")).home_path
    with _alone(home):
        settings, run = _running(home, given, progress)
        if run is not None and settings is not None:
            run = _bring_back_mt5(settings, run, progress)
        else:
            settings = _prepare(given, profile, progress)
            nodes.check_ports(settings)
            _check_data_api(settings)
            run = _start_nodes(settings, progress)
        fresh = run.state != "up"
        had_bars = _has_bars(settings)
        connect(settings, progress, fresh=fresh)
        if fresh:
            fill(settings, progress)
        _first_forecast(settings, progress)
        if fresh:
            run = _record(settings, run, began, had_bars)
            _first_training(settings, progress)
        leave()
        if watched:
            run = watch(settings, run, progress)
    return settings, run, fresh


def abandon(given: dict[str, Any], profile: str = "local") -> None:
    """End an unfinished start; a cluster that was up before stays."""
    home = make_settings(profile, **_only(given, "home")).home_path
    run = read_run(home)
    if run is not None and run.state == "starting":
        nodes.stop(home)


def _only(given: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: given[name] for name in names if given.get(name) is not None}


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    home.mkdir(parents=True, exist_ok=True)
    with open(home / "up.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterError(
                f"Another `lstmc up` is at work in {home}.", hint="Wait for it, or end it with Ctrl-C."
            ) from None
        yield


# Settings and clock


def _running(home: Path, given: dict[str, Any], progress: Progress) -> tuple[Settings | None, Run | None]:
    """The settings and record of a head that lives; a dead or half-dead one is cleared away first."""
    run = read_run(home)
    if run is None or not (run.processes or members(run)):
        return None, None
    settings = load_settings(home)
    if health.is_running(settings, run):
        _refuse_other_flags(settings, given)
        health.check_token(settings)
        progress.say("already running" if run.state == "up" else "an unfinished start is there: going on with it")
        return settings, run
    ended = nodes.stop(home)
    progress.say(f"cleared away a stale head ({ended} processes of it were left)")
    return None, None


def _refuse_other_flags(settings: Settings, given: dict[str, Any]) -> None:
    wanted = make_settings(settings.profile, **_resolved(given))
    other = [
        key
        for key, value in given.items()
        if value is not None and key != "home" and getattr(wanted, key) != getattr(settings, key)
    ]
    if settings.market == "recorded":  # `up` narrows these to what the folder has
        other = [key for key in other if key not in ("symbols", "history_days")]
    if other:
        raise ClusterError(
            f"The cluster runs with other settings ({', '.join(other)}).",
            hint="Run `lstmc down` first, then `lstmc up` again.",
        )


def _resolved(given: dict[str, Any]) -> dict[str, Any]:
    folder = given.get("bars_dir")
    return given | ({"bars_dir": Path(folder).expanduser().resolve()} if folder else {})


def _prepare(given: dict[str, Any], profile: str, progress: Progress) -> Settings:
    """Settings with their clock, saved; secrets made."""
    given = _resolved(given)
    if given.get("bars_dir") is not None and given.get("market") is None:
        given["market"] = "recorded"
    settings = make_settings(profile, **given)
    _check_reachable(settings)
    ensure_secrets(settings)
    if settings.profile == "production":
        from serve_app.token_keys import ensure_signing_key

        ensure_signing_key(settings.home_path)
    contents = None
    if settings.market == "recorded":
        from market.bar_files import folder_contents

        contents = folder_contents(settings.bars_dir or Path())
    start = start_market(
        settings,
        wall=time.time(),
        last_closes=_last_closes(settings),
        contents=contents,
        symbols_given=given.get("symbols") is not None,
    )
    for note in start.notes:
        progress.say(note)
    save_settings(start.settings)
    settings = load_settings(start.settings.home_path)
    progress.say(
        f"{settings.market} market, {', '.join(settings.symbols)} on {', '.join(settings.timeframes)}, speed {settings.speed:g}"
    )
    return settings


def _check_reachable(settings: Settings) -> None:
    """No other machine can join a head that listens on loopback only."""
    if settings.head_host not in LOOPBACK:
        return
    if settings.market == "mt5" and not settings.data_api_url:
        raise ConfigError(
            "market=mt5 needs the address at which the Windows node reaches this head.",
            hint="Give --head-host ADDR, such as 10.8.0.1, or read its bars over HTTP with --data-api-url URL.",
        )
    if not settings.is_live and settings.mt5_node == "elsewhere":
        raise ConfigError(
            "mt5_node=elsewhere needs the address at which the mt5 node reaches this head.",
            hint="Give --head-host ADDR, such as 10.8.0.1.",
        )


def _last_closes(settings: Settings) -> dict[str, Any]:
    from market.bar_store import BarStore

    store = BarStore(settings.bars_path)
    found = {f"{s}/{t}": store.last_close(s, t) for s, t in store.counts()}
    return {key: close for key, close in found.items() if close is not None}


def _has_bars(settings: Settings) -> bool:
    return bool(_last_closes(settings))


def _check_data_api(settings: Settings) -> None:
    """ConfigError before anything starts, where the API's certificate is ours to see: a real terminal's is on its host."""
    from mt5_actor_windows.listening import check_address, find_tls

    if not settings.is_live:
        check_address(settings.data_api_host, find_tls(settings.home_path))


# Nodes


def _start_nodes(settings: Settings, progress: Progress) -> Run:
    progress.doing("starting the Ray head")
    health.use_token(settings)  # before Ray is imported, which is when it looks
    warm = ThreadPoolExecutor(1)
    warm.submit(import_ray)  # seconds of imports, while the head starts
    run = nodes.start_head(settings)
    progress.say(f"head started (pid {run.processes['head'].pid}, port {settings.head_port})")
    if settings.plays_terminal:
        run = nodes.start_mt5_node(settings, run)
        progress.say(f"mt5 node started (pid {run.processes['mt5'].pid})")
    warm.shutdown(wait=True)
    return run


def _bring_back_mt5(settings: Settings, run: Run, progress: Progress) -> Run:
    if not settings.plays_terminal or run.alive("mt5"):
        return run
    nodes.stop_node(run, "mt5")
    run = nodes.start_mt5_node(settings, run)
    progress.say(f"the mt5 node was down: started again (pid {run.processes['mt5'].pid})")
    return run


def connect(settings: Settings, progress: Progress, *, fresh: bool = False) -> None:
    """Join the cluster as a driver, wait for both nodes, create the actors that are missing. `fresh`: the head has just started."""
    health.use_token(settings)
    import ray

    from actors.handles import NAMESPACE, end_actor, start_actors, start_schedule

    progress.doing("connecting to the cluster")
    try:
        ray.init(
            address=nodes.gcs_address(settings),
            namespace=NAMESPACE,
            ignore_reinit_error=True,
            log_to_driver=False,
            logging_level="ERROR",
            configure_logging=False,
        )
    except ConnectionError as error:
        hint = "If its token was changed meanwhile: `lstmc down`, then `lstmc up`."
        raise ClusterError(
            f"The Ray head on port {settings.head_port} could not be joined: {error}", hint=hint
        ) from None
    if settings.plays_terminal:
        _until(
            lambda: _has_mt5(ray.nodes()),
            60,
            "The mt5 node did not join the cluster",
            settings.home_path / "logs" / "mt5_node.log",
        )
    elif settings.market != "http":
        _await_mt5(lambda: _has_mt5(ray.nodes()), settings, progress)
    if fresh and settings.redis_address and not settings.is_live:
        end_actor("mt5")  # as Redis remembers it, it plays by the clock of the last head
    names = start_actors(settings)
    if settings.redis_address:
        _await_revived(settings)
    names += [start_schedule(settings, jobs.RayJobs)] if settings.schedule else []
    progress.say(f"nodes joined, actors placed: {', '.join(names)}")


def leave() -> None:
    """Everything is detached; nothing needs this driver any more."""
    import ray

    ray.shutdown()


def _await_revived(settings: Settings) -> None:
    """A head that comes back takes the nodes and actors that died with the old one for living: calls to them would fail."""
    import ray

    from actors import handles

    def answer() -> bool:
        if has_ghosts(ray.nodes()):
            return False
        try:
            ray.get([actor.status.remote() for actor in (handles.market_data(), handles.forecaster())], timeout=10)
        except ray.exceptions.RayError:
            return False
        return True

    _until(answer, 120, "The actors of the last head did not come back", settings.home_path / "logs" / "head.log")


def _has_mt5(found: list[dict[str, Any]]) -> bool:
    return any(node["Alive"] and node["Resources"].get("mt5") for node in found)


def _await_mt5(joined: Callable[[], bool], settings: Settings, progress: Progress) -> None:
    """A node on another machine joins when it likes; with a data API to fall back on it is not waited for long."""
    kind = "Windows node" if settings.market == "mt5" else "mt5 node"
    seconds = FALLBACK_SECONDS if settings.data_api_url else WINDOWS_SECONDS
    deadline, told = time.monotonic() + seconds, False
    while not joined():
        if time.monotonic() > deadline:
            if settings.data_api_url:
                return progress.say(f"no {kind} yet: bars come from {settings.data_api_url} until it joins")
            raise ClusterError(
                f"No {kind} joined within {WINDOWS_SECONDS / 60:.0f} min.",
                hint="The head goes on: start the node there, then `lstmc up` here. See docs/windows-node.md.",
            )
        if not told:
            command = "what `lstmc node windows --print` shows" if kind == "Windows node" else "mt5_actor_windows.node"
            progress.say(f"waiting for the {kind}; on it run {command}")
        told = True
        progress.doing(f"waiting for the {kind}")
        time.sleep(0.5)
    progress.say(f"the {kind} has joined")


def _until(ready: Callable[[], bool], seconds: float, what: str, log: Path) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} within {seconds:.0f} s: {nodes.last_lines(log, 2)}", hint=f"See {log}.")
        time.sleep(0.2)


# Forecast, training, record


def _first_forecast(settings: Settings, progress: Progress) -> None:
    """Wait until the API is ready and answers for all symbols with a fresh token."""
    from serve_app.auth import issue_token

    token = issue_token(settings, "lstmc-up", days=0.1)
    deadline = time.monotonic() + FORECAST_SECONDS
    while True:
        code, body = health.http_get(health.api_url(settings, "/readyz"))
        if code == 200:
            code, body = health.http_get(health.api_url(settings, "/api/v1/forex/all"), token)
            if code == 200:
                break
        if time.monotonic() > deadline:
            raise ClusterError(f"No forecast came over HTTP: {code} {str(body)[:200]}", hint="See `lstmc status`.")
        progress.doing("waiting for the first forecast")
        time.sleep(0.3)
    progress.say("forecasts are served")


def _record(settings: Settings, run: Run, began: float, had_bars: bool) -> Run:
    cold_start = float(os.environ.get("LSTMC_COLD_START") or began)
    seconds = round(time.time() - (began if had_bars else min(cold_start, began)), 1)
    run = replace(run, state="up", warm_s=seconds) if had_bars else replace(run, state="up", cold_s=seconds)
    write_run(settings.home_path, run)
    return run


def _first_training(settings: Settings, progress: Progress) -> None:
    """Submit the first training of this market, unless one has come to its end before."""
    from tuning.registry import Registry

    registry = Registry.of(settings)
    if settings.train_on_start and any(not registry.runs(timeframe) for timeframe in settings.timeframes):
        progress.say(f"first training submitted: {jobs.submit_training(settings, settings.train_preset)}")


def connection_table(settings: Settings, run: Run) -> dict[str, Any]:
    """What a user needs next, JSON-ready: URLs, a token, commands, what is ready."""
    from serve_app.auth import issue_token

    token = issue_token(settings, "local", days=30)
    api = health.api_url(settings)
    champions = health.champions(settings)
    command = _command(settings)
    return {
        "page": f"{api}/",
        "api": f"{api}/api/v1/predictions/{settings.symbols[0]}?timeframe={settings.timeframes[0]}",
        "docs": f"{api}/docs",
        "token": token,
        "curl": f'curl -H "Authorization: Bearer $({command} token issue)" "{api}/api/v1/forex/all"',
        "ray_dashboard": jobs.dashboard_url(settings),
        "ray_token": str(settings.home_path / "secrets" / "ray_token"),
        "data_api": _data_api(settings),
        "watch": health.watchers(run),
        "ray_env": nodes.shell_exports(settings),
        "retrain": f"{_program('ray')} job submit -- python -m tuning.retrain --preset quick",
        "home": str(settings.home_path),
        "champions": {t: (c or {}).get("id") for t, c in champions.items()},
        "symbols": list(settings.symbols),
        "cold_s": run.cold_s,
        "warm_s": run.warm_s,
        "stop": f"{command} down",
    }


def _data_api(settings: Settings) -> str | None:
    if settings.is_live:
        return settings.data_api_url or "on the Windows node"
    from mt5_actor_windows.listening import find_tls, url_of

    return url_of(settings.data_api_host, settings.data_api_port, find_tls(settings.home_path)) + "/mt5/health"


def _command(settings: Settings) -> str:
    """How this `lstmc` is called from here, for this home."""
    program = _program("lstmc")
    return program if settings.home_path == Path(".lstmc").resolve() else f"{program} --home {settings.home_path}"


def _program(name: str) -> str:
    """`name` as it can be typed here: on the PATH or not."""
    return name if shutil.which(name) else os.path.relpath(Path(sys.executable).parent / name)


def down(home: Path) -> int:
    """End exactly what `up` started. Returns how many processes ended."""
    return nodes.stop(home)
