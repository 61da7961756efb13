"""One limit over many replicas: never more than it in any minute, whoever dies and whatever is lost, and 60 when all is well.

The real replicas' side and the real book on a clock that jumps; between them a network that delays and loses.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.rate_leases import LEASE_SECONDS, WINDOW_SECONDS, LeaseBook, Lot
from actors.rate_limiter import RateLimiterActor
from serve_app.problems import Problem
from serve_app.rate_limit import ALONE_SECONDS, RateLimiter
from tests.virtual_time import run


class Cluster:
    """Replicas and a book. `chance` draws how long each message takes and whether it is lost."""

    def __init__(self, limit: int, replicas: int, chance: random.Random, *, lossy: bool = False) -> None:
        self.limit, self.chance, self.lossy = limit, chance, lossy
        self.now = asyncio.get_running_loop().time
        self.book = RateLimiterActor(limit, now=self.now)
        self.up = True
        self.hangs = False  # whether a question to a book that is away takes its time
        self.silent = False  # whether nobody can say that the book has ended
        self.calls = 0
        self.replicas: list[RateLimiter] = []
        self.following: list[asyncio.Task[None]] = []
        self.admitted: dict[str, list[float]] = {}
        for _ in range(replicas):
            self.add()

    def add(self) -> None:
        self.replicas.append(RateLimiter(self.limit, Wire(self), now=self.now))
        self.following.append(asyncio.create_task(self.replicas[-1].follow()))

    def kill(self, i: int) -> None:
        self.following[i].cancel()
        self.replicas[i] = RateLimiter(self.limit, Wire(self), now=self.now)
        self.following[i] = asyncio.create_task(self.replicas[i].follow())

    async def end_replica(self, i: int) -> None:
        """As Serve does: it is told, and killed a while later."""
        await self.replicas[i].leave()
        await asyncio.sleep(3.0)
        self.kill(i)

    def crash_book(self) -> None:
        self.book, self.up = RateLimiterActor(self.limit, reborn=True, now=self.now), False

    def restart_book(self) -> None:
        if not self.up:
            self.book, self.up = RateLimiterActor(self.limit, reborn=True, now=self.now), True

    async def ask(self, i: int, subject: str = "desk") -> int:
        """The status of one request; when it was let in is noted."""
        try:
            await self.replicas[i].take(subject)
        except Problem as problem:
            return problem.status
        self.admitted.setdefault(subject, []).append(self.now())
        return 200

    def most_in_a_window(self) -> int:
        most = 0
        for times in self.admitted.values():
            ordered = sorted(times)
            for i, first in enumerate(ordered):
                most = max(most, sum(first <= time < first + WINDOW_SECONDS - 1e-6 for time in ordered[i:]))
        return most

    def end(self) -> None:
        for task in self.following:
            task.cancel()


class Wire:
    """What one replica sees of the book."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.met: RateLimiterActor | None = None

    async def introduce(self, *words: Any) -> Any:
        book = self.cluster.book
        life, kept, _ = await self._carry("introduce", *words)
        self.met = book
        return life, kept

    async def poll(self, *words: Any) -> Any:
        return await self._carry("poll", *words)

    async def exchange(self, *words: Any) -> Any:
        self.cluster.calls += 1
        return await self._carry("exchange", *words)

    async def has_ended(self) -> bool:
        """As a connection that is refused says it, also while there is another book already."""
        ended = self.met is not None and self.met is not self.cluster.book
        try:
            await self._travel()
        except ConnectionError:
            return False
        return ended and not self.cluster.silent

    async def _carry(self, method: str, *words: Any) -> Any:
        book = self.cluster.book
        await self._travel()
        if book is not self.cluster.book or not self.cluster.up:
            await asyncio.sleep(4.0 if self.cluster.hangs else 0.0)  # as while the control store is away, too
            raise ConnectionError("the book is away")
        answer = await getattr(book, method)(*words)
        await self._travel()
        if book is not self.cluster.book:
            raise ConnectionError("the book went away")
        return answer

    async def _travel(self) -> None:
        chance = self.cluster.chance
        await asyncio.sleep(chance.uniform(0, 0.01))
        if self.cluster.lossy and chance.random() < 0.1:
            await asyncio.sleep(chance.choice((0.5, 4.0, LEASE_SECONDS + 1, 11.0)))
        if self.cluster.lossy and chance.random() < 0.05:
            raise ConnectionError("lost")


async def settle(seconds: float = 0.5) -> None:
    await asyncio.sleep(seconds)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("spread", ["all at once", "one by one", "one replica, then the others"])
