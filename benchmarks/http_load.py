"""Constant load on the HTTP API from a process of its own: one line of JSON per answer, until SIGTERM.

    python -m benchmarks.http_load --url https://127.0.0.1:8443 --ca CERTIFICATE --token FILE --rate 30
        [--forecasts] [--paths /api/v1/forex/all,/api/v1/signals] [--conditional] [--streams 4]

It asks at its pace whether or not answers come (open loop), so a fault that makes answers wait is seen as waiting. Nothing is
asked twice: what fails once has failed. A stream is kept open; a line says when it has ended.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import signal
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

PATHS = (
    "/api/v1/predictions/EURUSD",
    "/api/v1/forex/all",
    "/api/v1/predictions/GBPUSD",
    "/api/v1/models/EURUSD",
    "/api/v1/predictions/USDJPY",
    "/api/v1/bars/EURUSD?limit=24",
    "/api/v1/predictions/EURUSD",
    "/api/v1/status",
)
STREAM = "/api/v1/stream"
FORECAST = ("symbol", "as_of", "last_close", "stale")
TIMEOUT_SECONDS = 20.0  # a person would have given up


def kind_of(answer: httpx.Response) -> str:
    """ "ok", "not modified", "clean 503" (a problem that says when to come again), or the status and type of a failure."""
    media = answer.headers.get("content-type", "no type").split(";")[0]
    if answer.status_code in (200, 304):
        return "ok" if answer.status_code == 200 else "not modified"
    if answer.status_code == 503 and media == "application/problem+json" and "retry-after" in answer.headers:
        return "clean 503"
    return f"{answer.status_code} {media}"


def authorization(token: Path) -> dict[str, str]:
    return {"Authorization": f"Bearer {token.read_text().strip()}"}


async def ask(
    client: httpx.AsyncClient, path: str, token: Path, forecasts: bool = False, known: dict[str, str] | None = None
) -> None:
    """`known`: path -> ETag of the last answer, which is asked about and kept; None: unconditionally."""
    began, at, told = time.perf_counter(), time.time(), {}
    headers = authorization(token)
    if known is not None and path in known:
        headers["If-None-Match"] = known[path]
    try:
        answer = await client.get(path, headers=headers)
        kind = kind_of(answer)
        if known is not None and "etag" in answer.headers:
            known[path] = answer.headers["etag"]
        if kind == "clean 503":
            told = {"problem": answer.json()["title"]}
        if forecasts and kind == "ok" and "/predictions/" in path:
            told = {"forecast": {name: answer.json()[name] for name in FORECAST}}
    except httpx.HTTPError as error:
        kind = type(error).__name__
    say({"at": at, "path": path, "kind": kind, "seconds": time.perf_counter() - began} | told)


async def listen(client: httpx.AsyncClient, token: Path) -> None:
    """Hold a stream open; each update is a line, and so is its end, after which another is opened."""
    while True:
        began = time.perf_counter()
        try:
            async with client.stream("GET", STREAM, headers=authorization(token)) as answer:
                kind = "stream ended" if answer.status_code == 200 else f"stream {kind_of(answer)}"
                async for line in answer.aiter_lines():
                    if line == "event: update":
                        say({"at": time.time(), "path": STREAM, "kind": "update", "seconds": 0.0})
        except httpx.HTTPError as error:
            kind = f"stream {type(error).__name__}"
        say({"at": time.time(), "path": STREAM, "kind": kind, "seconds": time.perf_counter() - began})
        await asyncio.sleep(1.0)


def say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


async def load(
    url: str,
    tls: ssl.SSLContext,
    token: Path,
    rate: float,
    forecasts: bool = False,
    paths: Sequence[str] = PATHS,
    conditional: bool = False,
    streams: int = 0,
) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    limits = httpx.Limits(max_connections=500, max_keepalive_connections=50)
    async with (
        httpx.AsyncClient(base_url=url, verify=tls, timeout=TIMEOUT_SECONDS, limits=limits, trust_env=False) as client,
        asyncio.TaskGroup() as group,
    ):
        listeners = [group.create_task(listen(client, token)) for _ in range(streams)]
        known: dict[str, str] = {}
        start = time.perf_counter()
        for n, path in enumerate(itertools.cycle(paths)):
            try:
                async with asyncio.timeout(max(0.0, start + n / rate - time.perf_counter())):
                    await ended.wait()
                for listener in listeners:
                    listener.cancel()
                return
            except TimeoutError:
                if n // len(paths) % 2 == 0:
                    known.pop(path, None)  # a whole answer every other round
                group.create_task(ask(client, path, token, forecasts, known if conditional else None))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http_load", description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--ca", help="of an https URL")
    parser.add_argument("--token", type=Path, required=True, help="read anew for every request")
    parser.add_argument("--rate", type=float, default=30.0, help="requests a second")
    parser.add_argument("--forecasts", action="store_true", help="say also what a forecast was")
    parser.add_argument("--paths", default=",".join(PATHS), help="asked one after the other, over and over")
    parser.add_argument("--conditional", action="store_true", help="every other round with If-None-Match")
    parser.add_argument("--streams", type=int, default=0, help="held open beside it")
    given = parser.parse_args(argv)
    tls = ssl.create_default_context(cafile=given.ca)
    paths = given.paths.split(",")
    asyncio.run(load(given.url, tls, given.token, given.rate, given.forecasts, paths, given.conditional, given.streams))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
