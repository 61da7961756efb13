from __future__ import annotations

import numpy as np
import pytest

from market.errors import ModelError
from tuning.bundle_signature import BundleKeys
from tuning.distributed import _shared, process_pool
from tuning.metrics import qlike
from tuning.registry import Registry


def test_one_worker_means_here():
    with process_pool(1) as run_units:
        assert run_units is None


def test_results_come_in_order_from_other_processes():
    a, b = np.array([1e-6, 2e-6]), np.array([1e-6, 1e-6])
    with process_pool(2) as run_units:
        losses = list(run_units(qlike, [(a, b), (b, a), (a, a)]))
    assert [float(one.sum()) for one in losses] == pytest.approx(
        [float(qlike(*p).sum()) for p in ((a, b), (b, a), (a, a))]
    )


def test_an_error_in_a_unit_reaches_the_caller(tmp_path):
    with process_pool(2) as run_units, pytest.raises(ModelError, match="no model"):
        list(run_units(Registry(tmp_path, BundleKeys(tmp_path)).path, [("x",)]))


def test_what_goes_to_the_object_store_once():
    big, small = np.zeros(20_000), np.zeros(3)
    table = {"a": big}
    held = _shared([(1, "x", big, small, table), (2, "x", small, table), (3, None, None)])
    assert {id(v) for v in held.values()} == {id(big), id(table)}
