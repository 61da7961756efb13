"""Schemathesis asks over HTTP for all that /openapi.json promises, and for much that it does not, with all its checks."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.conftest import Site, make_site

__all__ = ["make_site"]  # a fixture
SEED = os.environ.get("LSTMC_TEST_SEED") or str(random.randrange(2**32))
EXAMPLES = os.environ.get("LSTMC_TEST_EXAMPLES") or "10"


@pytest.mark.parametrize("scopes", [("read", "signals"), ("read",), ()], ids=",".join)
def test_every_answer_is_as_described(make_site: Callable[..., Site], tmp_path: Path, scopes: tuple[str, ...]) -> None:
    site = make_site(requests_per_minute=10**6, requests_per_minute_per_address=10**6, filled=False)
    site.board.wall = lambda: 4e9  # past the end of any token: a stream says hello and ends
    site.publish(site.market.update())
    site.market.write_history(site.settings, 30)
    schemathesis = Path(sys.executable).with_name("schemathesis")
    asked = [schemathesis, "run", f"{site.url}/openapi.json", "--checks", "all", "--seed", SEED, "--no-color"]
    asked += ["--max-examples", EXAMPLES, "--generation-database", "none", "--suppress-health-check", "all"]
    if scopes:
        asked += ["--header", f"Authorization: Bearer {site.token(scopes=scopes)}"]
    print(f"LSTMC_TEST_SEED={SEED}")
    found = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, f"LSTMC_TEST_SEED={SEED}\n{found.stdout}\n{found.stderr}"
    assert "12 / 12" in found.stdout or "Operations:" in found.stdout
