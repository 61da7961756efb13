"""`roll.sh` in a real repository: what it calls, in which order, and that it goes back. The programs it calls are recorded."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent.parent / "cluster" / "deploy" / "roll.sh"
# Each writes down how it was called and on which code; `curl` is healthy where the code says so.
RECORD = '#!/bin/sh\necho "$(basename "$0") $*" | cut -d" " -f1-4 >>"$CALLS"\n'
PROGRAMS = {
    "lstmc": RECORD + '[ ! -e "$FAIL/$1" ]\n',
    "make": RECORD,
    "sudo": RECORD,
    "curl": '#!/bin/sh\necho look >>"$CALLS"\ngrep -q healthy health\n',
}


@dataclass
class Host:
    folder: Path
    first: str

    def git(self, *words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
        command = ["git", *who, *words]
        return subprocess.run(command, cwd=self.checkout, check=True, capture_output=True, text=True).stdout.strip()

    @property
    def checkout(self) -> Path:
        return self.folder / "checkout"

    def commit(self, **files: str) -> str:
        for name, content in files.items():
            (self.checkout / name.replace("_", ".")).write_text(content)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "code")
        return self.git("rev-parse", "HEAD")

    def roll(self, revision: str) -> tuple[int, list[str]]:
        self.git("checkout", "-q", "--detach", self.first)
        calls = self.folder / "calls"
        calls.write_text("")
        programs = self.folder / "programs"
        environment = os.environ | {
            "PATH": f"{programs}:{os.environ['PATH']}", "LSTMC": "lstmc", "CALLS": str(calls), "FAIL": str(self.folder / "fail"),
            "LSTMC_BACKUPS": str(self.folder), "LSTMC_PATIENCE": "5", "LSTMC_PAUSE": "0",
        }  # fmt: skip
        done = subprocess.run(
            ["bash", self.checkout / "cluster" / "deploy" / "roll.sh", revision], env=environment, capture_output=True
        )
        return done.returncode, calls.read_text().splitlines()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    for name, text in PROGRAMS.items():
        (tmp_path / "programs").mkdir(exist_ok=True)
        (tmp_path / "programs" / name).write_text(text)
        (tmp_path / "programs" / name).chmod(0o755)
    (tmp_path / "fail").mkdir()
    made = Host(tmp_path, "")
    (made.checkout / "cluster" / "deploy").mkdir(parents=True)
    shutil.copy(SCRIPT, made.checkout / "cluster" / "deploy")
    made.git("init", "-q")
    made.git("remote", "add", "origin", ".")
    made.first = made.commit(health="healthy", requirements_lock="a==1", code="1")
    return made


LOOKS = ["look"] * 3


def test_code_takes_over_while_everything_serves(host: Host) -> None:
    new = host.commit(code="2")
    code, calls = host.roll(new)
    assert code == 0
    assert calls[0].startswith(f"lstmc backup --out {host.folder}/before-")
    assert calls[1:] == ["lstmc roll", *LOOKS]
    assert host.git("rev-parse", "HEAD") == new


def test_other_packages_need_a_restart(host: Host) -> None:
    code, calls = host.roll(host.commit(requirements_lock="a==2"))
    assert code == 0
    assert calls[1:] == ["make install", "sudo systemctl restart lstmc-head", *LOOKS]


def test_an_unhealthy_revision_is_rolled_back(host: Host) -> None:
    code, calls = host.roll(host.commit(health="ill"))
    assert code == 1
    assert calls[1:] == ["lstmc roll", *["look"] * 5, "lstmc roll", *LOOKS]
    assert host.git("rev-parse", "HEAD") == host.first


def test_a_revision_that_cannot_take_over_is_rolled_back(host: Host) -> None:
    new = host.commit(code="2")
    (host.folder / "fail" / "roll").touch()
    code, calls = host.roll(new)
    assert code == 2, "nor can the old one, which is said"
    assert calls[1:] == ["lstmc roll", "lstmc roll"]
    assert host.git("rev-parse", "HEAD") == host.first


def test_nothing_is_touched_without_a_backup_or_a_revision(host: Host) -> None:
    new = host.commit(code="2")
    assert host.roll("nonsense")[0] not in (0, 1, 2)
    (host.folder / "fail" / "backup").touch()
    code, calls = host.roll(new)
    assert code == 1
    assert len(calls) == 1
    assert host.git("rev-parse", "HEAD") == host.first
