"""Which symbols can be tested together: one shared end, a training part before the first test bar. Reads times only."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from market.errors import NotEnoughBars
from tuning.presets import Preset

SHARED_END_DAYS = 14.0  # symbols whose bars end earlier than this before the others share no test period with them


def shared_panel(tables: Mapping[str, pa.Table], preset: Preset) -> tuple[dict[str, pa.Table], dict[str, str]]:
    """Cut all symbols to one shared end and leave out those that cannot share the test period -> (bars, why left out)."""
    ends = {symbol: _close_times(table)[-1] for symbol, table in tables.items()}
    median = np.sort(np.array(list(ends.values())))[len(ends) // 2]
    grace = np.timedelta64(int(SHARED_END_DAYS * 86400), "s")
    excluded = {
        s: f"its bars end on {_day(end)}, the others' on {_day(median)}"
        for s, end in ends.items()
        if end < median - grace
    }
    kept = {s: t for s, t in tables.items() if s not in excluded}
    last = min(ends[s] for s in kept)
    kept = {s: t.slice(0, int(np.searchsorted(_close_times(t), last, side="right"))) for s, t in kept.items()}
    start = _test_start(kept, last, preset)
    for symbol, table in kept.items():
        before = int(np.searchsorted(_close_times(table), start))
        if before < preset.min_train_bars:
            needed = f"{preset.min_train_bars} are needed"
            excluded[symbol] = (
                f"{table.num_rows} bars, {before} of them before the test period that starts {_day(start)}; {needed}"
            )
    kept = {s: t for s, t in kept.items() if s not in excluded}
    if not kept:
        raise NotEnoughBars(
            "No symbol has enough bars: " + "; ".join(f"{s}: {why}" for s, why in excluded.items()) + ".",
            hint="Give a longer history: a year of H1 bars is a good start.",
        )
    return kept, excluded


def _test_start(tables: Mapping[str, pa.Table], last: np.datetime64, preset: Preset) -> np.datetime64:
    """About where the first test fold starts, by the rule of tuning.splits.Scheme."""
    axis = np.unique(np.concatenate([_close_times(t) for t in tables.values()]))
    wanted = last - np.timedelta64(int((preset.test_days + preset.lockbox_days) * 86400), "s")
    return max(wanted, axis[int(len(axis) * (1.0 - preset.test_share) * 5 / 6)])


def _close_times(table: pa.Table) -> np.ndarray:
    return table["close_time"].cast(pa.int64()).to_numpy().astype("datetime64[us]")


def _day(moment: np.datetime64) -> str:
    return str(moment.astype("datetime64[D]"))
