"""The command line's surface: every command has help with an example, every user error one sentence and its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq
import pytest
from typer.main import get_command

from actors.retrain_scheduler import log_file
from actors.run_log import Attempt, Run
from cluster.cli import app
from cluster.console import run
from configs.settings import ensure_secrets, load_settings, make_settings, save_settings

SURFACE = {
    "up", "down", "status", "doctor", "backup", "restore", "train", "evaluate", "predict", "bench",
    "bars import", "bars backfill", "bars gaps", "bars export",
    "models list", "models show", "models promote", "models rollback", "models trust", "models replay",
    "ledger verify", "ledger show",
    "key issue", "key accept", "key revoke", "key list", "key certificate",
    "token issue", "token revoke", "token list-revoked", "token keys list", "token keys rotate", "token keys retire",
    "schedule show", "schedule run", "schedule pause", "schedule resume", "roll", "deploy nginx",
    "node head", "node worker", "node windows", "node wireguard",
}  # fmt: skip


def commands(group: Any = None, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in (group or get_command(app)).commands.items():
        if getattr(command, "commands", None):
            yield from commands(command, f"{above}{name} ")
        else:
            yield f"{above}{name}", command


def test_the_surface_is_stable() -> None:
    assert {name for name, _ in commands()} == SURFACE


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_every_command_has_help_an_example_and_json(name: str, command: Any) -> None:
    assert command.help
    assert command.epilog.startswith(f"Example: lstmc {name}")
    assert any("--json" in parameter.opts for parameter in command.params)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LSTMC_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def installed(home: Path) -> Path:
    settings = make_settings(home=home)
    ensure_secrets(settings)
    save_settings(settings)
    return home


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["down"],
        ["train"],
        ["models", "list"],
        ["token", "issue"],
        ["predict", "EURUSD"],
        ["ledger", "verify"],
    ],
)
def test_without_an_installation(home: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, command) == 3
    error = capsys.readouterr().err
    assert "No installation" in error
    assert "lstmc up" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (["predict", "EURXXX"], 2, "Unknown symbol"),
        (["predict", "EURUSD", "--timeframe", "H7"], 2, "Unknown timeframe"),
        (["train", "--preset", "huge"], 2, "Unknown preset"),
        (["train", "--symbols", "EURUSD,ABCDEF"], 2, "Unknown symbol"),
        (["up", "--market", "moon"], 2, "Unknown market"),
        (["up", "--market", "mt5"], 2, "--head-host ADDR"),
        (["up", "--market", "recorded"], 2, "bars_dir"),
        (["up", "--market", "recorded", "--bars", "/no/such/folder"], 2, "/no/such/folder"),
        (["up", "--speed", "0"], 2, "speed"),
        (["up", "--symbols", "EURUSD,NOPE"], 2, "Unknown symbol"),
        (["bars", "export", "--out", "x", "--since", "yesterday"], 2, "is not a time"),
        (["bars", "import", "/no/such/EURUSD_H1.csv"], 2, "/no/such/EURUSD_H1.csv"),
        (["models", "show", "h1-0"], 5, "no model"),
        (["models", "rollback"], 5, "no earlier champion"),
        (["bench", "nonsense"], 2, "Unknown benchmark"),
        (["node", "worker", "--start", "--host", "10.8.0.1"], 2, "--address"),
        (["up", "--no-such-flag"], 2, "--no-such-flag"),
    ],
)
def test_bad_input_is_one_sentence(
    installed: Path, command: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, command) == code
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error


def test_a_terminal_elsewhere_needs_a_head_that_it_reaches(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LSTMC_MT5_NODE", "elsewhere")
    assert run(app, ["up"]) == 2
    assert "--head-host ADDR" in capsys.readouterr().err


def test_status_of_a_stopped_installation(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["status", "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert report["running"] is False
    assert "lstmc up" in report["root_cause"]
    assert report["champions"] == {"H1": None}


def test_a_token_is_data_on_stdout(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["token", "issue", "--subject", "desk", "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["token"].count(".") == 2
    assert run(app, ["token", "issue"]) == 0
    assert capsys.readouterr().out.strip().count(".") == 2


def test_a_token_is_revoked_by_its_id(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*command: str) -> Any:
        assert run(app, ["token", *command, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    issued = said("issue", "--days", "2", "--scopes", "read,admin")
    assert set(issued) == {"token", "subject", "days", "jti", "exp", "expires_at"}
    assert said("list-revoked") == []
    entry = said("revoke", issued["jti"], "--until", issued["expires_at"])
    assert (entry["jti"], entry["until"]) == (issued["jti"], issued["expires_at"])
    assert said("list-revoked") == [entry]
    assert run(app, ["token", "revoke", issued["token"]]) == 2
    assert "no token id" in capsys.readouterr().err
    assert run(app, ["token", "revoke", issued["jti"], "--until", "soon"]) == 2
    assert "--until 'soon' is not a time" in capsys.readouterr().err


def test_signing_keys_are_rotated_and_retired(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*command: str) -> Any:
        assert run(app, ["token", "keys", *command, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert said("list") == []
    first, second = (said("rotate")["kid"] for _ in range(2))
    assert [(key["kid"], key["active"]) for key in said("list")] == [(second, True), (first, False)]
    assert said("retire", first) == {"kid": first, "retired": True}
    assert [key["kid"] for key in said("list")] == [second]
    assert run(app, ["token", "keys", "retire", second]) == 2
    assert "lstmc token keys rotate" in capsys.readouterr().err
    assert run(app, ["token", "keys", "retire", "x"]) == 2
    assert run(app, ["token", "keys", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith(second)


def test_bars_go_in_and_out(installed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hours = [f"2024-03-04 {h:02d}:00:00,1.1,1.102,1.099,1.101,{h + 1}" for h in range(24) if h not in (7, 8)]
    source = tmp_path / "EURUSD_H1.csv"
    source.write_text("time,open,high,low,close,tick_volume\n" + "\n".join(hours) + "\n")
    assert run(app, ["bars", "import", str(source), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["added"] == 22
    assert run(app, ["bars", "import", str(source), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["unchanged"] == 22
    assert run(app, ["bars", "gaps", "--symbols", "EURUSD", "--json"]) == 0
    holes = [(g["from"][11:13], g["bars"], g["kind"]) for g in json.loads(capsys.readouterr().out)]
    assert holes == [("07", 2, "unfetched")], "a file is no answer of a source"
    assert run(app, ["bars", "export", "--symbols", "EURUSD", "--out", str(tmp_path / "out"), "--json"]) == 0
    exported = json.loads(capsys.readouterr().out)
    assert exported == [{"file": str(tmp_path / "out" / "EURUSD_H1.parquet"), "bars": 22}]
    assert run(app, ["bars", "import", exported[0]["file"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["unchanged"] == 22


NEW_YORK = ZoneInfo("America/New_York")
BROKER_H1 = ("AUDUSD", "EURGBP", "GBPUSD", "USDCAD", "USDCHF", "USDJPY", "XAUUSD")


def test_real_recordings_come_in_with_their_clocks_and_holes(
    installed: Path, recorded_bars: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whose clock each file has, and where it has no bars: the holidays, Friday's last hours, gold's daily break."""
    assert run(app, ["bars", "import", str(recorded_bars), "--json"]) == 0
    report = {f"{one['symbol']}_{one['timeframe']}": one for one in json.loads(capsys.readouterr().out)}
    files = {path.stem: pq.read_metadata(path).num_rows for path in recorded_bars.glob("*.parquet")}
    del files["EURUSD_M1_dirty_raw"]  # its name is not that of a series
    assert {name: one["added"] for name, one in report.items()} == files
    assert {name for name, one in report.items() if one["quarantined"]} == set()
    broker = {name for name, one in report.items() if one["clock"]["rule"] == "new_york"}
    assert broker == {f"{symbol}_H1" for symbol in BROKER_H1} | {"EURUSD_H4", "EURUSD_D1", "XAUUSD_D1"}
    assert {one["clock"]["rule"] for name, one in report.items() if name not in broker} == {"utc"}
    assert "slips on 2017-11-03 (+1 h)" in report["EURUSD_H1"]["clock"]["message"]

    assert run(app, ["bars", "gaps", "--symbols", ",".join((*BROKER_H1, "EURUSD")), "--timeframe", "H1", "--json"]) == 0
    holes = json.loads(capsys.readouterr().out)
    assert {hole["kind"] for hole in holes} == {"unfetched"}, "a file is no answer of a source"
    eurusd = [(hole["from"], hole["bars"]) for hole in holes if hole["symbol"] == "EURUSD"]
    assert eurusd == [("2017-12-24T22:00:00Z", 24), ("2017-12-31T22:00:00Z", 24)]
    begins = [(hole, datetime.fromisoformat(hole["from"]).astimezone(NEW_YORK)) for hole in holes]
    odd: dict[tuple[str, int], set[str]] = {}
    for hole, at in begins:
        festive = at.strftime("%m-%d") in ("12-24", "12-25", "12-31", "01-01")
        late_friday = at.weekday() == 4 and at.hour >= 15
        if hole["symbol"] not in ("EURUSD", "XAUUSD") and not festive and not late_friday:
            odd.setdefault((hole["from"], hole["bars"]), set()).add(hole["symbol"])
    fx = set(BROKER_H1) - {"XAUUSD"}
    assert odd == {
        ("2014-05-01T01:00:00Z", 1): {"AUDUSD", "USDCHF", "USDJPY"},
        ("2014-05-01T01:00:00Z", 2): {"EURGBP", "GBPUSD", "USDCAD"},
        ("2015-01-15T19:00:00Z", 27): {"USDCHF"},  # the day the franc was let go
        ("2015-06-03T22:00:00Z", 1): {"USDCHF"},
        ("2016-10-13T13:00:00Z", 1): fx,
    }
    gold = [at for hole, at in begins if hole["symbol"] == "XAUUSD"]
    assert sum(at.hour == 17 for at in gold) > 0.9 * len(gold), "its daily break"


