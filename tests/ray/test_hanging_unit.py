"""A unit on the cluster that never returns is ended when its time is over, and the cluster goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent.parent
DRIVER = """
import json, sys
from math import inf
import ray
from tests.tuning.test_budget import never_returns, pid
from tuning.budget import BudgetSpent
from tuning.distributed import slots, units_on_ray
ray.init(num_cpus=2, include_dashboard=False, logging_level="error", _temp_dir=sys.argv[1])
left = [inf]
run_units = units_on_ray(lambda: left[0])
free, workers = slots(), list(run_units(pid, [(0,), (1,)]))
left[0], said = 1.0, ""
try:
    list(run_units(never_returns, [(), ()]))
except BudgetSpent as error:
    said = error.message
left[0] = inf
later = list(run_units(pid, [(0,), (1,)]))
print(json.dumps({"free": free, "workers": workers, "said": said, "later": later}))
"""


def test_it_is_ended_and_later_units_run(tmp_path_factory) -> None:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "LSTMC_"))}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path_factory.mktemp("r"))],
        cwd=ROOT,
        env=clean | {"PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["free"] == 2
    assert found["said"] == "The budget was spent while never_returns ran; the champion stays."
    assert len(found["later"]) == 2
    assert not any(psutil.pid_exists(worker) for worker in found["later"])
