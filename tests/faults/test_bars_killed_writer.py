"""kill -9 at random points of a write: the store stays readable, no batch is half there, no bar is doubled.

20 points here; 200 with LSTMC_KILLS=200.
"""

from __future__ import annotations

import os
from pathlib import Path

from deltalake import DeltaTable

from market.bar_store import BarStore
from tests.faults.store_writer import SYMBOLS, batch, kill_points

KILLS = int(os.environ.get("LSTMC_KILLS", "20"))
SEED = 11


def test_a_killed_writer_leaves_whole_batches(tmp_path: Path) -> None:
    path, hours = tmp_path / "bars", []

    def check(kill: int) -> None:
        if not DeltaTable.is_deltatable(str(path)):  # killed before the very first commit
            hours.append(0)
            return
        bars = BarStore(path).read()
        count = bars.num_rows // len(SYMBOLS)
        hours.append(count)
        wanted = [batch(hour)["close"][-1].as_py() for hour in range(count)]
        for hour in range(3, count, 3):
            wanted[hour - 1] = batch(hour)["close"][0].as_py()
        for symbol in SYMBOLS:
            rows = [row for row in bars.to_pylist() if row["symbol"] == symbol]
            assert [row["close"] for row in rows] == wanted, f"kill {kill} of seed {SEED}"
        every = DeltaTable(str(path)).to_pyarrow_table(columns=["symbol", "open_time", "revision"]).to_pylist()
        assert len({tuple(row.values()) for row in every}) == len(every), f"doubled at kill {kill} of seed {SEED}"

    kill_points(path, KILLS, SEED, check)
    assert hours == sorted(hours), "what was committed stays"
    assert hours[-1] > KILLS / 4, "the writer was killed before it could write anything"
    assert BarStore(path).append(batch(hours[-1])).added.num_rows == len(SYMBOLS), "it can still be written"
