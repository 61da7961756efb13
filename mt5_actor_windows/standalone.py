"""The data API as a program of its own, for a Windows host that is no node of a Ray cluster: one terminal, one port.

Needs what the Windows node installs and nothing else. Does not know Ray.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.settings import Settings, make_settings
from market.errors import ClusterError, ConfigError
from market.market_clock import MarketClock
from mt5_actor_windows.api_keys import COMMAND as KEY_COMMAND
from mt5_actor_windows.api_keys import live_keys
from mt5_actor_windows.command_line import add_home, new_parser, note, run

COMMAND = "python -m mt5_actor_windows.data_api"
LOOK_SECONDS = 0.5  # between looks at the server's thread; on Windows a wait without an end hears no Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    text = "Serve a terminal's bars, prices and ticks over HTTP until Ctrl-C."
    parser = new_parser(COMMAND, text, f"{COMMAND} --market simulated --symbols EURUSD,USDJPY --port 8001")
    parser.add_argument("--market", choices=("mt5", "simulated", "recorded"), help="default: LSTMC_MARKET, else mt5")
    parser.add_argument("--bars", metavar="DIR", help="recorded: a folder of SYMBOL_TF.parquet or .csv")
    parser.add_argument("--symbols", metavar="A,B", help="simulated and recorded: only these")
    parser.add_argument("--host", metavar="ADDR", help="this host's address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="default: 8001; 0 takes a free one")
    add_home(parser)
    parser.add_argument("--json", action="store_true", help="print the address as one line of JSON")
    given = parser.parse_args(arguments)
    return run("data_api", lambda: serve(given))


def serve(given: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; 0 then."""
    os.environ["LSTMC_HOME"] = str(Path(given.home).expanduser().resolve())
    settings = standalone_settings(given)
    _log_to_stderr()
    ended = _ended_by_signals()
    from mt5_actor_windows.actor import Mt5Actor

    actor = Mt5Actor(settings)
    try:
        actor.start_data_api()
        api = actor.data_api
        assert api is not None
        keys = _live_keys(settings.home_path)
        told = {"url": api.url, "market": settings.market, "keys": len(keys), "home": str(settings.home_path)}
        words = f"MT5 data API ({settings.market} market) on {api.url}"
        print(json.dumps(told) if given.json else words, flush=True)
        while not ended.wait(LOOK_SECONDS):
            if not api.thread.is_alive():
                raise ClusterError("The MT5 data API has ended by itself.", hint="Its log says why; start it again.")
    finally:
        actor.close()
    return 0


def _live_keys(home: Path) -> list[dict[str, str]]:
    """Trouble with keys is said and is no reason not to listen: it can be mended while the API serves."""
    try:
        keys = live_keys(home)
    except ConfigError as error:
        note(str(error))
        return []
    if not keys:
        note(f"There is no key yet, so nobody is let in. Make one: {KEY_COMMAND} issue.")
    return keys


def standalone_settings(given: argparse.Namespace) -> Settings:
    """Settings of one terminal without a cluster. ConfigError, BadBars, UnknownSymbol name what is wrong.

    A recording has been played to its end here: all of it is history, and the market's now is its last close.
    """
    market = given.market or os.environ.get("LSTMC_MARKET") or ("recorded" if given.bars else "mt5")
    fields: dict[str, Any] = {"home": given.home, "market": market, "speed": 1.0, "bars_dir": given.bars}
    fields |= {"symbols": given.symbols, "data_api_host": given.host, "data_api_port": given.port}
    if market == "http":
        raise ConfigError("market=http has no terminal to serve.", hint="Use mt5, simulated or recorded.")
    if market == "recorded":
        fields |= _recorded(given.bars or os.environ.get("LSTMC_BARS_DIR"), given.symbols)
    return make_settings(**fields)


def _recorded(folder: str | None, symbols: str | None) -> dict[str, Any]:
    from market.bar_files import folder_contents
    from market.symbols import symbols as known_symbols

    if folder is None:
        raise ConfigError("market=recorded needs a folder.", hint="Give one with --bars DIR.")
    contents = folder_contents(folder)
    codes = [s.code for s in known_symbols(part.strip() for part in symbols.split(","))] if symbols else None
    played = {key: span for key, span in contents.items() if codes is None or key[0] in codes}
    if not played:
        have = ", ".join(sorted({symbol for symbol, _ in contents}))
        raise ConfigError(f"{folder} has no bars of {symbols}.", hint=f"It has {have}.")
    end = max(close for _, close in played.values())
    return {
        "bars_dir": folder,
        "symbols": sorted({symbol for symbol, _ in played}),
        "timeframes": sorted({timeframe for _, timeframe in played}),
        "clock": MarketClock(float(int(time.time())), end.timestamp(), 1.0).to_dict(),
    }


def _log_to_stderr() -> None:
    """Standard output carries the address only."""
    import structlog

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))


def _ended_by_signals() -> threading.Event:
    ended = threading.Event()
    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):  # the last one is Windows' own: Ctrl-Break, and what services send
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: ended.set())
    return ended
