"""Writes to a store until it is killed: each append is one hour of two symbols, and sometimes a revision of the hour before."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyarrow as pa

from market.bar_store import BarStore
from market.bars import bars_from_columns
from market.timeframes import Timeframe

SYMBOLS = ("EURUSD", "USDJPY")
T0 = datetime(2024, 1, 8, tzinfo=UTC)


def batch(hour: int) -> pa.Table:
    """Every third batch brings the hour before again, revised."""
    hours = np.array([hour - 1, hour] if hour and hour % 3 == 0 else [hour])
    opens = np.datetime64("2024-01-08", "s") + hours * np.timedelta64(3600, "s")
    close = 1.1 + hours * 1e-4 + np.where(hours < hour, 1e-5, 0.0)
    return pa.concat_tables(
        [
            bars_from_columns(symbol, Timeframe.H1, opens, close, close, close, close, received_at=T0)
            for symbol in SYMBOLS
        ]
    )


def write_until_killed(path: str, started: Connection) -> None:
    store = BarStore(Path(path))
    hour = max(store.counts().values(), default=0)
    while True:
        store.append(batch(hour))
        started.send(hour)  # the first is waited for: it loads half a dozen libraries
        hour += 1


def kill_points(path: Path, kills: int, seed: int, check: Callable[[int], None]) -> None:
    """Start the writer, kill it after a random moment of up to three writes, `check` the store; `kills` times."""
    import multiprocessing
    import os
    import signal
    import time

    rng = np.random.default_rng(seed)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["market.bar_store", "tests.faults.store_writer"])
    for kill in range(kills):
        ours, theirs = context.Pipe()
        writer = context.Process(target=write_until_killed, args=(str(path), theirs))
        writer.start()
        ours.recv()
        time.sleep(float(rng.uniform(0, 0.12)))
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        check(kill)
