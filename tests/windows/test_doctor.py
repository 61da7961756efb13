"""The doctor on real Windows Python: what it finds where there is no terminal, no secrets and, under Wine, no PowerShell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.windows.wine_lab import ROOT, WineLab

PACKAGE = Path(__file__).with_name("simulated_package")
NOBODY = ("--head", "127.0.0.1:1", "--time-server", "nowhere.invalid")


def examined(windows: WineLab, *arguments: str, **variables: str) -> dict[str, dict[str, Any]]:
    """check -> what the doctor says of it. It must end with 1: under Wine much is bad."""
    process = windows.start("-m", "mt5_actor_windows.doctor", "--json", *arguments, variables=variables)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 1, error.decode(errors="replace")
    return {one["check"]: one for one in json.loads(out)}


def test_what_the_doctor_says_of_a_bare_windows(windows: WineLab, tmp_path: Path) -> None:
    found = examined(windows, "--home", f"Z:{tmp_path}", *NOBODY)
    good = {name for name, one in found.items() if one["ok"]}
    assert good == {"python", "numpy", "MetaTrader5", "ports", "disk"}
    assert found["MetaTrader5"]["found"] == "5.0.6231, can be imported"
    assert found["python"]["found"].endswith(", 64-bit")
    assert "-10003 (IPC initialize failed, MetaTrader 5 x64 not found)" in found["terminal"]["found"]
    assert "numpy 2.1.3, not" in found["packages"]["found"] or "no aiohttp" in found["packages"]["found"]
    assert found["secrets"]["found"] == "no ray_token, no data_api_keys.json"
    assert found["head"]["found"].startswith("127.0.0.1:1 cannot be reached")
    assert found["clock"]["found"].startswith("nowhere.invalid did not tell the time")
    by_powershell = {name for name, one in found.items() if one["found"].startswith("PowerShell did not answer")}
    assert by_powershell == {
        "desktop", "terminal process", "secrets private", "memory", "log-on task", "firewall", "sleep",
    }  # fmt: skip
    assert all(one["fix"] for name, one in found.items() if name not in good)


def test_the_doctor_sees_a_terminal_that_answers(windows: WineLab, tmp_path: Path) -> None:
    """A simulator under the package's name, read through the product's own session process."""
    path = f"Z:{PACKAGE};Z:{ROOT}"
    found = examined(windows, "--home", f"Z:{tmp_path}", "--symbols", "EURUSD,GBPUSD", *NOBODY, PYTHONPATH=path)
    assert found["terminal"]["found"] == "account 1 on Simulated-Demo, 2 of our symbols"
    assert found["history"]["ok"]
    assert found["broker clock"]["found"].startswith(("UTC+2 now", "UTC+3 now"))
    assert found["symbols"]["found"] == "EURUSD, no GBPUSD"
    assert found["symbols"]["fix"].startswith("This account offers EURUSD, USDJPY.")
