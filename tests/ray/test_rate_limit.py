"""Sixty a minute for a subject over four live replicas, also while they are rolled, one of them is killed, and the limiter."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import psutil
import pytest

from cluster.nodes import PORT_FLAGS, free_ports, stop
from cluster.run_record import members
from serve_app.auth import issue_token
from tests.ray.conftest import Cluster, eventually

SYMBOLS = ["EURUSD", "GBPUSD"]
REPLICAS = 4


@dataclass(frozen=True)
class Answer:
    """`sent`, `received`: monotonic seconds."""

    status: int
    sent: float
    received: float


class Limited(Cluster):
    """The limit as traders meet it, and more replicas than the local profile has."""

    @property
    def environment(self) -> dict[str, str]:
        more = {"LSTMC_REQUESTS_PER_MINUTE": "60", "LSTMC_HTTP_REPLICAS": str(REPLICAS)}
        return super().environment | more | {"LSTMC_SYMBOLS": ",".join(SYMBOLS), "LSTMC_SPEED": "1"}

    @property
    def flags(self) -> list[str]:
        given = [(PORT_FLAGS[name], str(port)) for name, port in self.ports.items()]
        return ["--no-train", "--detach", *[word for pair in given for word in pair]]

    def processes(self, title: str) -> list[psutil.Process]:
        def has_title(process: psutil.Process) -> bool:
            try:
                return title in " ".join(process.cmdline()[:1])
            except psutil.NoSuchProcess:  # it has just ended
                return False

        return [process for process in members(self.run) if has_title(process)]

    def ask(self, subject: str, times: int, seed: int) -> list[Answer]:
        """That many requests at once, each on a connection of its own, each from a made-up address."""
        token, chance = issue_token(self.settings, subject), random.Random(seed)

        async def one(client: httpx.AsyncClient) -> Answer:
            path = f"/api/v1/predictions/{chance.choice(SYMBOLS)}"
            address = ".".join(str(chance.randrange(1, 255)) for _ in range(4))
            headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": address, "Connection": "close"}
            sent = time.monotonic()
            answer = await client.get(f"http://127.0.0.1:{self.ports['port']}{path}", headers=headers)
            return Answer(answer.status_code, sent, time.monotonic())

        async def all_of_them() -> list[Answer]:
            limits = httpx.Limits(max_connections=20)
            async with httpx.AsyncClient(limits=limits, trust_env=False, timeout=60) as client:
                return await asyncio.gather(*(one(client) for _ in range(times)))

        return asyncio.run(all_of_them())

    def listen(self, subject: str) -> str:
        """All of a stream until it ends, which it does in time; httpx raises when it is cut."""
        headers = {"Authorization": f"Bearer {issue_token(self.settings, subject)}"}
        url = f"http://127.0.0.1:{self.ports['port']}/api/v1/stream"
        with httpx.stream("GET", url, headers=headers, trust_env=False, timeout=300) as answer:
            assert answer.status_code == 200
            told, deadline = "", time.monotonic() + 120
            for text in answer.iter_text():  # a heartbeat at least, each 15 s
                told += text
                assert time.monotonic() < deadline
            return told


def let_in(answers: list[Answer]) -> int:
    return sum(answer.status == 200 for answer in answers)


def most_in_a_minute(answers: list[Answer]) -> int:
    """The largest number that was let in within some 60 seconds for certain, however long the answers took."""
    good = [answer for answer in answers if answer.status == 200]
    return max((sum(first.sent <= a.sent and a.received < first.sent + 60 for a in good) for first in good), default=0)


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limited]:
    made = Limited(tmp_path_factory.mktemp("home"), dict(zip(PORT_FLAGS, free_ports(4), strict=True)))
    try:
        made.lstmc("up", *made.flags)
        yield made
    finally:
        stop(made.home)


def replicas_started(limited: Limited) -> None:
    eventually(lambda: len(limited.processes("ServeReplica:lstmc:Api")) == REPLICAS, 90)


def test_a_roll_costs_a_client_none_of_its_sixty(limited: Limited) -> None:
    """Also while streams are open, which keep a replica until Serve kills it, and which end behind a whole event."""
    replicas_started(limited)
    with ThreadPoolExecutor() as pool:
        streams = [pool.submit(limited.listen, "listener") for _ in range(3)]
        seen = limited.ask("patient", 20, seed=4)
        assert {answer.status for answer in seen} == {200}
        limited.lstmc("roll")
        again = limited.ask("patient", 60, seed=5)
        assert let_in(again) >= 39
        assert most_in_a_minute(seen + again) <= 60
        for stream in streams:
            assert stream.result(60).endswith("\n\n")


def test_an_impatient_client_gets_sixty_and_no_more(limited: Limited) -> None:
    replicas_started(limited)
    seen = limited.ask("impatient", 200, seed=1)
    assert {answer.status for answer in seen} == {200, 429}
    assert let_in(seen) >= 59
    assert most_in_a_minute(seen) <= 60

    # A replica dies, and with it what it may hold of other subjects.
    limited.processes("ServeReplica:lstmc:Api")[0].kill()
    assert most_in_a_minute(limited.ask("another", 100, seed=2)) <= 60

    # The limiter dies: what it knew is taken as used.
    [limiter] = limited.processes("ray::LimiterActor")
    limiter.kill()
    seen += limited.ask("impatient", 40, seed=3)
    assert most_in_a_minute(seen) <= 60
    assert {answer.status for answer in seen} <= {200, 429, 503}
