"""What the forecaster, the ledger and the gate really make has the shapes that the API describes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from configs.settings import ensure_secrets
from serve_app.api import make_api
from serve_app.auth import issue_token
from serve_app.board import Board
from serve_app.lookups import ledger_lookups
from serve_app.rate_limit import RateLimiter
from serve_app.responses import HistoryBody
from tests.actors.test_forecaster import HOUR, START, World
from tests.serve_app.conftest import Client
from tests.serve_app.made_board import SetClock
from tests.serve_app.test_api import SHAPES
from tuning.candidate import gate_card
from tuning.promotion import GateResult, TargetResult


def real_gate() -> dict[str, Any]:
    result = TargetResult(
        "rv24", "qlike", "har", 0.28, 0.29, 0.03, -4.0, 900, 300, {}, True, "rv24 promoted.", (), {}, {}
    )
    gate = GateResult({"rv24": result, "r24": replace(result, target="r24", t=float("nan"))}, ("rv24", "r24"))
    return gate_card(gate, gate)


def test_every_body_is_as_described(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.models = {name: replace(version, gate=real_gate()) for name, version in world.models.items()}
    forecaster = world.forecaster()
    forecaster.step()
    forecaster.on_bars(world.close_bar())
    forecaster.step()
    world.ledger.close()
    settings, clock = world.settings, SetClock(START + world.rows * HOUR)
    ensure_secrets(settings)
    board = Board(clock.now, settings.symbols, settings.timeframes, settings.speed)
    board.apply(forecaster.snapshot())
    client = Client(make_api(settings, board, RateLimiter(60), clock, ledger_lookups(settings)))
    token = {"Authorization": f"Bearer {issue_token(settings)}"}
    for path, shape in SHAPES.items():
        answer = client.get(path, token)
        assert answer.status_code == 200, answer.text
        shape.model_validate(answer.json())
    history = HistoryBody.model_validate(client.get("/api/v1/predictions/EURUSD/history", token).json())
    assert [set(row.outcomes) for row in history.forecasts] == [set(), {"1"}]
