"""Windows Python under Wine, once for all tests here. Where Wine cannot be installed they skip, except in CI."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.windows.wine_lab import NoWine, WineLab, wine_lab


@pytest.fixture(scope="session")
def windows() -> Iterator[WineLab]:
    try:
        with wine_lab() as lab:
            yield lab
    except NoWine as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must run the Windows tests. {error}")
        pytest.skip(f"THE WINDOWS SIDE IS NOT TESTED HERE. {error}")
