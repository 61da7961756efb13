"""Writes docs/openapi.json: python -m tests.serve_app.take_openapi"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import orjson

from serve_app.api import make_api
from serve_app.board import board_for
from serve_app.lookups import ledger_lookups
from serve_app.openapi import description
from serve_app.rate_limit import RateLimiter
from tests.serve_app.made_board import SetClock, make_test_settings

SNAPSHOT = Path(__file__).parents[2] / "docs" / "openapi.json"


def described(home: Path) -> dict[str, Any]:
    settings = make_test_settings(home)
    clock = SetClock()
    app = make_api(settings, board_for(settings, clock.now), RateLimiter(60), clock, ledger_lookups(settings))
    return description(app, settings)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        said = orjson.dumps(described(Path(home)), option=orjson.OPT_INDENT_2)
        SNAPSHOT.write_bytes(said + b"\n")
