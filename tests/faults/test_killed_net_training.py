"""A training worker is killed -9 in the middle of a chain: the run goes on from its checkpoint to the same weights."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from tests.private_ray import private_ray
from tests.tuning import tiny_chains
from tests.tuning.tiny_chains import Watched, make_chain
from tuning.net_chain import Chain, run_chain
from tuning.net_training import train_chains

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # Ray Train meets deprecations of Ray's own

KILLED_AT = 2


def watched(chain: Chain, log: Path, kills: int | None) -> Chain:
    links = [
        Watched(**{f.name: getattr(link, f.name) for f in fields(link)}, log=log, number=k, is_deadly=k == kills)
        for k, link in enumerate(chain.links)
    ]
    return replace(chain, links=tuple(links))


def test_a_killed_worker_costs_the_fold_it_was_in_and_changes_no_weight(tmp_path: Path) -> None:
    import ray

    chains = [make_chain("gru"), make_chain("attention")]
    undisturbed = [run_chain(chain) for chain in chains]
    logs = [tmp_path / "gru.log", tmp_path / "attention.log"]
    storage = tmp_path / "checkpoints"
    storage.mkdir()
    (storage / "of_an_earlier_run").write_text("")
    with private_ray():
        ray.cloudpickle.register_pickle_by_value(tiny_chains)
        try:
            made = train_chains([watched(chains[0], logs[0], KILLED_AT), watched(chains[1], logs[1], None)], storage)
        finally:
            ray.cloudpickle.unregister_pickle_by_value(tiny_chains)
    assert not storage.exists(), "checkpoints are gone once their run has ended"
    begun = [log.read_text().split() for log in logs]
    assert begun[0] == ["0", "1", "2", "2", "3", "4"], "killed in fold 2, begun again there"
    assert sorted(begun[1]) in (["0", "1", "2", "2", "3", "4"], ["0", "1", "2", "3", "4"]), (
        "the other may have got there"
    )
    for one, other in zip(made, undisturbed, strict=True):
        assert one.net == other.net
        for first, second in zip(one.views, other.views, strict=True):
            assert (first is None) == (second is None)
            if first is not None and second is not None:
                assert all((a == b)[..., 1].all() for a, b in zip(first, second, strict=True))
