"""A driver of its own cluster that searches the trees' settings, and says what became of the trials.

python -m tests.ray.search_driver FOLDER TEMP_DIR
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from market.timeframes import Timeframe
from tuning.experiments import World, simulate
from tuning.presets import Boosting, Preset, Search
from tuning.search import search
from tuning.search_on_ray import study_on_ray

TRIALS = 24
PRESET = Preset(
    "made", ("lightgbm",), boosting=Boosting(trees=8, leaves=4, min_rows_in_leaf=200), search=Search(trials=TRIALS)
)


def main() -> None:
    import ray

    folder, temporary = sys.argv[1:]
    ray.init(num_cpus=1, include_dashboard=False, logging_level="error", _temp_dir=temporary)
    bars = simulate(World(weeks=42, symbols=("EURUSD", "GBPUSD", "USDJPY")), seed=31)
    chosen, record = search(bars, Timeframe.H1, PRESET, study=study_on_ray(Path(folder)))
    assert chosen == replace(PRESET, search=None, boosting=chosen.boosting)
    print(json.dumps(record["boosting"]["tried"]))
    ray.shutdown()


if __name__ == "__main__":
    main()
