"""Fast, pure tests by default: starting Ray outside tests/ray and tests/faults is an error."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

LIVE = {"ray", "faults"}
# Fast and pure first. The browser comes last: Playwright keeps an event loop on the thread it was started on.
LATER = ("windows", "faults", "ray", "browser")
HERE = Path(__file__).parent

# For the private Rays of tests; Ray would write a token of its own into the home of whoever runs them.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def turn(item: pytest.Item) -> int:
        room = item.path.relative_to(HERE).parts[0]
        return 1 + LATER.index(room) if room in LATER else 0

    items.sort(key=turn)


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """What a command in this process tells Ray by its environment, its token for example, must not reach the next test."""
    before = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
    yield
    for name in [name for name in os.environ if name.startswith("RAY_") and name not in before]:
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _no_ray(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.path.relative_to(HERE).parts[0] in LIVE:
        return

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("A pure test started Ray. Put it into tests/ray, or inject what it needs.")

    monkeypatch.setattr("ray.init", refuse)


@pytest.fixture(scope="session")
def recorded_bars() -> Path:
    """The folder of recorded bars beside the checkout; tests that need it are skipped where it is absent."""
    folder = HERE.parent.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no recorded bars in {folder}")
    return folder
