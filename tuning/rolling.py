"""Sums and extremes over the last `window` rows, with a rounding that does not depend on where the series starts.

Windows are put together from halves of halves (1 + 1, 2 + 2, ...), so a row's value is a fixed tree of additions over
its own last rows: the tail of a long history gives the very same bits as the history itself. Knows no markets.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def rolling_sum(x: np.ndarray, window: int) -> np.ndarray:
    """Sum over the last `window` rows. [n] -> [n], NaN in the first `window - 1` rows."""
    return _assemble(x, window, lambda new, old, _: new + old)


def rolling_mean(x: np.ndarray, window: int) -> np.ndarray:
    return rolling_sum(x, window) / window


def rolling_max(x: np.ndarray, window: int) -> np.ndarray:
    return _assemble(x, window, lambda new, old, _: np.maximum(new, old))


def rolling_min(x: np.ndarray, window: int) -> np.ndarray:
    return -rolling_max(-np.asarray(x, float), window)


def ewma(x: np.ndarray, decay: float, window: int) -> np.ndarray:
    """Weighted mean of the last `window` rows with weights decay**age, scaled to sum one. [n], NaN while warming up.

    RiskMetrics' recursion, cut off at a finite look-back so that training and serving agree to the bit.
    """
    total = _assemble(x, window, lambda new, old, age: new + decay**age * old)
    return total * ((1.0 - decay) / (1.0 - decay**window))


def lagged(x: np.ndarray, rows: int) -> np.ndarray:
    """The value `rows` earlier; NaN where there is none. [n] -> [n] float"""
    out = np.full(len(x), np.nan)
    if rows < len(x):
        out[rows:] = x[: len(x) - rows]
    return out


def _assemble(x: np.ndarray, window: int, join: Callable[[np.ndarray, np.ndarray, int], np.ndarray]) -> np.ndarray:
    """Fold the last `window` rows with an associative `join(newer, older, age of the older part)`."""
    n = len(x)
    out = np.full(n, np.nan)
    if window > n:
        return out
    block = np.asarray(x, float)  # block[i] covers rows i .. i + size - 1
    size, covered = 1, 0
    total: np.ndarray | None = None  # total[i] covers rows i .. i + covered - 1
    while True:
        if window & size:
            # The new piece is older than what is there: it starts `size` rows earlier.
            total = block.copy() if total is None else join(total[size:], block[: len(total) - size], covered)
            covered += size
        if covered == window:
            break
        block = join(block[size:], block[: len(block) - size], size)
        size *= 2
    assert total is not None
    out[window - 1 :] = total
    return out
