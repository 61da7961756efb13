"""`lstmc`: the commands. Each parses, calls one function of another module, and prints; heavy imports wait until then."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from cluster import (
    cli_backup,
    cli_bars,
    cli_deploy,
    cli_keys,
    cli_ledger,
    cli_models,
    cli_schedule,
    cli_tokens,
    cli_tools,
)
from cluster.console import Json, example, new_app, note, one_of, run, settings, show

app = new_app("Closed FX bars in, honest forecasts out.")
app.add_typer(cli_bars.app, name="bars", help="Stored bars: import, backfill, gaps, export.")
app.add_typer(cli_models.app, name="models", help="The registry: list, show, promote, roll back.")
app.add_typer(cli_ledger.app, name="ledger", help="The record of all forecasts: verify, show.")
app.add_typer(cli_tokens.app, name="token", help="Tokens for the HTTP API, and the keys that sign them.")
app.add_typer(cli_keys.app, name="key", help="Keys and certificate of the MT5 data API.")
app.add_typer(cli_deploy.app, name="deploy", help="nginx in front of the HTTP API.")
app.add_typer(cli_schedule.app, name="schedule", help="The retraining timetable.")
app.add_typer(cli_tools.node_app, name="node", help="Other machines: what to run on them.")


app.command(epilog=example("lstmc backup --out lstmc-backup.tar.gz"))(cli_backup.backup)
app.command(epilog=example("lstmc restore lstmc-backup.tar.gz"))(cli_backup.restore)


@app.callback()
def _root(
    home: Annotated[
        str | None, typer.Option(help="The installation's folder. Default: LSTMC_HOME, else ./.lstmc.")
    ] = None,
) -> None:
    if home:
        os.environ["LSTMC_HOME"] = os.path.abspath(os.path.expanduser(home))


@app.command(epilog=example("lstmc up --market recorded --bars ../bars --timeframes H1 --speed 600"))
def up(
    market: Annotated[str | None, typer.Option(help="simulated | recorded | mt5 | http")] = None,
    bars: Annotated[str | None, typer.Option(help="Recorded bars: a folder of SYMBOL_TF.parquet or .csv.")] = None,
    symbols: Annotated[str | None, typer.Option(help="For example EURUSD,GBPUSD.")] = None,
    timeframes: Annotated[str | None, typer.Option(help="For example H1 or M15,H1.")] = None,
    speed: Annotated[float | None, typer.Option(help="Market seconds per second; simulated and recorded only.")] = None,
    start: Annotated[str | None, typer.Option(help="Recorded: where the clock starts, UTC.")] = None,
    seed: Annotated[int | None, typer.Option(help="Simulated: the market's seed.")] = None,
    history_days: Annotated[int | None, typer.Option(help="Days of history to load.")] = None,
    data_api_url: Annotated[str | None, typer.Option(help="http: the Windows host's data API.")] = None,
    port: Annotated[int | None, typer.Option(help="HTTP API and page.")] = None,
    dashboard_port: Annotated[int | None, typer.Option(help="Ray dashboard and jobs.")] = None,
    data_api_port: Annotated[int | None, typer.Option(help="MT5 data API.")] = None,
    head_port: Annotated[int | None, typer.Option(help="Ray head.")] = None,
    head_host: Annotated[str | None, typer.Option(help="The head's address as other machines reach it.")] = None,
    profile: Annotated[str, typer.Option(help="local | production")] = "local",
    no_train: Annotated[bool, typer.Option("--no-train", help="Do not submit the first training.")] = False,
    no_schedule: Annotated[bool, typer.Option("--no-schedule", help="Do not retrain by the timetable.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Start Prometheus and Grafana beside it, if installed; `down` ends them.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Return when forecasts are served.")] = False,
    as_json: Json = False,
) -> None:
    """Start everything and stay attached until Ctrl-C; a second `up` resumes, and brings a lost mt5 node back."""
    from cluster import attach, bootstrap
    from cluster.progress import Progress

    given: dict[str, Any] = {
        "market": market, "bars_dir": bars, "symbols": symbols, "timeframes": timeframes, "speed": speed, "start": start,
        "seed": seed, "history_days": history_days, "data_api_url": data_api_url, "port": port, "dashboard_port": dashboard_port,
        "data_api_port": data_api_port, "head_port": head_port, "head_host": head_host,
        "train_on_start": False if no_train else None, "schedule": False if no_schedule else None,
    }  # fmt: skip
    if market is not None:
        one_of(market, ("simulated", "recorded", "mt5", "http"), "market")
    attach.heed_stop_signals()
    with Progress() as progress:
        try:
            resolved, record, started = bootstrap.up(given, progress, profile=profile, watched=watch)
        except (KeyboardInterrupt, SystemExit):  # the latter is Ray's answer to TERM
            progress.say("interrupted: ending what was started")
            bootstrap.abandon(given, profile)
            raise
    show(bootstrap.connection_table(resolved, record), as_json, attach.connection_words)
    sys.stdout.flush()
    if not detach and started:
        attach.stay(resolved, record)


@app.command(epilog=example("lstmc roll"))
def roll(as_json: Json = False) -> None:
    """Let the code as it is now take over from the one that runs, without a failed request. Not for new packages or settings."""
    from cluster.progress import Progress
    from cluster.roll import roll as roll_over

    with Progress() as progress:
        done = roll_over(settings(), progress)
    show(done, as_json, lambda _: f"rolled in {done['seconds']} s")


@app.command(epilog=example("lstmc down"))
def down(as_json: Json = False) -> None:
    """End exactly the processes that `up` started. Bars, models and ledger stay."""
    from cluster import head_state, nodes

    here = settings()
    ended = nodes.stop(here.home_path)
    head_state.forget(here)
    show({"ended": ended}, as_json, lambda _: f"ended {ended} processes" if ended else "nothing was running")


@app.command(epilog=example("lstmc status --json"))
def status(as_json: Json = False) -> None:
    """Nodes, actors, Serve, jobs, champions, bars, memory, and the first root cause when something is wrong."""
    from cluster import health
    from cluster.attach import status_words

    here = settings()
    report = health.collect(here, health.current_run(here))
    show(report, as_json, status_words)
    if report["root_cause"]:
        raise typer.Exit(0 if report["running"] else 3)


@app.command(epilog=example("lstmc doctor"))
def doctor(
    head: Annotated[
        str | None, typer.Option(help="HOST[:PORT] of a head that this Linux machine shall join; run it there.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the machine and the installation; every failed check names its fix."""
    from cluster.doctor import checks
    from mt5_actor_windows.doctor import in_words

    found = checks(head)
    show(found, as_json, in_words)
    if not all(check["ok"] for check in found):
        raise typer.Exit(1)


