"""Words for people: the table after `up`, `status`, a forecast; and the attached `up` that lives until Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
import time
from typing import Any

from cluster import head_state, health, nodes
from cluster.console import note, rows
from cluster.progress import Progress
from cluster.run_record import Run, read_run
from configs.settings import Settings
from market.errors import InputError, LstmcError, MarketUnavailable, WrongToken

LOOK_SECONDS = 2.0
AGAIN_SECONDS = 0.05
QUIET_SECONDS = 300.0  # without a terminal: how often the live line is written down


def connection_words(table: dict[str, Any]) -> str:
    lines = [
        ["page", table["page"]],
        ["token", table["token"]],
        ["API", table["curl"]],
        ["API reference", table["docs"]],
        ["MT5 data API", table["data_api"]],
        ["Ray dashboard", f"{table['ray_dashboard']}  (asks for a token: the content of {table['ray_token']})"],
        *([name, url] for name, url in table["watch"].items() if url),
        ["ray commands", table["ray_env"]],
        ["retrain", table["retrain"]],
        [
            "ready",
            f"{', '.join(table['symbols'])}; champion {', '.join(f'{t}: {m}' for t, m in table['champions'].items())}",
        ],
        ["stop", table["stop"]],
    ]
    return rows(["", ""], lines).strip("\n")


def age_words(market_seconds: float | None) -> str:
    """5 s, 12 min, 3 h 20 min, 2 d 4 h: two units at most."""
    if market_seconds is None:
        return "-"
    minutes, seconds = divmod(int(market_seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{n} {unit}" for n, unit in ((days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")) if n]
    return " ".join(parts[:2] if days or hours else parts[:1]) or "0 s"


def heed_stop_signals() -> None:
    """TERM interrupts as Ctrl-C does, and Ctrl-C in a shell's background job too, where it is switched off.

    A destructor or a weak reference's callback swallows what is raised in it; then it is raised once more, a moment later.
    """
    otherwise, this_thread = sys.unraisablehook, threading.get_ident()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def raise_again(swallowed: sys.UnraisableHookArgs) -> None:
        if issubclass(swallowed.exc_type, (KeyboardInterrupt, SystemExit)):  # the latter is Ray's answer to TERM
            threading.Timer(AGAIN_SECONDS, signal.pthread_kill, (this_thread, signal.SIGINT)).start()
        else:
            otherwise(swallowed)

    sys.unraisablehook = raise_again
    for stop_signal in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop_signal, interrupt)


def stay(settings: Settings, run: Run) -> None:
    """Stay attached with one status line; Ctrl-C (or TERM) ends what `up` started."""
    heed_stop_signals()  # joining the cluster gave TERM a handler of Ray's
    note("Ctrl-C ends everything that was started.")
    try:
        with Progress(quiet_seconds=QUIET_SECONDS) as progress:
            while (now := read_run(settings.home_path)) is not None and now.run_id == run.run_id and now.state == "up":
                if not now.alive("head"):
                    progress.say(
                        "the Ray head has died; `lstmc up` starts it again. See "
                        + str(settings.home_path / "logs" / "head.log")
                    )
                    return _end(settings)  # what Redis has of it is for the next head
                progress.doing(_live_line(settings, now))
                time.sleep(LOOK_SECONDS)
            else:
                return progress.say("stopped by `lstmc down`")
    except KeyboardInterrupt:
        _end(settings)
        head_state.forget(settings)


def _end(settings: Settings) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it alive
    note("\nending what was started ...")
    note(f"ended {nodes.stop(settings.home_path)} processes; bars, models and ledger stay")


def _live_line(settings: Settings, run: Run) -> str:
    if settings.plays_terminal and not run.alive("mt5"):
        return "the mt5 node is down; forecasts go stale. `lstmc up` in another shell brings it back"
    try:
        status = health.api_status(settings)
    except LstmcError as error:
        return str(error)
    source = (status.get("source") or {}).get("source") or {}
    feed = "connected" if source.get("connected") else f"not connected: {source.get('reason')}"
    return f"market {settings.market_clock.now():%a %Y-%m-%d %H:%M} UTC, source {feed}"


def status_words(report: dict[str, Any]) -> str:
    blocks = [f"home    {report['home']}\nmarket  {report['market']}, {report['market_now']}"]
    for name, titles in (
        ("nodes", ["role", "state", "address", "resources"]),
        ("actors", ["name", "state", "pid", "restarts"]),
        ("jobs", ["id", "status", "message"]),
    ):
        part = report.get(name)
        if isinstance(part, list):
            blocks.append(f"{name}\n" + rows(titles, [[line.get(t) for t in titles] for line in part]))
        elif part:
            blocks.append(f"{name}: {part['error']}")
    source = source_words(report)
    if source:
        blocks.append(source)
    serve = report.get("serve")
    if serve:
        blocks.append(f"serve   {serve.get('status', serve.get('error'))} {serve.get('deployments', '')}")
    if report.get("watch"):
        blocks.append(watch_words(report["watch"]))
    blocks.append(
        "champions\n"
        + rows(
            ["timeframe", "id", "kind"],
            [[t, (c or {}).get("id"), (c or {}).get("kind")] for t, c in report["champions"].items()],
        )
        if "error" not in report["champions"]
        else report["champions"]["error"]
    )
    blocks.append(schedule_words(report["schedule"]))
    if "error" not in report["bars"]:
        blocks.append(
            "bars\n"
            + rows(
                ["series", "last close", "age"],
                [[s, b["last_close"], age_words(b["age_market_seconds"])] for s, b in report["bars"].items()],
            )
        )
    if report.get("memory_mb") is not None:
        blocks.append(f"memory  {report['memory_mb']} MB in all (PSS)")
    blocks.append(f"wrong   {report['root_cause']}" if report["root_cause"] else "all is well")
    return "\n\n".join(blocks)


def watch_words(watchers: dict[str, str | None]) -> str:
    ended = "has ended: `lstmc up --watch` starts it again"
    return "watch   " + ", ".join(f"{name} {url or ended}" for name, url in watchers.items())


def schedule_words(schedule: dict[str, Any]) -> str:
    if "error" in schedule:
        return f"schedule: {schedule['error']}"
    after, last = schedule["next"], schedule["last"]
    head = (
        f"{after['run']} at {after['slot']}"
        if schedule["by_itself"]
        else "left out; `lstmc schedule run` submits what is due"
    )
    if schedule["paused_since"]:
        head = f"paused since {schedule['paused_since']}"
    runs = [*schedule["open"], *([last] if last else [])]
    return "\n".join(
        [f"schedule  {head}", *(f"  {r['run']} of {r['slot']} {r['state']} {r['why']}".rstrip() for r in runs)]
    )


def source_words(report: dict[str, Any]) -> str:
    """By which way the bars come, and the clock of the server they come from; "" while nothing is known of either."""
    status = report.get("api")
    told = (status.get("source") or {}) if isinstance(status, dict) else {}
    source, clock = told.get("source") or {}, report.get("clock") or {}
    lines = []
    if source:
        state = "connected" if source.get("connected") else f"not connected: {source.get('reason')}"
        lines.append(f"source  {', '.join(part for part in (told.get('transport'), state) if part)}")
    if clock.get("clock_rule"):
        lines.append(f"clock   {clock['clock_rule']} on {clock.get('server')}: {clock.get('clock')}")
    return "\n".join(lines)


def get_forecast(settings: Settings, symbol: str, timeframe: str | None) -> dict[str, Any]:
    """The newest forecast over HTTP; an LstmcError with the API's own words otherwise."""
    from market.symbols import symbol as parse_symbol
    from market.timeframes import Timeframe
    from serve_app.auth import issue_token

    code = parse_symbol(symbol).code
    frame = Timeframe.parse(timeframe or settings.timeframes[0]).value
    url = health.api_url(settings, f"/api/v1/predictions/{code}?timeframe={frame}")
    status, body = health.http_get(url, issue_token(settings, "lstmc-predict", days=0.01))
    if status == 200:
        return dict(body)
    if status == 0:
        from market.errors import NotRunning

        raise NotRunning(
            f"The HTTP API does not answer at {health.api_url(settings)}.", hint="Start the cluster with `lstmc up`."
        )
    kind: type[LstmcError] = WrongToken if status in (401, 403) else InputError if status < 500 else MarketUnavailable
    problem = body if isinstance(body, dict) else {"detail": str(body)}
    raise kind(str(problem.get("detail") or problem.get("title")), hint=str(problem.get("hint") or ""))


def forecast_words(answer: dict[str, Any]) -> str:
    from market.symbols import symbol as parse_symbol

    lines, digits = [], parse_symbol(answer["symbol"]).digits
    for horizon in answer["horizons"]:
        quantiles = {float(k): v for k, v in (horizon.get("price_quantiles") or {}).items()}
        span = f"{quantiles[0.1]:.{digits}f} .. {quantiles[0.9]:.{digits}f}" if {0.1, 0.9} <= set(quantiles) else "-"
        volatility = horizon.get("volatility")
        p_up = horizon.get("p_up")
        lines.append(
            [
                horizon["bars"],
                horizon["target_time"],
                f"{volatility:.3%}" if volatility is not None else "-",
                span,
                f"{p_up:.3f}" if p_up is not None else "-",
            ]
        )
    head = f"{answer['symbol']} {answer['timeframe']} as of {answer['as_of']}, last close {answer['last_close']}, model {answer['model_id']}"
    warning = f"\nSTALE: {answer.get('reason')}" if answer.get("stale") else ""
    return f"{head}{warning}\n" + rows(["bars", "until", "volatility", "80 % interval", "p(up)"], lines)
