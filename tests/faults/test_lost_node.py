"""A node that dies while it trains: its units of work run again elsewhere, and the results are the same, in order."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tuning.tiny_chains import make_chain
from tuning.cross_validate import fit_unit
from tuning.distributed import units_on_ray
from tuning.net_chain import Chain, ChainState, run_chain

# On a busy machine too, a living head must not be taken for a dead one.
FAST_CHECKS = {"health_check_period_ms": 1000, "health_check_timeout_ms": 5000, "health_check_failure_threshold": 3}


def fit_or_be_lost(victim: str, told: str, *unit: object) -> ChainState:
    """A unit of work that, on the node `victim`, says that it runs there and never ends."""
    import ray

    if ray.get_runtime_context().get_node_id() == victim:
        Path(told).write_text("here")
        threading.Event().wait()
    return fit_unit(*unit)  # type: ignore[arg-type]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    import ray
    from ray._private.authentication_test_utils import reset_auth_token_state
    from ray.cluster_utils import Cluster

    reset_auth_token_state()  # a command in this process may have shown Ray the token of another cluster
    # It would note the address where every user's `ray` looks for it.
    monkeypatch.setattr("ray._private.utils.write_ray_address", lambda *_: None)

    folder = tempfile.mkdtemp(prefix="lstmc-ray-", dir="/tmp")  # sockets want a short path
    common = {"include_dashboard": False, "object_store_memory": 100 * 2**20}
    made = Cluster(
        initialize_head=True,
        head_node_args=common | {"num_cpus": 1, "_system_config": FAST_CHECKS, "temp_dir": folder},
    )
    try:
        ray.init(address=made.address, log_to_driver=False, logging_level="warning")
        yield made
    finally:
        ray.shutdown()
        made.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def test_units_of_a_lost_node_run_again_on_another(cluster: object, tmp_path: Path) -> None:
    chains: list[Chain] = [make_chain("lstm"), make_chain("gru"), make_chain("attention")]
    here = [run_chain(chain) for chain in chains]
    node = cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20)  # type: ignore[attr-defined]
    told = tmp_path / "told"
    os.mkfifo(told)

    def kill() -> None:
        told.read_text()  # returns when a unit runs on the node
        cluster.remove_node(node, allow_graceful=False)  # type: ignore[attr-defined]

    killer = threading.Thread(target=kill, daemon=True)  # should no unit ever run there, pytest must end all the same
    killer.start()
    units = [(node.node_id, str(told), c.family, c.settings, c.seed, c.horizons, c.starts, c.links) for c in chains]
    made = list(units_on_ray()(fit_or_be_lost, units))
    killer.join()
    assert [state.net for state in made] == [state.net for state in here]
