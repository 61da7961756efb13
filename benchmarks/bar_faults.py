"""Thousands of seeded feeds with every fault at once: after recovery no bar is lost, doubled or misdated, every hole is known.

`python -m benchmarks.bar_faults --seeds 10000`. A failing seed is printed and can be run alone with --first SEED --seeds 1.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from actors.market_data import REPAIR_EVERY, SPARE, MarketData
from benchmarks.faulty_feed import CLOSED, MISSING, MODES, NO_TICK, ODDS, TRADED, FaultyFeed, made_feed
from benchmarks.held_store import HeldStore
from benchmarks.machine import machine
from market.bar_store import BarStore
from market.calendar import expected_opens
from market.coverage import APART, SETTLED, Coverage
from market.gap_ledger import MIN_CLOSED, classifier
from market.timeframes import Timeframe

SYMBOLS = ("EURUSD", "USDJPY")
RULES = ("new_york", "new_york", "eu", "utc", "utc+2", "utc+3")
ON_DISK = 50  # one seed in so many goes through the real table
DAYS = {Timeframe.H1: (3, 7), Timeframe.M30: (2, 4), Timeframe.M15: (2, 4)}  # of history
LATE_BAR_HOURS = 12
PROGRESS_EVERY = 100  # seeds
LONG = 0.25  # share of seeds with more history than a start asks for again
LONG_DAYS = {Timeframe.H1: (19, 26), Timeframe.M30: (10, 15), Timeframe.M15: (6, 9)}
KINDS = {CLOSED: "closed", NO_TICK: "no_tick", MISSING: "missing"}


class Run:
    """One seed: a feed, a store, and MarketData that is restarted as the seed has it."""

    def __init__(self, seed: int, folder: Path, on_disk: bool) -> None:
        self.rng = np.random.default_rng(seed)
        self.seed, self.folder, self.on_disk = seed, folder, on_disk
        self.frame = Timeframe.parse(str(self.rng.choice(["H1", "H1", "M30", "M15"])))
        long = self.rng.random() < LONG
        self.history = int(self.rng.integers(*(LONG_DAYS if long else DAYS)[self.frame]))
        self.slice_bars = int(self.rng.integers(60, 400))
        live = int(self.rng.integers(1, 3) if self.frame is Timeframe.H1 else 1)
        anchor = _anchor(self.rng)
        rule = str(self.rng.choice(RULES))
        self.feed: FaultyFeed = made_feed(seed, anchor, self.history + live + 12, self.frame, rule, SYMBOLS)
        self.feed.now = self.start = anchor - timedelta(days=int(self.rng.integers(0, live + 1)))
        self.until = self.start + timedelta(days=live)
        self.rows: list[pa.Table] = []
        self.announced: Counter[tuple[str, int]] = Counter()
        self.known: list[tuple[datetime, list[Any]]] = []
        self.restart()

    def restart(self) -> None:
        """A new process: nothing is remembered but what was written."""
        now = self._now
        self.store = self._open(now)
        self.core = MarketData(
            [("ray", self.feed)],
            self.store,
            SYMBOLS,
            (self.frame.value,),
            self.history,
            now,
            monotonic=lambda: self.feed.now.timestamp(),
            coverage=Coverage(self.folder / "coverage.json"),
            slice_bars=self.slice_bars,
        )
        self.backfilled = False

    def _open(self, now: Callable[[], datetime]) -> Any:
        return BarStore(self.folder / "bars", now=now) if self.on_disk else HeldStore(self.rows, now)

    def live(self) -> None:
        """Time passes in steps of seconds to days, each with the fault of the moment."""
        while self.feed.now < self.until:
            self._advance()
            self._fault()
            if self.rng.random() < 0.1:
                self.restart()
            self._step()
            if self.rng.random() < 0.1:
                self.known.append((self.feed.now, content(self.store.read())))

    def recover(self) -> None:
        """The faults end; the process starts again, walks through its old bars once, and looks a few times."""
        self.feed.settle()
        self.feed.now = max(self.feed.now, self.until) + timedelta(hours=int(self.rng.integers(0, 30)))
        self.feed.now += 2 * APART
        self.restart()
        self.core.backfill()
        self.old_revisions = sum(len(stale_opens(self, symbol)) for symbol in SYMBOLS)
        self._walk()
        for _ in range(3):
            self.feed.now += 2 * APART
            self.core.poll()
            self.core.backfill()

    def _walk(self) -> None:
        """Quiet hours until all of the history has been asked for again. Each: what closed, then a slice of either symbol; a bar
        that does not come holds the slices up for some hours."""
        slices = 2 + self.history * 86400 // self.frame.seconds // self.slice_bars
        for hour in range(slices + LATE_BAR_HOURS):
            if hour >= slices and not any(len(stale_opens(self, symbol)) for symbol in SYMBOLS):
                break
            self.feed.now += REPAIR_EVERY
            self.core.poll()
            for _ in SYMBOLS:
                self.feed.now = _quiet(self.feed.now + APART, self.frame)
                self.core.poll()

    def _now(self) -> datetime:
        return self.feed.now

    def _advance(self) -> None:
        bars = (0.02, 0.3, 1, 1, 3, 12)[self.rng.integers(6)]
        self.feed.now += timedelta(seconds=1 + int(bars * self.frame.seconds * self.rng.uniform(0.5, 1.5)))

    def _fault(self) -> None:
        mode = str(self.rng.choice(MODES, p=ODDS))
        feed = self.feed
        if mode == "slipped" and not (feed.ticks_fresh() or self.store.counts()):
            mode = "ok"  # without ticks and without one bar nobody could know
        if mode == "frozen" and feed.mode != "frozen":
            feed.frozen_at = feed.now - timedelta(minutes=int(self.rng.integers(0, 120)))
        if mode == "slipped":
            feed.slip_hours = int(self.rng.choice([-1, 1]))
        feed.mode = mode

    def _step(self) -> None:
        if not self.backfilled:
            self.backfilled = not self.core.backfill()["reason"]
            return
        for table in self.core.poll():
            for row in zip(table["symbol"].to_pylist(), table["open_time"].to_pylist(), strict=True):
                self.announced[row] += 1


def _quiet(moment: datetime, frame: Timeframe) -> datetime:
    """`moment`, or when it lies just before a close, a little after that."""
    left = frame.seconds - moment.timestamp() % frame.seconds
    return moment + timedelta(seconds=left + 1) if left <= 2 * SPARE.total_seconds() else moment


def stale_opens(run: Run, symbol: str) -> np.ndarray:
    """Stored opens since the history's first, epoch seconds, whose newest revision is not the terminal's last word. [k]"""
    ours = run.store.read([symbol], run.frame.value)
    opens = ours["open_time"].to_numpy().astype("datetime64[s]").astype(np.int64)
    place = np.minimum(np.searchsorted(run.feed.opens, opens), len(run.feed.opens) - 1)
    same = (_prices(ours) == run.feed.series[symbol].final[:, place]).all(axis=0)
    since = (run.feed.now - timedelta(days=run.history)).timestamp()
    return opens[~same & (opens >= since)]


def _anchor(rng: np.random.Generator) -> datetime:
    """A moment near a change of clocks, a holiday, a weekend, or anywhere in 2012 to 2027."""
    year = int(rng.integers(2012, 2028))
    month, sunday = [(3, 2), (3, 5), (10, 5), (11, 1), (12, 0), (1, 0), (6, 1), (3, 3)][rng.integers(8)]
    if sunday == 0:
        day = datetime(year, month, 25 if month == 12 else 1, tzinfo=UTC)
    else:
        day = datetime(year, month, 1, tzinfo=UTC)
        day += timedelta(days=(6 - day.weekday()) % 7 + 7 * (sunday - 1))
        day -= timedelta(days=7 if day.month != month else 0)  # the fifth Sunday is the last one
    return day + timedelta(hours=int(rng.integers(0, 72)), minutes=int(rng.integers(0, 60)))


def content(bars: pa.Table) -> list[Any]:
    names = ("symbol", "open_time", "open", "high", "low", "close", "revision")
    return list(zip(*(bars[name].to_pylist() for name in names), strict=True))


def problems(run: Run) -> list[str]:
    """What is wrong after recovery; [] is the claim."""
    found = [f"announced twice: {row}" for row, times in run.announced.items() if times > 1]
    rows = run.store.revisions() if not run.on_disk else _revisions(run.folder / "bars")
    newest = run.store.read()
    for symbol in SYMBOLS:
        found += _bars_wrong(run, symbol, rows, newest)
        found += _holes_wrong(run, symbol)
    for moment, before in run.known:
        if content(run.store.read(as_of=moment)) != before:
            found.append(f"as of {moment} reads otherwise than it did then")
    return found


def _bars_wrong(run: Run, symbol: str, rows: pa.Table, newest: pa.Table) -> list[str]:
    feed, one = run.feed, run.feed.series[symbol]
    ours = newest.filter(pa.compute.equal(newest["symbol"], symbol))
    opens = ours["open_time"].to_numpy().astype("datetime64[s]").astype(np.int64)
    shut = feed.opens + run.frame.seconds
    since, until = (feed.now - timedelta(days=run.history)).timestamp(), feed.now.timestamp()
    real = one.state == TRADED
    due = feed.opens[real & (feed.opens >= since) & (shut <= until)]
    found = [f"{symbol} lost {_iso(t)}" for t in np.setdiff1d(due, opens)]
    found += [f"{symbol} misdated {_iso(t)}" for t in np.setdiff1d(opens, feed.opens[real])]
    found += [f"{symbol} not as last revised {_iso(t)}" for t in stale_opens(run, symbol)]
    every = rows.filter(pa.compute.equal(rows["symbol"], symbol))
    pairs = Counter(zip(every["open_time"].to_pylist(), every["revision"].to_pylist(), strict=True))
    found += [f"{symbol} doubled {pair}" for pair, times in pairs.items() if times > 1]
    at = np.searchsorted(feed.opens, every["open_time"].to_numpy().astype("datetime64[s]").astype(np.int64))
    at = np.minimum(at, len(feed.opens) - 1)
    true = (_prices(every) == one.final[:, at]).all(axis=0) | (_prices(every) == one.early[:, at]).all(axis=0)
    return found + [f"{symbol} holds a bar nobody made: {every['open_time'][int(i)]}" for i in np.flatnonzero(~true)]


def _holes_wrong(run: Run, symbol: str) -> list[str]:
    """Every open that is not there, by its kind; before the history began it was never asked for."""
    feed, key = run.feed, (symbol, run.frame.value)
    coverage = Coverage(run.folder / "coverage.json")
    panel = {one: run.store.opens(one, run.frame.value) for one in SYMBOLS}
    stamps = feed.opens.astype("datetime64[s]")
    weekend = ~np.isin(stamps, _expected(run))
    asked = (feed.opens >= (feed.now - timedelta(days=run.history)).timestamp()) & (
        feed.opens + run.frame.seconds <= (feed.now - 5 * APART).timestamp()
    )
    absent = ~np.isin(stamps, panel[symbol])
    found = [f"{symbol} {_iso(t)} should be a weekend" for t in feed.opens[weekend & (feed.series[symbol].state != 0)]]
    told = np.where(weekend, "closed", classifier(key, coverage, panel)(stamps))
    for row in np.flatnonzero(absent & asked):
        wanted = KINDS.get(int(feed.series[symbol].state[row]), "traded")
        if told[row] != wanted and not _undecidable(run, symbol, int(row), wanted):
            found.append(f"{symbol} {_iso(feed.opens[row])} is {wanted}, called {told[row]}")
    early = np.flatnonzero(absent & (feed.answers[symbol] < SETTLED) & ~weekend)
    found += [
        f"{symbol} {_iso(feed.opens[i])} was not answered, called {told[i]}" for i in early if told[i] != "unfetched"
    ]
    return found


def _undecidable(run: Run, symbol: str, row: int, wanted: str) -> bool:
    """Quiet until now, which a frozen feed is too; or the last hours of a holiday that lies before what was asked for."""
    feed, state = run.feed, run.feed.series[symbol].state
    if wanted == "no_tick":
        later = np.isin(state[row:], (TRADED, MISSING)) & (feed.opens[row:] <= feed.now.timestamp())
        return not later.any()
    since = (feed.now - timedelta(days=run.history)).timestamp()
    return wanted == "closed" and feed.opens[row] < since + MIN_CLOSED.astype(int)


def _expected(run: Run) -> np.ndarray:
    first, last = (datetime.fromtimestamp(int(second), UTC) for second in (run.feed.opens[0], run.feed.opens[-1] + 1))
    return expected_opens(run.frame, first, last)


def _prices(bars: pa.Table) -> np.ndarray:
    return np.stack([bars[name].to_numpy() for name in ("open", "high", "low", "close")])


def _revisions(path: Path) -> pa.Table:
    from deltalake import DeltaTable

    return DeltaTable(str(path)).to_pyarrow_table()


def _iso(second: int) -> str:
    return datetime.fromtimestamp(int(second), UTC).strftime("%a %Y-%m-%d %H:%M")


def run_seed(seed: int) -> tuple[int, list[str], int]:
    """(seed, what went wrong, revisions that only the walk through old bars could still find).

    Also judged in the middle, where nothing unanswered may be called anything but unfetched.
    """
    base = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="lstmc-faults-", dir=base) as folder:
        run = Run(seed, Path(folder), seed % ON_DISK == 0)
        run.live()
        middle = [line for symbol in SYMBOLS for line in _holes_wrong(run, symbol) if "was not answered" in line]
        run.recover()
        return seed, middle + problems(run), run.old_revisions


def run_seeds(
    seeds: Sequence[int], workers: int, on_done: Callable[[int, Collection[int]], None] | None = None
) -> tuple[dict[int, list[str]], int]:
    """(seed -> problems, of those that have any; old revisions in all). `on_done`: told how many are done and which failed."""
    failed: dict[int, list[str]] = {}
    old_revisions = 0
    with multiprocessing.get_context("forkserver").Pool(workers, initializer=_one_thread) as pool:
        for done, (seed, wrong, old) in enumerate(pool.imap_unordered(run_seed, seeds, chunksize=4), start=1):
            old_revisions += old
            if wrong:
                failed[seed] = wrong
            if on_done is not None:
                on_done(done, failed)
    return failed, old_revisions


def _one_thread() -> None:
    """Of Arrow's: the tables are small, and every core has a seed of its own."""
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bar_faults", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(argv)
    begin = time.perf_counter()

    def show(done: int, failed: Collection[int]) -> None:
        if done % PROGRESS_EVERY == 0:
            print(f"{done}/{options.seeds} seeds, failed: {sorted(failed)}", file=sys.stderr, flush=True)

    seeds = range(options.first, options.first + options.seeds)
    failed, old_revisions = run_seeds(seeds, options.workers, show)
    for seed, wrong in sorted(failed.items()):
        print(f"seed {seed}: {len(wrong)} wrong: {'; '.join(wrong[:4])}")
    seconds = round(time.perf_counter() - begin, 1)
    figures = {"seeds": options.seeds, "failed": len(failed), "old_revisions": old_revisions, "seconds": seconds}
    command = f"python -m benchmarks.bar_faults --first {options.first} --seeds {options.seeds}"
    print(json.dumps(figures | {"command": command, "machine": machine()}))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
