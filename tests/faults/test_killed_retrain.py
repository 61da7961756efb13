"""A training run killed at any moment: the champion is the old one or a complete new one, and the next run works.

20 points here; 200 with LSTMC_KILLS=200.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from configs.settings import Settings, load_settings, make_settings, save_settings
from market.bar_store import BarStore
from tests.faults.retrain_until_killed import Runs
from tuning import retrain
from tuning.experiments import World, simulate
from tuning.registry import Registry

SYMBOLS = ("EURUSD", "USDJPY")
KILLS = int(os.environ.get("LSTMC_KILLS", "20"))
SEED = 5


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation whose econometric champion is ten days behind its bars: the next run makes a new one."""
    folder = tmp_path_factory.mktemp("killed") / "home"
    settings = make_settings(home=folder, symbols=",".join(SYMBOLS), timeframes="H1")
    save_settings(settings)
    store = BarStore(settings.bars_path)
    bars = simulate(World(weeks=22, symbols=SYMBOLS), seed=SEED)
    for table in bars.values():
        store.append(table.slice(0, table.num_rows - 200))
    retrain.econometric_champion(settings, "H1")
    for table in bars.values():
        store.append(table.slice(table.num_rows - 200))
    return folder


@pytest.fixture
def run() -> Iterator[Runs]:
    runs = Runs()
    yield runs
    runs.close()


def copied(home: Path, folder: Path) -> Settings:
    shutil.copytree(home, folder / "home")
    return load_settings(folder / "home")


def leftovers(registry: Registry) -> list[str]:
    return sorted(p.name for p in registry.root.rglob(".*") if p.name.startswith((".staging-", ".arriving-")))


def test_a_killed_run_leaves_a_whole_champion_and_does_not_block_the_next(
    home: Path, tmp_path: Path, run: Runs
) -> None:
    whole = copied(home, tmp_path / "whole")
    old = Registry.of(whole).champion("H1")
    assert old is not None
    code, steps = run(whole.home_path)
    new = Registry.of(whole).champion("H1")
    assert code == 0
    assert new is not None
    assert new.id != old.id
    assert new.trained_until - old.trained_until >= timedelta(days=7)
    seen, left = dict.fromkeys((old.id, new.id), 0), 0
    settings = copied(home, tmp_path / "first")
    kills, rng = 0, np.random.default_rng(SEED)
    while kills < KILLS:
        point = int(rng.integers(1, steps + 1))
        said = run(settings.home_path, point)
        where = f"seed {SEED}, kill {kills} at step {point} of {steps}: {said!r}"
        # A run that finds its bundle in the registry has less to do, and may end before that step.
        assert isinstance(said, str) or said[0] == 0, where
        kills += isinstance(said, str)
        registry = Registry.of(settings)
        champion = registry.champion("H1")
        assert champion is not None, where
        assert champion.id in seen, where
        assert registry.load(champion.id).version == champion, where
        for version in registry.list("H1"):
            assert registry.verified(version.id) == version, where
        assert len(leftovers(registry)) <= 2, f"{where}: the runs before were not swept: {leftovers(registry)}"
        seen[champion.id] += 1
        left += len(leftovers(registry))
        if champion.id == new.id:  # nothing is left to do there: the next one is killed in a new home
            finished(run, settings, new.id)
            settings = copied(home, tmp_path / str(kills))
    finished(run, settings, new.id)
    print(f"seed {SEED}, {steps} steps: {seen}, {left} folders left behind and swept")
    assert all(seen.values()), "killed before the new champion stood, and after"
    assert left, "none was killed while it wrote"


def finished(run: Runs, settings: Settings, champion: str) -> None:
    """The run after the killed ones."""
    registry = Registry.of(settings)
    assert run(settings.home_path)[0] == 0
    assert registry.champion_pointer("H1")["id"] == champion
    assert registry.runs("H1")[-1]["champion"] == champion
    assert leftovers(registry) == []


HANGING = """
import sys, threading
from tuning import retrain
retrain.read_data = lambda *_: threading.Event().wait()
sys.exit(retrain.main(["--preset", "quick", "--local", "--budget", "1s", "--json"]))
"""


def test_a_run_that_hangs_is_ended_at_the_wall_and_keeps_the_champion(home: Path, tmp_path: Path) -> None:
    settings = copied(home, tmp_path)
    registry = Registry.of(settings)
    environment = os.environ | {"LSTMC_HOME": str(settings.home_path)}
    done = subprocess.run(
        [sys.executable, "-c", HANGING], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    said = json.loads(done.stdout)
    assert said["promoted"] is False
    assert said["why"] == "The budget was spent, and the run was ended; the champion stays."
    assert said["champion"] == registry.champion_pointer("H1")["id"]
    assert "the champion stays" in done.stderr
    assert registry.runs("H1")[-1]["why"] == said["why"]
