"""Training runs that are killed at their n-th step: a line of progress, or a change to a file of the registry.

    python -m tests.faults.retrain_until_killed

reads {"home": ..., "last": n or null} per line and forks a run for each, so that the libraries are loaded once. It answers
with what the run said: the step at which it was killed, or [exit code, number of steps].
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

CHANGES = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.truncate", "shutil.rmtree", "shutil.copytree"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
ROOT = Path(__file__).parent.parent.parent


class Steps:
    """Counts; at number `last` it writes to the pipe what the step was and kills this process, as `kill -9` would."""

    def __init__(self, registry: Path, last: int | None, pipe: int) -> None:
        self._registry, self._last, self._pipe = str(registry), last, pipe
        self.count = 0

    def step(self, what: str) -> None:
        self.count += 1
        if self.count == self._last:
            os.write(self._pipe, json.dumps(what).encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def write(self, text: str) -> None:
        if text.strip():
            self.step(text.strip())

    def flush(self) -> None:
        pass

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Of sys.addaudithook: before a file is opened for writing, moved or removed."""
        changes = arguments[2] & WRITING if event == "open" else event in CHANGES
        if changes and str(arguments[0]).startswith(self._registry):
            self.step(f"{event} {Path(str(arguments[0])).name}")


def run(home: str, last: int | None, pipe: int) -> None:
    """`python -m tuning.retrain --local` in this process."""
    from configs.settings import load_settings
    from tuning import retrain

    os.environ["LSTMC_HOME"] = home
    steps = Steps(load_settings().registry_path, last, pipe)
    sys.addaudithook(steps.audit)
    sys.stderr = steps  # type: ignore[assignment]
    code = retrain.main(["--preset", "econometric", "--local", "--workers", "1"])
    os.write(pipe, json.dumps([code, steps.count]).encode())


def forked(home: str, last: int | None) -> Any:
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        run(home, last, theirs)
        os._exit(0)
    os.close(theirs)
    with open(ours) as pipe:
        said = json.load(pipe)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == (-signal.SIGKILL if isinstance(said, str) else 0), (said, status)
    return said


class Runs:
    """The process above, asked over its pipes."""

    def __init__(self) -> None:
        threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")  # else they wait for each other
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.retrain_until_killed"],
            cwd=ROOT,
            env=os.environ | threads,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, home: Path, last: int | None = None) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"home": str(home), "last": last}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=10)


if __name__ == "__main__":
    for name in ("tuning.retrain", "scipy.stats", "safetensors.numpy", "deltalake.fs"):
        import_module(name)
    for line in sys.stdin:
        print(json.dumps(forked(**json.loads(line))), flush=True)
