"""All nets of a retrain in one Ray Train run: its workers share the chains and save them after every fold.

A killed worker costs the fold it was in: Ray Train starts the workers again and they read the last checkpoint. Starting
a run costs more than a small net's whole training: never one per fold.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from market.errors import ModelError
from tuning.distributed import be_modest
from tuning.net_chain import Chain, ChainState, advance_all, state_from_files, state_to_files

MAX_FAILURES = 3  # of workers, in one run
NOT_ON_MT5 = {"role": "!mt5"}


def train_chains(chains: Sequence[Chain], storage: Path) -> list[ChainState]:
    """Run every chain to its end on the cluster, in one TorchTrainer -> their states, in order.

    `storage`: a folder for this run's checkpoints alone, removed before and after. It is on this node's disk, so the
    workers run on this node; each has a GPU where there is one free. Needs ray.init. ModelError when workers died
    more than MAX_FAILURES times; a worker's own exception is raised here.
    """
    import ray
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    node = ray.get_runtime_context().get_node_id()
    workers, gpu = _workers(len(chains), node)
    shutil.rmtree(storage, ignore_errors=True)
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={"chains": ray.put(list(chains))},
        torch_config=TorchConfig(backend="gloo"),  # workers meet at checkpoints only; no gradient crosses
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=gpu,
            resources_per_worker=_per_worker(gpu),
            label_selector={"ray.io/node-id": node, **NOT_ON_MT5},
        ),
        run_config=RunConfig(
            # A second run of one name and storage would silently go on from the first one's checkpoint.
            name=f"nets-{uuid.uuid4().hex}",
            storage_path=str(storage.absolute()),
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )
    try:
        result = _fit(trainer)
        with result.checkpoint.as_directory() as folder:
            states = [_read(chain, Path(folder) / str(k)) for k, chain in enumerate(chains)]
        return states
    finally:
        shutil.rmtree(storage, ignore_errors=True)


def _fit(trainer: Any) -> Any:
    from ray.train import TrainingFailedError, WorkerGroupError

    try:
        return trainer.fit()
    except WorkerGroupError as error:
        own = next((e for e in error.worker_failures.values() if not _is_death(e)), None)
        if own is not None:
            raise own from error
        raise ModelError(
            f"Workers of the nets' training died more than {MAX_FAILURES} times.",
            hint="Look for a lack of memory on the training node; the champion stays.",
        ) from error
    except TrainingFailedError as error:
        raise ModelError(
            f"The nets' training failed: {error}.", hint="See the job's log; the champion stays."
        ) from error


def _is_death(error: BaseException) -> bool:
    from ray.exceptions import RayError

    return isinstance(error, RayError)


def _workers(chains: int, node: str) -> tuple[int, bool]:
    """-> (workers, each with a GPU?): as many as have a free GPU or else a free CPU, at most one per chain."""
    import ray

    own = next(one["Resources"] for one in ray.nodes() if one["NodeID"] == node)
    free = ray.available_resources()
    gpus, cpus = (int(min(own.get(name, 0.0), free.get(name, 0.0))) for name in ("GPU", "CPU"))
    return max(1, min(chains, gpus or cpus)), gpus > 0


def _per_worker(gpu: bool) -> dict[str, float]:
    return {"CPU": 1, "GPU": 1} if gpu else {"CPU": 1}


def _train_worker(config: dict[str, Any]) -> None:
    """Every worker's loop: the next link of its own chains, then a checkpoint together, until no chain has links left."""
    import ray
    import torch

    be_modest()
    logging.getLogger("ray.train").setLevel(logging.WARNING)  # it says each report twice, whatever LoggingConfig says
    context = ray.train.get_context()
    chains: list[Chain] = ray.get(config["chains"])
    states = _last_states(chains)
    mine = range(context.get_world_rank(), len(chains), context.get_world_size())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    first, last = max(state.done for state in states), max(len(chain.links) for chain in chains)
    for link in range(first, last):
        due = [k for k in mine if link < len(chains[k].links)]
        made = advance_all([chains[k] for k in due], [states[k] for k in due], device, together=device == "cuda")
        for k, state in zip(due, made, strict=True):
            states[k] = state
        _report(chains, states, mine, link)
        if context.get_world_rank() == 0:
            print(f"nets: {link + 1} of {last} links, {len(chains)} chains", flush=True)


def _last_states(chains: Sequence[Chain]) -> list[ChainState]:
    """What the run had reached; all chains are equally far, since all workers report together."""
    import ray

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return [ChainState() for _ in chains]
    with checkpoint.as_directory() as folder:
        return [_read(chain, Path(folder) / str(k)) for k, chain in enumerate(chains)]


def _report(chains: Sequence[Chain], states: Sequence[ChainState], mine: range, link: int) -> None:
    import ray

    with tempfile.TemporaryDirectory(prefix="lstmc-nets-") as folder:
        for k in mine:
            part = Path(folder) / str(k)
            part.mkdir()
            for name, content in state_to_files(chains[k], states[k]).items():
                (part / name).write_bytes(content)
        ray.train.report({"links": link + 1}, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _read(chain: Chain, folder: Path) -> ChainState:
    return state_from_files(chain, {path.name: path.read_bytes() for path in folder.iterdir()})
