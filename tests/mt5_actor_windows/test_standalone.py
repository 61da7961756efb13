"""The data API as a program: a terminal on a host without Ray, read over HTTP, ended by a signal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from market.errors import BadBars, ConfigError, NotConnected, UnknownSymbol
from mt5_actor_windows import standalone
from mt5_actor_windows.api_keys import PLAIN_VARIABLE, issue
from mt5_actor_windows.client import HttpBarSource
from tests.mt5_actor_windows.test_listening import certificate

ROOT = Path(__file__).parent.parent.parent
# What the Windows node installs; nothing else may be needed there.
ABSENT = "ray typer rich torch deltalake lightgbm xgboost sqlalchemy plotly jwt cryptography orjson stamina"

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(*words)`: the program with its home in `tmp_path`; whatever a test leaves running is ended."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith("LSTMC_")}
    running: list[subprocess.Popen[str]] = []

    def started(*words: str, blocked: str = "") -> subprocess.Popen[str]:
        code = f"import sys; sys.modules.update(dict.fromkeys({blocked.split()!r}))\n"  # importing them fails
        code += "import runpy; runpy.run_module('mt5_actor_windows.data_api', run_name='__main__', alter_sys=True)"
        command = [sys.executable, "-W", "error", "-c", code, *words, "--home", str(tmp_path), "--port", "0"]
        pipe = subprocess.PIPE
        running.append(subprocess.Popen(command, cwd=ROOT, env=clean, stdout=pipe, stderr=pipe, text=True))
        return running[-1]

    yield started
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_a_simulated_terminal_is_served_and_ended_by_sigterm(tmp_path: Path, start: Start) -> None:
    process = start("--market", "simulated", "--symbols", "EURUSD,USDJPY", "--json", blocked=ABSENT)
    assert process.stdout is not None
    told = json.loads(process.stdout.readline() or process.communicate()[1])
    assert (told["market"], told["keys"], told["home"]) == ("simulated", 0, str(tmp_path))
    assert told["url"].startswith("http://127.0.0.1:")
    key, kept = issue(tmp_path, "test")
    source, now = HttpBarSource(told["url"], key), datetime.now(UTC)
    health = source.health()
    assert (health["connected"], health["simulated"], health["market"]) == (True, True, "simulated")
    bars = source.closed_bars("EURUSD", "H1", now - timedelta(days=7), now)
    assert bars.num_rows > 100
    source.close()
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "")
    assert "There is no key yet" in errors
    assert kept.id in errors, "the log names the key, on standard error"
    assert key not in errors


def test_with_a_certificate_it_speaks_tls_and_ctrl_c_ends_it(tmp_path: Path, start: Start) -> None:
    tls = certificate(tmp_path / "secrets", "127.0.0.1")
    key, _ = issue(tmp_path)
    process = start("--market", "simulated", "--symbols", "EURUSD", "--host", "0.0.0.0")
    assert process.stdout is not None
    words = process.stdout.readline() or process.communicate()[1]
    assert words.startswith("MT5 data API (simulated market) on https://127.0.0.1:")
    source = HttpBarSource(words.split()[-1], key, ca=tls.certificate)
    assert source.prices(["EURUSD"])[0]["symbol"] == "EURUSD"
    source.close()
    stranger = HttpBarSource(words.split()[-1], "wrong", ca=tls.certificate)
    with pytest.raises(NotConnected, match="API key"):
        stranger.prices(["EURUSD"])
    stranger.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 0


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """The exit code and what was said on standard error, in this process."""
    for name in ("LSTMC_MARKET", "LSTMC_BARS_DIR", PLAIN_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LSTMC_HOME", str(tmp_path))  # `serve` sets it
    monkeypatch.setattr(standalone, "_log_to_stderr", lambda: None)
    monkeypatch.setattr(standalone, "_ended_by_signals", threading.Event)  # the handlers of this process stay

    def run(*words: str) -> tuple[int, str]:
        code = standalone.main(list(words))
        seen = capsys.readouterr()
        assert seen.out == ""
        return code, seen.err

    return run


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--market recorded", "--bars DIR"),
        ("--market recorded --bars /no/such/folder", "/no/such/folder"),
        ("--market simulated --symbols EURXXX", "Unknown symbol"),
        ("--market simulated --host terminal.lan", "no IP address"),
        ("--market simulated --host 8.8.8.8", "without TLS"),
        ("--market simulated --port 99999", "data_api_port"),
    ],
)
def test_bad_input_ends_with_2(command: Callable[..., tuple[int, str]], words: str, says: str) -> None:
    code, error = command(*words.split())
    assert code == 2
    assert says in error
    assert error.startswith("data_api: ")


def test_a_port_that_is_taken_ends_with_3(command: Callable[..., tuple[int, str]]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, error = command("--market", "simulated", "--symbols", "EURUSD", "--port", port)
    assert code == 3
    assert port in error


def settings_of(*words: str) -> standalone.Settings:
    """What the program would serve, through its own parser."""
    found = []
    with pytest.MonkeyPatch.context() as patched:
        for name in ("LSTMC_MARKET", "LSTMC_BARS_DIR"):
            patched.delenv(name, raising=False)
        patched.setattr(standalone, "serve", lambda given: found.append(standalone.standalone_settings(given)) or 0)
        patched.setattr(standalone, "run", lambda _, function: function())
        standalone.main(words)
    return found[0]


def test_a_windows_host_serves_its_terminal_by_default() -> None:
    settings = settings_of()
    assert (settings.market, settings.speed, settings.data_api_port, settings.data_api_host) == (
        "mt5", 1.0, 8001, "127.0.0.1",
    )  # fmt: skip


def test_a_recording_is_all_history(tmp_path: Path) -> None:
    hours = [f"2024-03-04 {hour:02d}:00:00,1.1,1.102,1.099,1.101,{hour + 1}" for hour in range(24)]
    for name in ("EURUSD_H1", "GBPUSD_H1"):
        (tmp_path / f"{name}.csv").write_text("time,open,high,low,close,tick_volume\n" + "\n".join(hours) + "\n")
    settings = settings_of("--bars", str(tmp_path))
    assert (settings.market, settings.symbols, settings.timeframes) == ("recorded", ("EURUSD", "GBPUSD"), ("H1",))
    assert settings.clock is not None
    assert settings.market_clock.now(settings.clock["wall_start"]) >= datetime(2024, 3, 4, 23, tzinfo=UTC)
    assert settings_of("--bars", str(tmp_path), "--symbols", "gbpusd").symbols == ("GBPUSD",)
    with pytest.raises(ConfigError, match="no bars of USDJPY"):
        settings_of("--bars", str(tmp_path), "--symbols", "USDJPY")
    with pytest.raises(UnknownSymbol):
        settings_of("--bars", str(tmp_path), "--symbols", "EURUS")
    with pytest.raises(BadBars):
        settings_of("--bars", str(tmp_path / "empty"))


def test_http_is_no_market_to_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    given = standalone.argparse.Namespace(market="http", home=".", bars=None, symbols=None, host=None, port=None)
    with pytest.raises(ConfigError, match="market=http"):
        standalone.standalone_settings(given)
