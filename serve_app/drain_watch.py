"""When Serve has begun to end this replica. It tells nobody but who asks it over HTTP, as HAProxy does; a destructor may
never run, since a stream that is open keeps Serve waiting until it kills."""

from __future__ import annotations

import asyncio

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

LOOK_SECONDS = 0.5


class DrainWatch:
    """Where this replica listens is learned from its requests: before the first one it has nothing to give up. Those that
    Ray's own proxy hands on while HAProxy knows no replica name that proxy, which never says so of a replica."""

    def __init__(self) -> None:
        self._addresses: set[tuple[str, int]] = set()

    def learning(self, app: ASGIApp) -> ASGIApp:
        async def learn(scope: Scope, receive: Receive, send: Send) -> None:
            server = scope.get("server")
            if server is not None:
                self._addresses.add(server)
            await app(scope, receive, send)

        return learn

    async def drains(self) -> None:
        """Returns once it does. An answer that does not come says nothing."""
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=1.0) as client:
            while not any([await _says_draining(client, *address) for address in list(self._addresses)]):
                await asyncio.sleep(LOOK_SECONDS)


async def _says_draining(client: httpx.AsyncClient, host: str, port: int) -> bool:
    try:
        told = await client.get(f"http://{host}:{port}/-/healthz")
    except Exception:  # whatever it is, the next look may succeed
        return False
    return "DRAINING" in told.text
