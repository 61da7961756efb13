"""Stream: a thousand listeners in one process; how long after the first of them the last has an update, and its size."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.live_cluster import live_cluster
from benchmarks.machine import machine
from configs.settings import Settings
from serve_app.auth import issue_token

SPEED = 240.0  # an hour in fifteen seconds
WAIT_SECONDS = 300.0


async def listen(settings: Settings, token: str, arrivals: dict[str, list[float]], sizes: dict[str, int]) -> None:
    """Note when each update came and how many bytes its data has, by its id."""
    reader, writer = await asyncio.open_connection("127.0.0.1", settings.port, limit=2**22)
    writer.write(f"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    status = await reader.readline()
    if b" 200 " not in status:
        raise RuntimeError(f"The stream was refused: {status.decode().strip()}")
    identity = ""
    while line := await reader.readline():
        if line.startswith(b"id: "):
            identity = line.decode().strip()
        elif line.startswith(b"event: update"):
            arrivals.setdefault(identity, []).append(time.monotonic())
            sizes[identity] = len(await reader.readline())
    raise RuntimeError("The stream ended.")


async def reach(settings: Settings, clients: int, updates: int) -> list[tuple[float, int]]:
    """(milliseconds between the first and the last arrival, bytes) of each of so many updates that reached everybody."""
    token, arrivals, sizes = issue_token(settings, "bench"), dict[str, list[float]](), dict[str, int]()
    tasks = []
    for _ in range(clients):
        tasks.append(asyncio.create_task(listen(settings, token, arrivals, sizes)))
        await asyncio.sleep(0.005)
    await asyncio.sleep(5)
    arrivals.clear()  # those that not everybody was there for
    async with asyncio.timeout(WAIT_SECONDS):
        while sum(len(times) == clients for times in arrivals.values()) < updates:
            await asyncio.sleep(0.5)
            for task in tasks:
                if task.done():
                    task.result()
    for task in tasks:
        task.cancel()
    whole = {identity: times for identity, times in arrivals.items() if len(times) == clients}
    return [((max(times) - min(times)) * 1000, sizes[identity]) for identity, times in whole.items()]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lstmc bench stream", description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--updates", type=int, default=8)
    options = parser.parse_args(argv)
    words, clients = ("--speed", str(SPEED)), str(options.clients)
    with (
        tempfile.TemporaryDirectory(prefix="lstmc-bench-") as folder,
        live_cluster(
            Path(folder) / "home", *words, LSTMC_STREAMS_PER_SUBJECT=clients, LSTMC_REQUESTS_PER_MINUTE="1000000"
        ) as settings,
    ):
        found = asyncio.run(reach(settings, options.clients, options.updates))
    milliseconds, sizes = zip(*found, strict=True)
    figures: dict[str, Any] = {
        "clients": options.clients,
        "updates": len(found),
        "reach_ms": round(median(milliseconds), 1),
        "reach_worst_ms": round(max(milliseconds), 1),
        "update_bytes": round(median(sizes)),
    }
    print(json.dumps(figures | {"command": "lstmc bench stream --json", "machine": machine()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