def test_an_impatient_client_gets_sixty_from_four_replicas(spread: str, seed: int) -> None:
    async def scene() -> None:
        chance = random.Random(seed)
        cluster = Cluster(60, 4, chance)
        await settle()
        began = cluster.now()
        if spread == "all at once":
            statuses = await asyncio.gather(*(cluster.ask(chance.randrange(4)) for _ in range(200)))
        else:
            where = [chance.randrange(4) if spread == "one by one" or n > 30 else 0 for n in range(200)]
            statuses = [await cluster.ask(i) for i in where]
        assert cluster.now() - began < 30
        assert statuses.count(200) == 60, f"seed {seed}"
        assert set(statuses) == {200, 429}
        # What was used a minute ago can be used again, wherever it now is.
        await asyncio.sleep(WINDOW_SECONDS)
        again = [await cluster.ask(3) for _ in range(70)]
        assert again.count(200) == 60
        assert cluster.most_in_a_window() <= 60
        cluster.end()

    run(scene())


def test_a_client_with_good_manners_costs_no_call_per_request() -> None:
    async def scene() -> None:
        cluster = Cluster(60, 4, random.Random(1))
        await settle()
        for n in range(300):
            assert await cluster.ask(n % 4) == 200
            await asyncio.sleep(1.5)
        assert cluster.calls < 30
        cluster.end()

    run(scene())


def test_one_replica_asks_once_and_tells_what_is_left() -> None:
    async def scene() -> None:
        cluster = Cluster(60, 1, random.Random(1))
        await settle()
        left = [(await cluster.replicas[0].take("desk")).remaining for _ in range(60)]
        assert left == list(range(59, -1, -1))
        assert cluster.calls == 1
        with pytest.raises(Problem) as refused:
            await cluster.replicas[0].take("desk")
        assert refused.value.status == 429
        assert 59 <= int(refused.value.headers["Retry-After"]) <= 60
        cluster.end()

    run(scene())


def test_a_dead_replica_takes_its_slots_along_for_a_minute() -> None:
    async def scene() -> None:
        cluster = Cluster(60, 2, random.Random(1))
        await settle()
        assert await cluster.ask(0) == 200
        cluster.kill(0)
        answers = [await cluster.ask(1) for _ in range(70)]
        assert 30 <= answers.count(200) < 60
        await asyncio.sleep(WINDOW_SECONDS + LEASE_SECONDS)
        answers = [await cluster.ask(1) for _ in range(70)]
        assert answers.count(200) == 60
        cluster.end()

    run(scene())


def test_a_replica_that_leaves_takes_no_slot_along() -> None:
    """Nor while it still answers: a proxy sends it requests until it has heard."""

    async def scene() -> None:
        cluster = Cluster(60, 2, random.Random(1))
        await settle()
        assert [await cluster.ask(n % 2) for n in range(20)] == [200] * 20
        ending = asyncio.create_task(cluster.end_replica(0))
        await settle()
        assert [await cluster.ask(0) for _ in range(5)] == [200] * 5
        await ending
        answers = [await cluster.ask(1) for _ in range(60)]
        assert answers.count(200) == 60 - 20 - 5
        assert cluster.now() < WINDOW_SECONDS
        assert cluster.most_in_a_window() <= 60
        cluster.end()

    run(scene())


def test_a_replica_leaves_without_a_book_that_answers() -> None:
    async def scene() -> None:
        cluster = Cluster(60, 1, random.Random(1))
        await settle()
        assert await cluster.ask(0) == 200
        cluster.crash_book()
        await asyncio.wait_for(cluster.replicas[0].leave(), 1.0)
        cluster.end()
        await RateLimiter(60, now=cluster.now).leave()  # nor where there never was one

    run(scene())


def test_a_restarted_book_leaves_held_slots_alone_and_opens_the_rest_after_a_minute() -> None:
    async def scene() -> None:
        cluster = Cluster(60, 2, random.Random(1))
        await settle()
        assert await cluster.ask(0) == 200
        cluster.crash_book()
        assert [await cluster.ask(0) for _ in range(5)] == [200] * 5  # without a book
        await asyncio.sleep(2)
        cluster.restart_book()
        await settle()
        assert await cluster.ask(0) == 200
        assert await cluster.ask(1, "newcomer") == 429
        await asyncio.sleep(WINDOW_SECONDS + LEASE_SECONDS)
        for subject in ("desk", "newcomer"):
            answers = [await cluster.ask(1, subject) for _ in range(70)]
            assert answers.count(200) == 60
        cluster.end()

    run(scene())


def test_a_book_that_has_ended_leaves_what_is_held_until_another_one_comes() -> None:
    async def scene() -> None:
        cluster = Cluster(60, 2, random.Random(1))
        await settle()
        assert await cluster.ask(0) == await cluster.ask(1) == 200
        cluster.crash_book()
        await asyncio.sleep(2)  # until that is seen; what is given back before is lost
        held = [[await cluster.ask(i) for _ in range(60)] for i in (0, 1)]
        assert all(set(one) == {200, 429} for one in held)
        assert [one.count(200) for one in held] == [29, 14]  # of half and of half of what was left
        await asyncio.sleep(30)
        assert await cluster.ask(0) == 429
        assert await cluster.ask(0, "newcomer") == 503
        await asyncio.sleep(31)
        assert await cluster.ask(0) == 200
        await asyncio.sleep(20)
        cluster.restart_book()
        await settle()
        assert await cluster.ask(0) == await cluster.ask(1) == 200  # shown to the new one
        await asyncio.sleep(WINDOW_SECONDS + LEASE_SECONDS)
        assert sum([await cluster.ask(n % 2) == 200 for n in range(70)]) == 60
        assert cluster.most_in_a_window() <= 60
        cluster.end()

    run(scene())


