"""How often a subject may ask: a moving window of one minute, exact over all replicas. Pure: the book of leases is given.

Most requests use a slot that this replica holds. Only when it holds none that has rested, the book is asked, which
takes back what others hold and do not use. Without a book all slots are here.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from actors.rate_leases import LEASE_SECONDS, WINDOW_SECONDS, Grant, Lot, Slots
from mt5_actor_windows.request_budget import Budget
from serve_app.problems import Problem, unavailable

ASK_SECONDS = 3.0  # a book that is started again is back by then
PAUSE_SECONDS = 0.1  # between two attempts to reach it
WATCH_SECONDS = 0.5  # between two looks at whether the book has ended, while nothing is heard of it
QUIET_SECONDS = 2.0  # since the last word of it was sent; it lets a poll wait one
ALONE_SECONDS = 120.0  # without a book, while the head starts again; its successor might be out of our reach
IDLE_SECONDS = 30.0  # between two looks for subjects that have not asked for a window
_log = structlog.get_logger("lstmc.api")


class Book(Protocol):
    """See `actors.rate_limiter.RateLimiterActor`."""

    async def introduce(self, replica: str, shown: dict[str, Lot]) -> tuple[str, dict[str, int]]: ...
    async def poll(self, replica: str, life: str) -> list[str] | None: ...
    async def exchange(self, replica: str, life: str, subject: str, lot: Lot, wanted: int) -> Grant | None: ...

    async def has_ended(self) -> bool:
        """Whether the book that was last introduced to grants nothing any more, for certain. Never raises."""


@dataclass
class _Account:
    """One subject here. `waiters`: requests that found no slot, with the moment from which they wait."""

    slots: Slots
    left: int = 0  # usable ones that the book had when it was last asked
    refused_until: float = 0.0
    recalled: bool = False
    waiters: deque[tuple[asyncio.Future[Budget], float]] = field(default_factory=deque)
    exchange: asyncio.Task[None] | None = None


class RateLimiter:
    """At most `per_minute` requests of each subject in any 60 seconds, together with the other replicas on `book`.

    `now`: seconds that never go back.
    """

    def __init__(self, per_minute: int, book: Book | None = None, *, now: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._book, self._now = per_minute, book, now
        self._replica = uuid.uuid4().hex
        self._life, self._introductions = "", 0
        self._introducing = asyncio.Lock()
        self._lease_until = math.inf if book is None else -math.inf
        self._alone_until: float | None = None  # since the book is known to have ended
        self._leaving = False
        self._accounts: dict[str, _Account] = {}

    def take_held(self, subject: str) -> Budget | None:
        """Count one request if a slot for it is here; None when the book has to be asked, or there is none."""
        account = self._accounts.get(subject) or self._open(subject)
        now = self._now()
        if now >= self._lease_until or not account.slots.use(now):
            return None
        return self._budget(account, now)

    async def take(self, subject: str) -> Budget:
        """Count one request of `subject`; Problem 429 with Retry-After when the window is full, 503 when the book is away."""
        budget = self.take_held(subject)
        if budget is not None:
            return budget
        account, now = self._accounts[subject], self._now()
        if self._book is None or now < account.refused_until:
            raise self._too_many(account, now)
        if self._alone_until is not None and account.slots.resting:
            raise self._refusal_alone(account, now)
        waiter = asyncio.get_running_loop().create_future()
        account.waiters.append((waiter, now))
        self._begin_exchange(subject, account)
        return await waiter

    async def follow(self) -> None:
        """Keep the lease and give back what is recalled, for ever."""
        await asyncio.gather(self._poll_forever(), self._watch_forever())

    async def leave(self) -> None:
        """Give all slots back, and from now on what each request leaves over: this replica is about to end, and what it
        holds then counts as used for a minute. Requests that still come are counted as before."""
        if self._book is None:
            return
        self._leaving = True
        for subject, account in self._accounts.items():
            account.recalled = True
            self._begin_exchange(subject, account)
        await asyncio.gather(*(account.exchange for account in self._accounts.values() if account.exchange))

    # Inside

    async def _poll_forever(self) -> None:
        assert self._book is not None
        looked, reached = self._now(), True
        while True:
            sent, introductions = self._now(), self._introductions
            try:
                recalled = await self._book.poll(self._replica, self._life)
                if recalled is None:
                    await self._introduce(introductions)
                    continue
                self._renew(sent)
                reached = True
            except Exception as error:  # another process: not there yet, or starting again
                if reached:
                    _log.warning("the rate limiter is away", reason=f"{type(error).__name__}: {error}"[:200])
                reached = False
                await self._stay_alone()
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            if self._now() - looked > IDLE_SECONDS:
                looked = self._now()
                recalled = [*recalled, *self._idle()]
            for subject in recalled:
                account = self._open(subject)
                account.recalled = True
                self._begin_exchange(subject, account)

    async def _watch_forever(self) -> None:
        """A poll may hang until long after the lease."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if self._lease_until - self._now() < LEASE_SECONDS - QUIET_SECONDS:
                await self._stay_alone()

    def _open(self, subject: str) -> _Account:
        if subject not in self._accounts:
            self._accounts[subject] = _Account(Slots(0 if self._book else self._per_minute))
        return self._accounts[subject]

    def _idle(self) -> list[str]:
        """Subjects whose slots here have all rested."""
        now = self._now()
        for account in self._accounts.values():
            account.slots.settle(now)
        return [subject for subject, account in self._accounts.items() if not account.slots.resting]

    def _budget(self, account: _Account, now: float) -> Budget:
        resting = account.slots.resting
        wait = resting[0] - now if resting else WINDOW_SECONDS
        return Budget(self._per_minute, account.slots.rested + account.left, max(1, math.ceil(wait)))

    def _too_many(self, account: _Account, now: float) -> Problem:
        return self._full(account.refused_until if self._book else account.slots.resting[0], now)

    def _refusal_alone(self, account: _Account, now: float) -> Problem:
        """With slots that rest here; without any, a book that comes back soon is waited for."""
        if now >= self._lease_until:
            return _away()
        return self._full(account.slots.resting[0], now)

    def _full(self, until: float, now: float) -> Problem:
        return _too_many(Budget(self._per_minute, 0, max(1, math.ceil(until - now))))

    def _begin_exchange(self, subject: str, account: _Account) -> None:
        if account.exchange is None:
            account.exchange = asyncio.create_task(self._exchanges(subject, account))

    async def _exchanges(self, subject: str, account: _Account) -> None:
        """Ask until nobody waits and nothing is recalled. Ends every waiter's wait; never raises."""
        try:
            while account.waiters or account.recalled:
                account.recalled = False
                answered = await self._exchange(subject, account)
                if not answered:
                    await asyncio.sleep(PAUSE_SECONDS)
                self._serve_waiters(account)
                if self._leaving and answered and account.slots != Slots():
                    account.recalled = True
        finally:
            account.exchange = None
            if account.slots == Slots() and self._now() >= account.refused_until:
                self._accounts.pop(subject, None)

    async def _exchange(self, subject: str, account: _Account) -> bool:
        """Give back all, take what is granted; whether the book answered. What is on its way when it dies is lost: it
        may have reached somebody."""
        assert self._book is not None
        if self._alone_until is not None:  # what is sent to a book that has ended is lost
            return False
        sent, life, introductions = self._now(), self._life, self._introductions
        try:
            lot = account.slots.empty(sent)
            grant = await self._book.exchange(self._replica, life, subject, lot, len(account.waiters))
            if grant is None:  # it does not know us, so it has not taken the lot
                if introductions == self._introductions:
                    account.slots.add(lot, sent)
                await self._introduce(introductions)
                return True
        except Exception as error:
            _log.info("the rate limiter did not answer", reason=f"{type(error).__name__}: {error}"[:200])
            return False
        if introductions == self._introductions:  # otherwise the lease that this was granted on is over
            self._renew(sent)
            now = self._now()
            account.slots.add(grant.lot, now)
            account.left = grant.left
            account.refused_until = now + (0.0 if grant.lot.count else grant.wait)
        return True

    def _serve_waiters(self, account: _Account) -> None:
        """At once, before anything that was granted can be recalled."""
        now = self._now()
        while account.waiters:
            waiter, since = account.waiters[0]
            if waiter.done():
                pass  # its client has gone
            elif now < self._lease_until and account.slots.use(now):
                waiter.set_result(self._budget(account, now))
            elif now < account.refused_until:
                waiter.set_exception(self._too_many(account, now))
            elif self._alone_until is not None and account.slots.resting:
                waiter.set_exception(self._refusal_alone(account, now))
            elif now - since > ASK_SECONDS:
                waiter.set_exception(_away())
            else:
                return
            account.waiters.popleft()

    def _renew(self, sent: float) -> None:
        self._lease_until = max(self._lease_until, sent + LEASE_SECONDS)
        self._alone_until = None

    async def _stay_alone(self) -> None:
        """What is held here stays ours while the lease has not ended before the book has: nobody else can have got it."""
        assert self._book is not None
        asked, introductions = self._now(), self._introductions
        if asked >= self._lease_until or not await self._book.has_ended():
            return
        if introductions == self._introductions and self._now() < self._lease_until:
            if self._alone_until is None:
                self._alone_until = asked + ALONE_SECONDS
            self._lease_until = max(self._lease_until, min(asked + LEASE_SECONDS, self._alone_until))

    async def _introduce(self, introductions: int) -> None:
        """To a book that does not know us, unless that was done since there were so many `introductions`: show it what
        is here, if it is still ours, and keep what it allows."""
        assert self._book is not None
        async with self._introducing:
            if introductions != self._introductions:
                return
            sent = self._now()
            # Once the book was seen to end within our lease nobody else can get them, used or not.
            ours = self._accounts if sent < self._lease_until or self._alone_until is not None else {}
            shown = {s: lot for s, account in ours.items() if (lot := account.slots.look(sent)).count}
            life, kept = await self._book.introduce(self._replica, shown)
            for subject, account in self._accounts.items():
                account.slots.keep(kept.get(subject, 0))
                account.left, account.refused_until = 0, 0.0
            self._life, self._lease_until, self._alone_until = life, sent + LEASE_SECONDS, None
            self._introductions += 1


def _too_many(budget: Budget) -> Problem:
    return Problem(
        429,
        "too-many-requests",
        "Too many requests",
        f"This subject may ask {budget.limit} times a minute.",
        hint="Wait as long as Retry-After says, or read /api/v1/stream, which counts once.",
        headers=budget.headers() | {"Retry-After": str(budget.reset_seconds)},
    )


def _away() -> Problem:
    return unavailable(
        "limiter-away",
        "The rate limit cannot be checked",
        "The rate limiter does not answer, so that no further request can be counted.",
        hint="Wait as long as Retry-After says; it is started again by itself.",
        retry_after=2,
    )
