"""The nets of a retrain give the same bytes in this process, as Ray tasks, and in one Ray Train run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import ray
from ray.exceptions import ActorDiedError

from actors.exporter import Exporter
from actors.figures import Figures
from market.errors import ModelError, NotEnoughBars
from tests.private_ray import private_ray
from tests.ray.conftest import eventually
from tests.tuning.tiny_chains import make_chain
from tuning import net_training
from tuning.cross_validate import fit_unit
from tuning.distributed import units_on_ray
from tuning.learners.fitting import NET_FAMILIES
from tuning.net_chain import Chain, ChainState, run_chain
from tuning.net_training import train_chains


def fail_or_wait(gate: str) -> None:
    if not gate:
        raise ModelError("made to fail")
    Path(gate).read_text()


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # Ray Train meets deprecations of Ray's own


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    with private_ray():
        yield


@pytest.fixture(scope="module")
def chains() -> list[Chain]:
    return [*(make_chain(family) for family in NET_FAMILIES), make_chain("gru", seed=4, final=False)]


@pytest.fixture(scope="module")
def here(chains: list[Chain]) -> list[ChainState]:
    return [run_chain(chain) for chain in chains]


def assert_same(made: list[ChainState], expected: list[ChainState]) -> None:
    assert len(made) == len(expected)
    for one, other in zip(made, expected, strict=True):
        assert one.net == other.net
        assert len(one.views) == len(other.views)
        for first, second in zip(one.views, other.views, strict=True):
            assert (first is None) == (second is None)
            if first is not None and second is not None:
                np.testing.assert_array_equal(first, second)


def test_as_tasks_they_are_the_same_bytes(
    chains: list[Chain], here: list[ChainState], monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[object] = []  # Ray aborts this process when the end of a task and its cancelling meet
    monkeypatch.setattr("ray.cancel", lambda reference, **_: cancelled.append(reference))
    units = [(c.family, c.settings, c.seed, c.horizons, c.starts, c.links) for c in chains]
    assert_same(list(units_on_ray()(fit_unit, units)), here)
    assert cancelled == []


def test_when_a_unit_fails_only_those_that_still_run_are_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[object] = []
    monkeypatch.setattr("ray.cancel", lambda reference, **_: cancelled.append(reference))
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with pytest.raises(ModelError, match="made to fail"):
        list(units_on_ray()(fail_or_wait, [("",), (str(gate),)]))
    assert len(cancelled) == 1
    gate.write_text("go")  # or the unit would hold its CPU for ever


def test_in_one_ray_train_run_they_are_the_same_bytes(
    chains: list[Chain], here: list[ChainState], tmp_path: Path
) -> None:
    assert_same(train_chains(chains, tmp_path / "checkpoints"), here)
    assert not (tmp_path / "checkpoints").exists(), "checkpoints are gone once their run has ended"


def test_what_a_process_says_no_more_leaves_rays_metrics() -> None:
    """Here, where a small Ray runs that reports every second."""
    [node] = ray.nodes()
    kept, gone = (("lstmc_bar_gaps", (("symbol", symbol), ("timeframe", "H1"))) for symbol in ("EURUSD", "GBPUSD"))
    refused = ("lstmc_rate_limited_total", (("limit", "too-many-requests"),))
    exporter = Exporter()

    def told(figures: Figures, *words: str) -> bool:
        exporter.set(figures)
        address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        lines = [line for line in httpx.get(address, trust_env=False).text.splitlines() if line.startswith("ray_lstmc")]
        return len(lines) == len(words) and all(any(w in line for line in lines) for w in words)

    eventually(lambda: told({kept: 3, gone: 4, refused: 2}, "EURUSD", "GBPUSD", "too-many-requests"), 30)
    eventually(lambda: told({kept: 3, refused: 7}, "EURUSD", "} 7.0"), 30, "a counter goes on, a gauge is gone")
    eventually(lambda: told({kept: 3, gone: 4}, "EURUSD", "GBPUSD", "} 7.0"), 30, "and comes back")


class Trainer:
    """Fails as Ray Train does when its workers have: rank -> the exception there."""

    def __init__(self, failures: dict[int, Exception]) -> None:
        self.failures = failures

    def fit(self) -> None:
        from ray.train import WorkerGroupError

        raise WorkerGroupError("workers failed", self.failures)


def test_a_workers_own_error_is_raised_here() -> None:
    own = NotEnoughBars("Too few.", hint="Backfill.")
    with pytest.raises(NotEnoughBars) as caught:
        net_training._fit(Trainer({0: ActorDiedError(), 1: own}))
    assert caught.value is own


def test_workers_that_die_again_and_again_are_a_model_error() -> None:
    with pytest.raises(ModelError, match="died more than 3 times"):
        net_training._fit(Trainer({0: ActorDiedError()}))
