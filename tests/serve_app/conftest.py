"""The API over a made-up market, without Ray: a settings home, a board, a clock that stands, and a client."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp

from configs.settings import Settings
from serve_app.api import make_api
from serve_app.auth import issue_token
from serve_app.board import Board, board_for
from serve_app.hot_path import HotPath
from serve_app.lookups import ledger_lookups
from serve_app.rate_limit import RateLimiter
from tests.serve_app.made_board import MadeMarket, SetClock, make_test_settings


class Client:
    """Requests straight into an ASGI app, no socket, one event loop per request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def request(self, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://lstmc") as client:
                return await client.request(method, path, headers=headers)

        return asyncio.run(ask())

    def get(self, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        return self.request("GET", path, headers or {})

    def post(self, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        return self.request("POST", path, headers or {})


@dataclass
class Desk:
    """Everything a test of the API touches."""

    settings: Settings
    clock: SetClock
    market: MadeMarket
    board: Board
    app: FastAPI
    client: Client

    def fill(self) -> Desk:
        self.board.apply(self.market.update())
        return self

    def bearer(self, **given: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {issue_token(self.settings, **given)}"}

    def get(self, path: str, **headers: str) -> Any:
        return self.client.get(path, headers=self.bearer() | headers)


@pytest.fixture
def make_desk(tmp_path: Path) -> Any:
    def make(**given: Any) -> Desk:
        settings = make_test_settings(tmp_path / "home", **given)
        clock = SetClock()
        board = board_for(settings, clock.now)
        app = make_api(settings, board, RateLimiter(settings.requests_per_minute), clock, ledger_lookups(settings))
        client = Client(HotPath(app, settings, board, app.state.admission))
        return Desk(settings, clock, MadeMarket(), board, app, client)

    return make


@pytest.fixture
def desk(make_desk: Any) -> Desk:
    return make_desk().fill()
