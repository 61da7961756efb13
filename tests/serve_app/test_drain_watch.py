"""A replica learns that it is being ended from what it tells HAProxy, and from nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from serve_app import drain_watch
from serve_app.drain_watch import DrainWatch


async def asked(watch: DrainWatch, server: Any) -> None:
    """One request to an app behind `watch`, which has to reach it."""
    reached = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope)

    scope = {"type": "http", "server": server}
    await watch.learning(app)(scope, None, None)  # type: ignore[arg-type]
    assert reached == [scope]


def test_it_goes_by_what_the_replica_itself_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain_watch, "LOOK_SECONDS", 0.005)
    said, paths = [b"200 OK", b"success"], []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        paths.append((await reader.readuntil(b"\r\n\r\n")).split()[1])
        status, body = said
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body))
        await writer.drain()
        writer.close()

    async def looks(number: int) -> None:
        seen = len(paths) + number
        while len(paths) < seen:
            await asyncio.sleep(0.001)

    async def scene() -> None:
        watch = DrainWatch()
        draining = asyncio.create_task(watch.drains())
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        await asyncio.sleep(0.02)
        assert not paths  # nobody has asked yet
        await asked(watch, None)
        await asked(watch, ("127.0.0.1", 1))  # of the proxy that handed the first request on; nobody answers there
        await asked(watch, address)
        await looks(3)
        said[:] = b"503 Service Unavailable", b"UNHEALTHY"
        await looks(3)
        assert not draining.done()
        said[:] = b"503 Service Unavailable", b"DRAINING"
        await asyncio.wait_for(draining, 10)
        assert set(paths) == {b"/-/healthz"}
        server.close()

    asyncio.run(asyncio.wait_for(scene(), 30))


def test_a_replica_that_does_not_answer_does_not_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain_watch, "LOOK_SECONDS", 0.005)

    async def scene() -> None:
        watch = DrainWatch()
        refused = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        await asked(watch, refused.sockets[0].getsockname())
        refused.close()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watch.drains(), 0.2)

    asyncio.run(scene())
