"""A rate limit across replicas without a question per request: slots, and the book of who holds how many of them.

A subject has as many slots as it may ask in a window. One that was used rests for a window, wherever it then is, so no
window ever sees more requests than there are slots. Replicas hold slots on a lease that ends by itself; what is not known
for certain counts as used. Pure: monotonic seconds are given, and between processes only durations travel.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

WINDOW_SECONDS = 60.0
UNANSWERED_SECONDS = 1.0
LEASE_SECONDS = 5.0  # after its last answered word a replica may use what it holds, and no longer


@dataclass(frozen=True)
class Lot:
    """Slots on their way: how many may be used at once, and the seconds that each of the others has to rest."""

    rested: int = 0
    rests: tuple[float, ...] = ()

    @property
    def count(self) -> int:
        return self.rested + len(self.rests)


@dataclass
class Slots:
    """One subject's slots in one place. `resting`: the moments at which they may be used again, in ascending order."""

    rested: int = 0
    resting: deque[float] = field(default_factory=deque)

    def settle(self, now: float) -> int:
        """How many may be used at `now`."""
        while self.resting and self.resting[0] <= now:
            self.resting.popleft()
            self.rested += 1
        return self.rested

    def use(self, now: float) -> bool:
        """Use one, if there is one."""
        if not self.settle(now):
            return False
        self.rested -= 1
        self.resting.append(now + WINDOW_SECONDS)
        return True

    def add(self, lot: Lot, now: float) -> None:
        self.rested += lot.rested
        if lot.rests:
            self.resting = deque(sorted([*self.resting, *(now + rest for rest in lot.rests)]))

    def look(self, now: float) -> Lot:
        return Lot(self.settle(now), tuple(until - now for until in self.resting))

    def keep(self, count: int) -> None:
        """At most `count`, of which as few as can be are usable."""
        while len(self.resting) > count:
            self.resting.popleft()
        self.rested = min(self.rested, count - len(self.resting))

    def empty(self, now: float) -> Lot:
        """Take all of them out."""
        lot = self.look(now)
        self.rested = 0
        self.resting.clear()
        return lot


@dataclass(frozen=True)
class Grant:
    """`lot`: empty when there is no usable slot for the next `wait` seconds. `left`: usable ones that stay behind."""

    lot: Lot
    left: int
    wait: float


class LeaseBook:
    """Which slots of which subject are here, and how many each replica holds; together always `per_window`.

    `life` names this book: a replica that knows another one has to introduce itself. A book that was `reborn` knows
    nothing of the one before it, so a subject's slots rest for a lease and a window, except for those that a replica shows
    until then. One that has not seen its book end stops using them with its lease; one that has goes on, and shows them.
    """

    def __init__(self, per_window: int, now: Callable[[], float], *, reborn: bool = False) -> None:
        self.life = uuid.uuid4().hex
        self._per_window, self._now = per_window, now
        self._unknown_until = now() + (LEASE_SECONDS + WINDOW_SECONDS if reborn else 0)
        self._here: dict[str, Slots] = {}
        self._held: dict[str, dict[str, int]] = {}
        self._heard: dict[str, float] = {}

    def introduce(self, replica: str, shown: dict[str, Lot]) -> dict[str, int]:
        """A replica comes, from another book perhaps, with the slots it has -> how many of each subject it may keep.

        It may come again because it was not answered: then it has no more than what it was allowed before.
        """
        now = self._expire()
        had = {subject: holders.pop(replica, 0) for subject, holders in self._held.items()}
        kept = {}
        for subject, lot in shown.items():
            again = min(lot.count, had.get(subject, 0))
            had[subject] = had.get(subject, 0) - again
            kept[subject] = again
            if now < self._unknown_until:
                kept[subject] += self._take_unknown(subject, lot.count - again)
            if kept[subject]:
                self._held.setdefault(subject, {})[replica] = kept[subject]
        for subject, count in had.items():
            if count:
                self._slots(subject).add(Lot(0, (WINDOW_SECONDS,) * count), now)
        self._heard[replica] = now
        return kept

    def knows(self, replica: str, life: str) -> bool:
        """Renew the lease of a replica that was introduced; False for one that has to be."""
        now = self._expire()
        if life != self.life or replica not in self._heard:
            return False
        self._heard[replica] = now
        return True

    def take_back(self, replica: str, subject: str, lot: Lot) -> None:
        """All that `replica` has of `subject`. What is missing was lost on its way and may have been used till now."""
        now, here = self._now(), self._slots(subject)
        held = self._held.get(subject, {}).pop(replica, 0)
        rests = sorted(lot.rests, reverse=True)[:held]
        rested = min(lot.rested, held - len(rests))
        missing = held - len(rests) - rested
        here.add(Lot(rested, (*rests, *[WINDOW_SECONDS] * missing)), now)
        self._forget_if_idle(subject, now)

    def grant(self, replica: str, subject: str, wanted: int, resting: int) -> Grant:
        """What is wanted, and a share of the rest, which is smaller the nearer the limit; to a single replica everything.

        With it as many `resting` slots as the replica had: they will be where they were needed. None when none is usable,
        so that all of them are here and `wait` is true.
        """
        now, here = self._now(), self._slots(subject)
        usable = here.settle(now)
        share = max(min(wanted, usable), usable // max(1, len(self._heard)))
        rests: list[float] = []
        if share:
            here.rested -= share
            rests = [here.resting.popleft() - now for _ in range(min(resting, len(here.resting)))]
            holders = self._held.setdefault(subject, {})
            holders[replica] = holders.get(replica, 0) + share + len(rests)
        wait = here.resting[0] - now if here.resting else WINDOW_SECONDS
        if self.holders(subject) - {replica}:  # one that did not answer in time has some, perhaps
            wait = min(wait, UNANSWERED_SECONDS)
        return Grant(Lot(share, tuple(rests)), usable - share, wait)

    def usable(self, subject: str) -> int:
        return self._slots(subject).settle(self._now())

    def holders(self, subject: str) -> set[str]:
        self._expire()
        return {replica for replica, count in self._held.get(subject, {}).items() if count}

    # Inside

    def _slots(self, subject: str) -> Slots:
        """Those that are here; of a subject that was not seen before, all."""
        if subject not in self._here:
            slots = Slots(self._per_window)
            if self._now() < self._unknown_until:
                slots = Slots(0, deque([self._unknown_until] * self._per_window))
            self._here[subject] = slots
        return self._here[subject]

    def _take_unknown(self, subject: str, count: int) -> int:
        """How many of `count` there were."""
        here = self._slots(subject)
        count = min(count, here.resting.count(self._unknown_until))
        for _ in range(count):
            here.resting.remove(self._unknown_until)
        return count

    def _expire(self) -> float:
        """End the leases of replicas that were not heard of for too long; the time."""
        now = self._now()
        for replica in [one for one, heard in self._heard.items() if heard + LEASE_SECONDS <= now]:
            self._end_lease(replica, self._heard[replica] + LEASE_SECONDS)
        return now

    def _end_lease(self, replica: str, end: float) -> None:
        """Whatever it holds may have been used until `end`."""
        self._heard.pop(replica, None)
        rest = end + WINDOW_SECONDS - self._now()
        for subject, holders in self._held.items():
            if count := holders.pop(replica, 0):
                self._slots(subject).add(Lot(0, (rest,) * count), self._now())

    def _forget_if_idle(self, subject: str, now: float) -> None:
        whole = self._here[subject].settle(now) == self._per_window
        if whole and now >= self._unknown_until:
            del self._here[subject]
            self._held.pop(subject, None)
