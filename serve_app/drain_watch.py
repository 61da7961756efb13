"""When Serve has begun to end this replica. It tells nobody but who asks it over HTTP, as HAProxy does; a destructor may
never run, since a stream that is open keeps Serve waiting until it kills."""

from __future__ import annotations

import asyncio

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

LOOK_SECONDS = 0.5


class DrainWatch:
    """Where this replica listens is learned from its requests: before the first one it has nothing to give up."""

    def __init__(self) -> None:
        self._address: tuple[str, int] | None = None

    def learning(self, app: ASGIApp) -> ASGIApp:
        async def learn(scope: Scope, receive: Receive, send: Send) -> None:
            if self._address is None:
                self._address = scope.get("server")
            await app(scope, receive, send)

        return learn

    async def drains(self) -> None:
        """Returns once it does. An answer that does not come says nothing."""
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=1.0) as client:
            while not await self._is_draining(client):
                await asyncio.sleep(LOOK_SECONDS)

    async def _is_draining(self, client: httpx.AsyncClient) -> bool:
        if self._address is None:
            return False
        host, port = self._address
        try:
            told = await client.get(f"http://{host}:{port}/-/healthz")
        except httpx.HTTPError:
            return False
        return "DRAINING" in told.text