@app.command(epilog=example("lstmc train --preset quick --symbols EURUSD,GBPUSD --follow"))
def train(
    preset: Annotated[str, typer.Option(help="quick | full | m15")] = "quick",
    symbols: Annotated[str | None, typer.Option(help="Only these; default: all.")] = None,
    timeframe: Annotated[str | None, typer.Option(help="Default: all of the installation.")] = None,
    budget: Annotated[str | None, typer.Option(help="Wall time, for example 30m.")] = None,
    submission_id: Annotated[str | None, typer.Option(help="The same id twice is one run.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Show the log and wait for the end.")] = False,
    as_json: Json = False,
) -> None:
    """Submit a training run as a Ray job."""
    from cluster import jobs
    from market.errors import ModelError
    from market.symbols import symbols as parse_symbols
    from market.timeframes import Timeframe

    one_of(preset, ("quick", "full", "m15"), "preset")
    codes = ",".join(s.code for s in parse_symbols(symbols.split(","))) if symbols else None
    frame = Timeframe.parse(timeframe).value if timeframe else None
    here = settings()
    submission = jobs.submit_training(
        here, preset, symbols=codes, timeframe=frame, budget=budget, submission_id=submission_id
    )
    if not follow:
        return show(
            {"submission_id": submission},
            as_json,
            lambda _: f"submitted {submission}; follow it with `ray job logs -f {submission}`",
        )
    ended = jobs.follow(here, submission, lambda text: print(text, end="", file=sys.stderr, flush=True))
    show({"submission_id": submission, "status": ended}, as_json, lambda _: f"{submission}: {ended}")
    if ended != "SUCCEEDED":
        raise ModelError(f"The training run {submission} ended as {ended}.", hint="Its log says why.")


@app.command(epilog=example("lstmc evaluate --bars ../bars --out out/report"))
def evaluate(
    bars: Annotated[str, typer.Option(help="A folder of SYMBOL_TF.parquet or .csv.")],
    out: Annotated[str, typer.Option(help="Where report.json and report.html go.")],
    timeframe: Annotated[str, typer.Option()] = "H1",
    symbols: Annotated[str | None, typer.Option(help="Only these; default: all in the folder.")] = None,
    preset: Annotated[str, typer.Option(help="quick | full | m15 | econometric")] = "quick",
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
    experiments: Annotated[str | None, typer.Option(help="Show these honesty experiments: a folder or file.")] = None,
    as_json: Json = False,
) -> None:
    """Run the whole protocol on any folder of bars; needs no cluster."""
    from tuning.evaluate import main as evaluate_main

    words = ["--bars", bars, "--out", out, "--timeframe", timeframe, "--preset", preset, "--workers", str(workers)]
    words += ["--symbols", symbols] if symbols else []
    words += ["--experiments", experiments] if experiments else []
    code = evaluate_main([*words, "--json"] if as_json else words)
    if code:
        raise typer.Exit(code)


@app.command(epilog=example("lstmc predict EURUSD --timeframe H1"))
def predict(symbol: str, timeframe: Annotated[str | None, typer.Option()] = None, as_json: Json = False) -> None:
    """The newest forecast of one symbol, as the HTTP API gives it."""
    from cluster.attach import forecast_words, get_forecast

    show(get_forecast(settings(), symbol, timeframe), as_json, forecast_words)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog=example("lstmc bench startup --json"),
)
def bench(context: typer.Context, name: str, as_json: Json = False) -> None:
    """Run one benchmark (startup, ingest, train, features, forecast ...), print one JSON object. Further arguments go to it."""
    import importlib

    from configs.settings import ROOT

    known = sorted(p.stem for p in (ROOT / "benchmarks").glob("*.py") if "\ndef main(" in p.read_text())
    one_of(name, known, "benchmark")
    code = importlib.import_module(f"benchmarks.{name}").main(list(context.args))
    if code:
        raise typer.Exit(code)


def main() -> None:
    """The console script."""
    sys.exit(run(app))


__all__ = ["app", "main", "note"]
