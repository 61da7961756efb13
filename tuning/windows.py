"""Chunks of bars for sequence models: every step of a chunk predicts, instead of one window per prediction.

A chunk is `warm_up` bars whose predictions are discarded and `body` bars whose predictions count; the next chunk starts
`body` bars later. Each bar is so computed about once, not `window` times. Serving is the same call with one wanted row
per symbol. Knows no features and no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

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
    parts, asked = [], []
    is_wanted = np.zeros(int(starts[-1]) + 1, bool)
    is_wanted[wanted] = True
    for first, last in pairwise(starts):
        own = wanted[np.searchsorted(wanted, first) : np.searchsorted(wanted, last)]
        if len(own) == 0:
            continue
        heads = np.arange(own[0], own[-1] + 1, body) - warm_up
        rows = heads[:, None] + np.arange(length)
        inside = (rows >= first) & (rows < last)
        rows = np.where(inside, rows, -1)
        counts = is_wanted[rows] & inside & (np.arange(length) >= warm_up)
        used = counts.any(axis=1)
        parts.append(rows[used])
        asked.append(counts[used])
    if not parts:
        return Chunks(np.empty((0, length), int), np.empty((0, length), bool))
    rows, counts = np.concatenate(parts), np.concatenate(asked)
    used = int(np.flatnonzero(counts.any(axis=0))[-1]) + 1  # nobody asks for steps after that
    return Chunks(rows[:, :used], counts[:, :used])


def gather(table: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows of a table [n, F] with zeros for padding. rows [chunks, length] -> [chunks, length, F]"""
    out = table[rows]
    out[rows < 0] = 0.0
    return out