def test_an_import_says_which_clock_and_what_is_odd_about_it(
    installed: Path, recorded_bars: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, ["bars", "import", str(recorded_bars), "--timeframe", "H1"]) == 0
    said = capsys.readouterr().out
    assert "new_york" in said
    assert "EURUSD H1: 40 of 42 weekly opens follow utc." in said
    assert "slips on 2017-11-03 (+1 h): this file's clock or theirs is wrong there." in said
    dirty = str(recorded_bars / "EURUSD_M1_dirty_raw.parquet")
    assert run(app, ["bars", "import", dirty, "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert (report["quarantined"], report["reasons"]) == (326, {"price_jump": 326})


def test_the_schedule_shows_its_next_slots(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["schedule", "show", "--json"]) == 0
    lines = {line["name"]: line for line in json.loads(capsys.readouterr().out)}
    assert lines.keys() == {"daily", "weekly", "m15", "drift"}
    assert lines["daily"]["next"].endswith("00:00Z")
    assert (lines["m15"]["next"], lines["m15"]["why"]) == (None, "no M15 in this installation")


def test_the_schedule_shows_what_became_of_its_runs(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slot = datetime(2024, 3, 5, 6, tzinfo=UTC)
    done = Attempt("daily-20240305T0600", slot + timedelta(seconds=9), slot + timedelta(seconds=609), "succeeded")
    ran = Run("daily", slot, slot + timedelta(days=1), "quick", "30m", state="succeeded", attempts=(done,))
    with log_file(load_settings()).change() as held:
        held[0] = held[0].put(ran)
    assert run(app, ["schedule", "show", "--runs", "--json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)
    assert (line["waited"], line["took"], line["wall"], line["state"]) == (9, 600, 1800, "succeeded")
    assert run(app, ["schedule", "show", "--runs"]) == 0
    assert "daily-20240305T0600 (succeeded)  9 s     600 s  1800 s" in capsys.readouterr().out


def test_the_schedule_pauses_and_goes_on(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for word in ("pause", "pause", "resume"):
        assert run(app, ["schedule", word, "--json"]) == 0
        said.append(json.loads(capsys.readouterr().out)["paused_since"])
    assert said[0] == said[1]
    assert said[2] is None


def test_a_run_by_hand_waits_for_a_cluster(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["schedule", "run"]) == 0
    assert "nothing is due" in capsys.readouterr().out
    assert run(app, ["schedule", "run", "--name", "nightly"]) == 2
    assert "daily, weekly, m15, drift" in capsys.readouterr().err
    assert run(app, ["schedule", "run", "--name", "daily"]) == 3
    assert "lstmc up" in capsys.readouterr().err
    assert [r.asked_by for r in log_file(load_settings()).read().open] == ["hand"]


def test_help_is_quick_because_heavy_imports_wait() -> None:
    probe = "import sys, cluster.cli; print([m for m in ('ray', 'torch', 'pyarrow', 'numpy', 'pydantic', 'fastapi') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True, env=os.environ)
    assert out.stdout.strip() == "[]"


def test_windows_lines_have_placeholders_only_without_an_installation(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, ["node", "windows", "--json"]) == 0
    shown = capsys.readouterr()
    assert "-Head HEAD:6379 -RayToken 'RAY_TOKEN' -DataApiKeyDigest DATA_API_KEY_DIGEST" in shown.out
    assert "placeholders" in shown.err


def test_windows_lines_of_an_installation_are_ready_to_paste(
    installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, ["node", "windows", "--print", "--host", "10.8.0.1", "--address", "10.8.0.2", "--json"]) == 0
    shown = capsys.readouterr()
    plan, token = json.loads(shown.out), (installed / "secrets" / "ray_token").read_text()
    assert plan["node"] == "windows"
    assert f"-Head 10.8.0.1:6379 -Address 10.8.0.2 -RayToken '{token}' " in "\n".join(plan["commands"])
    assert token not in shown.err
    assert "keep no copy" in shown.err
    assert run(app, ["node", "windows"]) == 0
    shown = capsys.readouterr()
    assert "HEAD:" not in shown.out
    assert "--host" in shown.err
    save_settings(make_settings(home=installed, market="mt5", head_host="10.8.0.7"))
    assert run(app, ["node", "windows"]) == 0
    shown = capsys.readouterr()
    assert "-Head 10.8.0.7:6379" in shown.out
    assert "is taken to be" not in shown.err
