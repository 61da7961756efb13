"""Constant load on the HTTP API from a process of its own: one line of JSON per answer, until SIGTERM.

    python -m benchmarks.http_load --url https://127.0.0.1:8443 --ca CERTIFICATE --token FILE --rate 30 [--forecasts]

It asks at its pace whether or not answers come (open loop), so a fault that makes answers wait is seen as waiting. Nothing is
asked twice: what fails once has failed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import signal
import ssl
import time
from pathlib import Path

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
FORECAST = ("symbol", "as_of", "last_close", "stale")
TIMEOUT_SECONDS = 20.0  # a person would have given up


def kind_of(answer: httpx.Response) -> str:
    """ "ok", "clean 503" (a problem that says when to come again), or the status and type of a failure."""
    media = answer.headers.get("content-type", "no type").split(";")[0]
    if answer.status_code == 200:
        return "ok"
    if answer.status_code == 503 and media == "application/problem+json" and "retry-after" in answer.headers:
        return "clean 503"
    return f"{answer.status_code} {media}"


async def ask(client: httpx.AsyncClient, path: str, token: Path, forecasts: bool = False) -> None:
    began, at, told = time.perf_counter(), time.time(), {}
    try:
        answer = await client.get(path, headers={"Authorization": f"Bearer {token.read_text().strip()}"})
        kind = kind_of(answer)
        if kind == "clean 503":
            told = {"problem": answer.json()["title"]}
        if forecasts and kind == "ok" and "/predictions/" in path:
            told = {"forecast": {name: answer.json()[name] for name in FORECAST}}
    except httpx.HTTPError as error:
        kind = type(error).__name__
    print(json.dumps({"at": at, "path": path, "kind": kind, "seconds": time.perf_counter() - began} | told), flush=True)


async def load(url: str, tls: ssl.SSLContext, token: Path, rate: float, forecasts: bool = False) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    limits = httpx.Limits(max_connections=500, max_keepalive_connections=50)
    async with (
        httpx.AsyncClient(base_url=url, verify=tls, timeout=TIMEOUT_SECONDS, limits=limits, trust_env=False) as client,
        asyncio.TaskGroup() as group,
    ):
        start = time.perf_counter()
        for n, path in enumerate(itertools.cycle(PATHS)):
            try:
                async with asyncio.timeout(max(0.0, start + n / rate - time.perf_counter())):
                    await ended.wait()
                return
            except TimeoutError:
                group.create_task(ask(client, path, token, forecasts))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http_load", description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--ca", help="of an https URL")
    parser.add_argument("--token", type=Path, required=True, help="read anew for every request")
    parser.add_argument("--rate", type=float, default=30.0, help="requests a second")
    parser.add_argument("--forecasts", action="store_true", help="say also what a forecast was")
    given = parser.parse_args(argv)
    tls = ssl.create_default_context(cafile=given.ca)
    asyncio.run(load(given.url, tls, given.token, given.rate, given.forecasts))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
