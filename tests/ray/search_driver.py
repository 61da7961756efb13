"""A driver of its own cluster that searches the trees' settings, and says what became of the trials.

python -m tests.ray.search_driver FOLDER TEMP_DIR [BEGUN]

With the file `BEGUN`, where each trial leaves a byte, the trials after the first DONE_FIRST wait to be killed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from market.timeframes import Timeframe
from tuning.experiments import World, simulate
from tuning.presets import Boosting, Preset, Search
from tuning.search import Problem, Study, search
from tuning.search_on_ray import study_on_ray

TRIALS = 24
DONE_FIRST = 2
PRESET = Preset(
    "made", ("lightgbm",), boosting=Boosting(trees=8, leaves=4, min_rows_in_leaf=200), search=Search(trials=TRIALS)
)


@dataclass(frozen=True)
class Held(Problem):
    begun: str = ""

    def settings(self, changed: Mapping[str, Any]) -> Any:
        """Asked for once per trial, where it runs."""
        with open(self.begun, "ab") as file:
            file.write(b".")
        if os.stat(self.begun).st_size > DONE_FIRST:
            threading.Event().wait()
        return super().settings(changed)


def ended(folder: Path) -> dict[Path, float]:
    """When each trial that is done wrote its last word."""
    files = [f for f in folder.glob("boosting/*/result.json") if '"done": true' in f.read_text()]
    return {file: file.stat().st_mtime for file in files}


def held(study: Study, begun: str) -> Study:
    def holding(problem: Problem, *rest: Any) -> Any:
        own = {f.name: getattr(problem, f.name) for f in fields(problem)}
        return study(Held(**own, begun=begun), *rest)

    return holding


def main() -> None:
    import ray

    folder, temporary, *begun = sys.argv[1:]
    ray.init(num_cpus=1, include_dashboard=False, logging_level="error", _temp_dir=temporary)
    bars = simulate(World(weeks=42, symbols=("EURUSD", "GBPUSD", "USDJPY")), seed=31)
    study = study_on_ray(Path(folder))
    chosen, record = search(bars, Timeframe.H1, PRESET, study=held(study, begun[0]) if begun else study)
    assert chosen == replace(PRESET, search=None, boosting=chosen.boosting)
    print(json.dumps(record["boosting"]["tried"]))
    ray.shutdown()


if __name__ == "__main__":
    main()
