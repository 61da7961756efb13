"""Schemathesis asks over HTTP for all that /openapi.json promises, and for much that it does not, with all its checks."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.browser.conftest import Site, make_site

__all__ = ["make_site"]  # a fixture
SEED = os.environ.get("LSTMC_TEST_SEED") or str(random.randrange(2**32))
EXAMPLES = os.environ.get("LSTMC_TEST_EXAMPLES")
# An address that is too long is refused before it is read: 414 is as good a refusal as those that it knows.
CONFIG = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 414, 415, 422, 428, 429, "5xx"]
"""


@pytest.mark.parametrize(("with_token", "examples"), [(True, "10"), (False, "3")])
def test_every_answer_is_as_described(
    make_site: Callable[..., Site], tmp_path: Path, with_token: bool, examples: str
) -> None:
    site = make_site(requests_per_minute=10**6, requests_per_minute_per_address=10**6, filled=False)
    site.board.wall = lambda: 4e9  # past the end of any token: a stream says hello and ends
    site.publish(site.market.update())
    site.market.write_history(site.settings, 30)
    description, schemathesis = tmp_path / "openapi.json", Path(sys.executable).with_name("schemathesis")
    (tmp_path / "schemathesis.toml").write_text(CONFIG)  # read from the working directory
    description.write_bytes(httpx.get(f"{site.url}/openapi.json", timeout=60).content)
    asked = [schemathesis, "run", description, "--url", site.url, "--request-timeout", "60", "--no-color"]
    asked += ["--checks", "all", "--seed", SEED]
    asked += ["--max-examples", EXAMPLES or examples, "--generation-database", "none", "--suppress-health-check", "all"]
    if with_token:
        asked += ["--header", f"Authorization: Bearer {site.token()}"]
    found = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, f"LSTMC_TEST_SEED={SEED}\n{found.stdout}\n{found.stderr}"
    said = re.search(r"Selected: (\d+)/(\d+)\s+Tested: (\d+)", found.stdout)
    assert said, found.stdout
    assert len(set(said.groups())) == 1, found.stdout
