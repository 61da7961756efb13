"""A small Ray of a test's own: in a temporary folder, on free ports, without a dashboard."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def private_ray(cpus: int = 2) -> Iterator[None]:
    import ray
    from ray._private.authentication_test_utils import reset_auth_token_state

    reset_auth_token_state()  # a command in this process may have shown Ray the token of another cluster
    folder = tempfile.mkdtemp(prefix="lstmc-ray-", dir="/tmp")  # sockets want a short path
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            object_store_memory=100 * 2**20,
            _temp_dir=folder,
            log_to_driver=False,
            logging_level="warning",
            _system_config={"metrics_report_interval_ms": 1000},
        )
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
