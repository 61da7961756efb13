"""Chunks of bars for sequence models: every step of a chunk predicts, instead of one window per prediction.

A chunk is `warm_up` bars whose predictions are discarded and `body` bars whose predictions count; the next chunk starts
`body` bars later. Each bar is so computed about once, not `window` times. Serving is the same call with one wanted row
per symbol. Knows no features and no model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Chunks:
    """`rows` [chunks, warm_up + body]: flat row numbers, -1 is padding before a symbol's first bar or after its last.

    `counts` bool [chunks, warm_up + body]: the steps whose prediction is asked for.
    """

    rows: np.ndarray
    counts: np.ndarray


def make_chunks(starts: np.ndarray, wanted: np.ndarray, warm_up: int, body: int) -> Chunks:
    """Cover the ascending flat rows `wanted`, symbol by symbol; each wanted row counts in exactly one chunk.

    starts: int [symbols + 1]. Chunks are laid from a symbol's first wanted row on, so no chunk spans two symbols.
    """
    length = warm_up + body
    bounds = np.searchsorted(wanted, starts)
    asked = np.flatnonzero(np.diff(bounds))  # symbols with a wanted row
    if len(asked) == 0:
        return Chunks(np.empty((0, length), int), np.empty((0, length), bool))
    first, last = wanted[bounds[asked]], wanted[bounds[asked + 1] - 1]
    many = (last - first) // body + 1  # chunks of each
    number = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
    rows = (np.repeat(first, many) + number * body - warm_up)[:, None] + np.arange(length)
    own = np.repeat(asked, many)[:, None]
    rows = np.where((rows >= starts[own]) & (rows < starts[own + 1]), rows, -1)
    is_wanted = np.zeros(int(starts[-1]) + 1, bool)  # the last one is padding's
    is_wanted[wanted] = True
    counts = is_wanted[rows]
    counts[:, :warm_up] = False
    used = counts.any(axis=1)
    rows, counts = rows[used], counts[used]
    steps = int(np.flatnonzero(counts.any(axis=0))[-1]) + 1  # nobody asks for steps after that
    return Chunks(rows[:, :steps], counts[:, :steps])


def gather(table: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows of a table [n, F] with zeros for padding. rows [chunks, length] -> [chunks, length, F]"""
    out = table[rows]
    out[rows < 0] = 0.0
    return out
