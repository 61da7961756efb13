"""Three faults of the reliability benchmark, for a few seconds each: clients behind nginx see what the page promises.

The benchmark itself refuses a fault that did not happen: a pid that stays, a model that is not refused. How long it takes until
all is well again depends on what else this machine does, and is measured there.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.private_installation import Installation, chosen, installation
from benchmarks.reliability import CLEAN, watch
from benchmarks.reliability_faults import FAULTS


@pytest.fixture(scope="module")
def made() -> Iterator[Installation]:
    with installation(rate=20) as running:
        yield running


@pytest.mark.parametrize("name", ["replica", "crashing_model"])
def test_no_get_fails(made: Installation, name: str) -> None:
    [fault] = chosen(FAULTS, name)
    seen = watch(made, fault, seconds=5)
    assert seen.ok, seen
    assert seen.failed == {}
    assert seen.requests > 50


def test_without_a_proxy_every_answer_is_clean_and_it_comes_back(made: Installation) -> None:
    [fault] = chosen(FAULTS, "proxy")
    seen = watch(made, fault, seconds=5)
    assert "NOT AS EXPECTED" not in seen.proof
    assert set(seen.failed) == {CLEAN}, seen
    assert made.get("/readyz") == {"status": "ready"}
