"""The PowerShell scripts, read by a grammar since no PowerShell is at hand: well formed, and what they name exists.

That they do on Windows what they should is not shown here.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tree_sitter_powershell
from tree_sitter import Language, Node, Parser

from cluster.nodes import windows_plan
from mt5_actor_windows import node_ports
from mt5_actor_windows.node_checks import port_ranges

ROOT = Path(__file__).parent.parent.parent
INSTALL = ROOT / "mt5_actor_windows" / "install"
SCRIPTS = sorted(INSTALL.glob("*.ps1"))
FOR_PEOPLE = ("install", "run", "doctor", "uninstall", "wireguard")
PARSER = Parser(Language(tree_sitter_powershell.language()))
# Of Windows PowerShell 5.1 and the modules of Windows 10 and Server 2019.
CMDLETS = set(
    """
    Add-Member ConvertFrom-Json ConvertTo-Json Copy-Item Disable-ScheduledTask Find-NetRoute ForEach-Object Get-Acl
    Get-CimInstance Get-Command Get-Content Get-Date Get-Item Get-ItemProperty Get-NetFirewallAddressFilter
    Get-NetFirewallApplicationFilter Get-NetFirewallPortFilter Get-NetFirewallRule Get-NetIPAddress Get-Process
    Get-ScheduledTask Get-ScheduledTaskInfo Get-Service Join-Path Move-Item New-Item New-NetFirewallRule New-Object
    New-ScheduledTaskAction New-ScheduledTaskPrincipal New-ScheduledTaskSettingsSet New-ScheduledTaskTrigger New-TimeSpan
    Out-Null Register-ScheduledTask Remove-Item Remove-NetFirewallRule Resolve-Path Select-Object Set-ItemProperty
    Set-Location Start-Process Start-ScheduledTask Start-Sleep Stop-Process Stop-ScheduledTask Test-Path Unregister-ScheduledTask
    Where-Object Write-Host Write-Verbose
    """.split()
)
PROGRAMS = {"icacls.exe", "powercfg.exe"}
# PowerShell sets these itself; whoever assigns one meets surprises.
AUTOMATIC = set(
    "args error event foreach home host input matches myinvocation pid profile psitem pwd sender this".split()
)
SECRETS = ("$raytoken", "$private", "$token", "$password", "$env:ray_auth_token", "$env:mt5_password")


def nodes_of(script: Path) -> Iterator[Node]:
    waiting = [PARSER.parse(script.read_bytes()).root_node]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += node.children


def text_of(node: Node) -> str:
    assert node.text is not None
    return node.text.decode()


def of_type(script: Path, *types: str) -> list[str]:
    return [text_of(node) for node in nodes_of(script) if node.type in types]


def parameters(script: Path) -> set[str]:
    block = re.search(r"^param\((.*?)^\)", script.read_text(), re.S | re.M)
    return set(re.findall(r"\] \$(\w+)", block.group(1))) if block else set()


def called_modules() -> set[tuple[str, str]]:
    """(script, module) of every `python -m` of ours."""
    return {
        (script.name, module) for script in SCRIPTS for module in re.findall(r"\bmt5_actor_windows\.\w+", script.read_text())
        if module not in ("mt5_actor_windows.ps1",)
    }  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_well_formed(script: Path) -> None:
    wrong = [
        f"line {node.start_point[0] + 1}: {text_of(node)[:60]!r}"
        for node in nodes_of(script)
        if node.is_error or node.is_missing
    ]
    assert wrong == []
    assert script.read_bytes().isascii()  # Windows PowerShell reads a file without a mark in the local code page


def test_the_grammar_sees_what_is_wrong(tmp_path: Path) -> None:
    broken = tmp_path / "broken.ps1"
    broken.write_text("if ($x { 1 }\n")
    assert any(node.is_error for node in nodes_of(broken))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_command_that_a_script_calls_is_known(script: Path) -> None:
    functions = {name for one in SCRIPTS for name in of_type(one, "function_name")}
    called = {name for name in of_type(script, "command_name") if not name.startswith("$")}
    assert called - functions - CMDLETS - PROGRAMS == set()
    if script.stem == "install":
        assert {"Register-ScheduledTask", "New-NetFirewallRule", "Protect-Folder"} <= called


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_no_script_assigns_an_automatic_variable(script: Path) -> None:
    assigned = {
        re.split(r"[\s.\[]", text_of(node).lstrip("[]$"))[0].lower()
        for node in nodes_of(script)
        if node.type == "left_assignment_expression"
    }
    assert not assigned & AUTOMATIC
    assert not {name.lower() for name in parameters(script)} & AUTOMATIC


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_secret_is_never_shown(script: Path) -> None:
    for node in nodes_of(script):
        shows = node.type == "command" and text_of(node).split()[0] in ("Write-Host", "Step", "Write-Verbose", "throw")
        if shows or node.type == "flow_control_statement":
            said = re.sub(r"\$private\W.*pubkey", "", text_of(node).lower())
            assert not any(secret in said for secret in SECRETS), text_of(node)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_failure_says_what_to_do(script: Path) -> None:
    for said in re.findall(r'throw "((?:[^"`]|`.|"")*)"', script.read_text()):
        assert re.search(r"[.:] .*[.]$|\$cure$", said), said  # what is wrong, then what to do
    assert "exit 1" not in script.read_text()


@pytest.mark.parametrize("name", FOR_PEOPLE)
def test_help_is_where_get_help_looks_for_it(name: str) -> None:
    text = (INSTALL / f"{name}.ps1").read_text()
    assert text.startswith("<#\n.SYNOPSIS\n")
    example = re.search(r"\.EXAMPLE\n(.*?)(?:\n\n|#>)", text, re.S)
    assert example
    assert f"{name}.ps1" in example.group(1)
    known = {f"-{parameter}" for parameter in parameters(INSTALL / f"{name}.ps1")}
    line = re.search(rf"{name}\.ps1(.*)", example.group(1))
    assert line
    assert set(re.findall(r" (-[A-Z]\w+)", line.group(1))) <= known


@pytest.mark.parametrize(("script", "module"), sorted(called_modules()))
def test_a_module_that_a_script_calls_exists(script: str, module: str) -> None:
    assert importlib.util.find_spec(module) is not None, f"{script} calls {module}"


@pytest.mark.parametrize(
    ("script", "module", "words"),
    [
        ("run", "node", []),
        ("doctor", "doctor", []),
        ("install", "api_keys", ["accept"]),
    ],
)
def test_a_module_knows_the_options_that_a_script_gives(script: str, module: str, words: list[str]) -> None:
    text = (INSTALL / f"{script}.ps1").read_text()
    calls = "\n".join(line for line in text.splitlines() if "mt5_actor_windows." in line or "$arguments" in line)
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", calls))
    assert "--home" in options
    command = [sys.executable, "-m", f"mt5_actor_windows.{module}", *words, "--help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert {option for option in options if not re.search(rf"{option}\b", shown.stdout)} == set()


def test_the_installed_task_calls_run_with_parameters_that_it_has() -> None:
    line = re.search(r"-File `\"\$runner`\"([^\n]*)", (INSTALL / "install.ps1").read_text())
    assert line
    given = set(re.findall(r"-([A-Z]\w+) `", line.group(1)))
    assert given == {"NodeHome"}
    assert given <= parameters(INSTALL / "run.ps1")


def test_the_head_prints_parameters_that_install_has() -> None:
    plan = windows_plan("10.8.0.1:6379", "10.8.0.2", ("token", "0" * 64))
    line = next(line for line in plan if "install.ps1" in line)
    assert set(re.findall(r" -([A-Z]\w+)", line)) <= parameters(INSTALL / "install.ps1")
    assert all((ROOT / name.replace("\\", "/")).exists() for name in re.findall(r"\.\\(\S+\.ps1)", "\n".join(plan)))


def test_what_install_writes_down_is_what_the_others_read() -> None:
    written = re.search(r"ConvertTo-Json @\{(.*)\}\)", (INSTALL / "install.ps1").read_text())
    assert written
    keys = set(re.findall(r"(\w+) = ", written.group(1)))
    read = {
        key for script in SCRIPTS for key in re.findall(r"\$(?:settings|before)\.(\w+)", script.read_text(), re.I)
    }  # fmt: skip
    assert read == keys


def test_the_ports_are_those_of_the_package() -> None:
    text = (INSTALL / "node_settings.ps1").read_text()
    (api,) = re.findall(r'^\$DataApiPort = "(\d+)"$', text, re.M)
    (ports,) = re.findall(r"^\$Ports = @\((.*)\)$", text, re.M)
    assert {*re.findall(r'"([\d-]+)"', ports), api} == port_ranges()
    low, high = node_ports.WORKERS
    known = {*range(node_ports.NODE_MANAGER, node_ports.METRICS + 1), low, high, node_ports.DATA_API, 6379, 51820}
    named = {
        int(n)
        for script in SCRIPTS
        for n in re.findall(r"(?<![\d-])(?:10\d{3}|8\d{3}|6379|51820)\b", script.read_text())
    }
    assert named <= known


def test_the_ports_in_the_docs_are_those_of_the_package() -> None:
    page = (ROOT / "docs" / "windows-node.md").read_text()
    assert all(one in page for one in port_ranges())
    named = set(re.findall(r"(?<![-\d])1\d{4}(?:-1\d{4})?\b", page))  # MetaTrader's codes have a minus
    assert named == port_ranges() - {str(node_ports.DATA_API)}


def test_doctor_and_scripts_mean_the_same_task() -> None:
    text = (INSTALL / "node_settings.ps1").read_text()
    (task,) = re.findall(r'^\$TaskName = "(.*)"$', text, re.M)
    assert f"Start-ScheduledTask '{task}'" in (ROOT / "mt5_actor_windows" / "node_checks.py").read_text()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_nothing_is_removed_through_an_empty_pipeline(script: Path) -> None:
    """Without an argument Remove-NetFirewallRule means all of them."""
    removals = [text for text in of_type(script, "command") if text.startswith("Remove-NetFirewallRule")]
    assert all("-Name" in text for text in removals)
    assert not re.search(r"\|\s*(Remove|Unregister)-(NetFirewallRule|ScheduledTask)", script.read_text())