@pytest.mark.parametrize("hangs", [False, True])
def test_a_head_that_is_away_costs_no_request(hangs: bool) -> None:
    """Questions to the book hang until the control store is back."""

    async def scene() -> None:
        cluster = Cluster(200, 2, random.Random(1))
        cluster.hangs = hangs
        await settle()
        told = [await cluster.ask(n % 2) for n in range(4)]
        cluster.crash_book()
        for n in range(100):
            told.append(await cluster.ask(n % 2))
            await asyncio.sleep(1.0)
            if n == 60:
                cluster.restart_book()
        assert set(told) == {200}
        assert cluster.most_in_a_window() <= 200
        cluster.end()

    run(scene())


def test_who_introduces_itself_again_takes_nothing_of_others() -> None:
    """Its first introduction was taken, and the answer lost."""
    now = [100.0]
    book = LeaseBook(60, lambda: now[0], reborn=True)
    assert book.introduce("a", {"desk": Lot(30)}) == {"desk": 30}
    now[0] += 0.5
    assert book.introduce("a", {"desk": Lot(20, (50.0,) * 10)}) == {"desk": 30}
    now[0] += 2.0
    assert book.introduce("b", {"desk": Lot(0, (59.0,) * 30)}) == {"desk": 30}
    now[0] += WINDOW_SECONDS + LEASE_SECONDS - 3.0
    assert (book.knows("a", book.life), book.knows("b", book.life)) == (False, False)  # their leases are over
    assert book.usable("desk") == 0


def test_alone_for_long_is_too_long() -> None:
    async def scene() -> None:
        cluster = Cluster(60, 1, random.Random(1))
        await settle()
        assert await cluster.ask(0) == 200
        cluster.crash_book()
        await asyncio.sleep(ALONE_SECONDS - 5)
        assert await cluster.ask(0) == 200
        await asyncio.sleep(10)
        assert await cluster.ask(0) == 503
        cluster.end()

    run(scene())


def test_without_the_book_nobody_is_let_in_for_longer_than_a_lease() -> None:
    async def scene() -> None:
        cluster = Cluster(60, 1, random.Random(1))
        await settle()
        assert await cluster.ask(0) == 200
        cluster.silent = True
        cluster.crash_book()
        await asyncio.sleep(LEASE_SECONDS + 1)
        assert await cluster.ask(0) == 503
        cluster.end()

    run(scene())


DEEDS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "ask", "burst", "kill", "leave", "crash", "restart", "wait"]),
        st.integers(0, 3),
        st.sampled_from([0.0, 0.01, 0.3, 2.0, 7.0, 31.0, 61.0]),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    deeds=DEEDS,
    seed=st.integers(0, 2**32),
    lossy=st.booleans(),
    away=st.sampled_from(["refuses", "hangs", "is silent"]),
    limit=st.integers(1, 8),
)
def test_never_more_than_the_limit_in_any_minute_whatever_happens(
    deeds: list[tuple[str, int, float]], seed: int, lossy: bool, away: str, limit: int
) -> None:
    async def scene() -> None:
        cluster = Cluster(limit, 4, random.Random(seed), lossy=lossy)
        cluster.hangs, cluster.silent = away != "refuses", away == "is silent"
        asked: list[asyncio.Task[int]] = []
        ending: list[asyncio.Task[None]] = []
        for deed, i, pause in deeds:
            if deed in ("ask", "burst"):
                many = 1 if deed == "ask" else 3 * limit
                asked += [asyncio.create_task(cluster.ask(i, f"desk-{i % 2}")) for _ in range(many)]
            elif deed == "kill":
                cluster.kill(i)
            elif deed == "leave":
                ending.append(asyncio.create_task(cluster.end_replica(i)))
            elif deed == "crash":
                cluster.crash_book()
            elif deed == "restart":
                cluster.restart_book()
            await asyncio.sleep(pause)
        cluster.restart_book()
        cluster.lossy = False
        # Nobody is locked out for ever: whatever is still on its way arrives, then a lease and a window are over.
        await asyncio.sleep(30 + LEASE_SECONDS + WINDOW_SECONDS)
        answers = [await cluster.ask(n % 4, "desk-0") for n in range(4 * limit)]
        assert answers.count(200) == limit
        assert all(task.done() for task in [*asked, *ending])
        assert cluster.most_in_a_window() <= limit
        cluster.end()

    run(scene())
