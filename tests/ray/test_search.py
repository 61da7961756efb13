"""A search whose driver is killed goes on where it was: finished trials count, the others run again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ray.conftest import eventually
from tests.ray.search_driver import DONE_FIRST, TRIALS, ended
from tuning.search import INNER_FOLDS

ROOT = Path(__file__).parent.parent.parent


@contextmanager
def driver(folder: Path, temporary: Path, *begun: str) -> Iterator[subprocess.Popen[str]]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "LSTMC_"))}
    words = [sys.executable, "-m", "tests.ray.search_driver", str(folder), str(temporary), *begun]
    environment = clean | {"PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"}
    with subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_killed_search_is_resumed(tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("search")
    begun = tmp_path_factory.mktemp("begun") / "trials"
    with driver(folder, tmp_path_factory.mktemp("a"), str(begun)) as killed:
        eventually(lambda: len(ended(folder)) >= DONE_FIRST, 240, "the first trials on Tune's record")
        killed.kill()
        killed.wait()
    before = ended(folder)
    assert len(before) == DONE_FIRST, "it was killed in the middle"
    with driver(folder, tmp_path_factory.mktemp("b")) as resumed:
        said = json.loads(resumed.communicate(timeout=300)[0].splitlines()[-1])
    assert resumed.returncode == 0
    assert [trial["number"] for trial in said] == list(range(TRIALS))
    assert said[0]["settings"] == {"trees": 8, "leaves": 4, "min_rows_in_leaf": 200, "learning_rate": 0.05}
    assert {trial["state"] for trial in said} <= {"complete", "pruned"}
    assert all(trial["folds"] == INNER_FOLDS or trial["state"] == "pruned" for trial in said)
    after = ended(folder)
    assert len(after) == TRIALS - 1
    assert before.items() <= after.items(), "what was done is not done again"
