"""The page in a real browser, Debian's Chromium, against the API over a made-up market on loopback, without Ray."""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, sync_playwright

from configs.settings import Settings
from market.forecasts import BoardUpdate
from serve_app.api import make_api
from serve_app.auth import issue_token
from serve_app.board import board_for
from serve_app.lookups import ledger_lookups
from serve_app.rate_limit import RateLimiter
from tests.browser.forecast_page import ForecastPage
from tests.serve_app.made_board import MadeMarket, SetClock, make_test_settings

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]


class Site:
    """The API on a free port of loopback, in a thread with its own event loop, and the market behind it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = SetClock()
        self.market = MadeMarket(symbols=settings.symbols, market=settings.market)
        self.board = board_for(settings, self.clock.now)
        limiter = RateLimiter(settings.requests_per_minute)
        app = make_api(settings, self.board, limiter, self.clock, ledger_lookups(settings))
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def _run(self) -> None:
        self._loop.run_until_complete(self._server.serve([self._socket]))
        self._loop.close()

    def start(self) -> Site:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(15)
        self._socket.close()

    def token(self, **given: Any) -> str:
        return issue_token(self.settings, **given)

    def publish(self, update: BoardUpdate) -> None:
        self._call(self.board.apply, update)

    def late(self, **span: float) -> None:
        """Let market time pass without a bar."""
        self.clock.advance(**span)
        self._call(self.board.tick)

    def drop_connections(self) -> None:
        """As a network does that fails: every open connection is cut, the stream's too."""
        self._call(lambda: [c.transport.abort() for c in list(self._server.server_state.connections)])

    def _call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Run inside the server's event loop, as a push by the forecaster does."""
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (function(*arguments), done.set()))
        assert done.wait(10)


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    sites: list[Site] = []

    def make(*, filled: bool = True, **given: Any) -> Site:
        site = Site(make_test_settings(tmp_path / f"home{len(sites)}", **({"timeframes": ("H1",)} | given))).start()
        sites.append(site)
        if filled:
            site.publish(site.market.update())
        return site

    yield make
    for site in sites:
        site.stop()


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip("no Chromium: run tests/browser/install_chromium.sh")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., ForecastPage]]:
    """Opens the page of a site; at the end, whatever it complained about or asked of other hosts fails the test."""
    opened: list[ForecastPage] = []

    def open_(url: str, token: str | None = None, **given: Any) -> ForecastPage:
        page = ForecastPage.open(browser, url, token, **given)
        opened.append(page)
        return page

    yield open_
    for page in opened:
        page.close()
