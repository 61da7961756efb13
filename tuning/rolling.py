"""Sums and extremes over the last `window` rows, with a rounding that does not depend on where the series starts.

Windows are put together from halves of halves (1 + 1, 2 + 2, ...), so a row's value is a fixed tree of additions over
its own last rows: the tail of a long history gives the very same bits as the history itself. Knows no markets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def rolling_sum(x: np.ndarray, window: int) -> np.ndarray:
    """Sum over the last `window` rows. [n] -> [n], NaN in the first `window - 1` rows."""
    return rolling_sums(x, (window,))[window]


def rolling_sums(x: np.ndarray, windows: Sequence[int]) -> dict[int, np.ndarray]:
    """window -> rolling_sum(x, window), the parts that they share made once."""
    return _assemble(x, windows, lambda new, old, _: new + old)


def rolling_mean(x: np.ndarray, window: int) -> np.ndarray:
    return rolling_sum(x, window) / window


def rolling_means(x: np.ndarray, windows: Sequence[int]) -> dict[int, np.ndarray]:
    """window -> rolling_mean(x, window)."""
    return {window: total / window for window, total in rolling_sums(x, windows).items()}


def rolling_max(x: np.ndarray, window: int) -> np.ndarray:
    return _assemble(x, (window,), lambda new, old, _: np.maximum(new, old))[window]


def rolling_min(x: np.ndarray, window: int) -> np.ndarray:
    return -rolling_max(-np.asarray(x, float), window)


def ewma(x: np.ndarray, decay: float, window: int) -> np.ndarray:
    """Weighted mean of the last `window` rows with weights decay**age, scaled to sum one. [n], NaN while warming up.

    RiskMetrics' recursion, cut off at a finite look-back so that training and serving agree to the bit.
    """
    total = _assemble(x, (window,), lambda new, old, age: new + decay**age * old)[window]
    return total * ((1.0 - decay) / (1.0 - decay**window))


def lagged(x: np.ndarray, rows: int) -> np.ndarray:
    """The value `rows` earlier; NaN where there is none. [n] -> [n] float"""
    out = np.full(len(x), np.nan)
    if rows < len(x):
        out[rows:] = x[: len(x) - rows]
    return out


def _assemble(
    x: np.ndarray, windows: Sequence[int], join: Callable[[np.ndarray, np.ndarray, int], np.ndarray]
) -> dict[int, np.ndarray]:
    """Fold the last rows with an associative `join(newer, older, age of the older part)`. window -> [n]"""
    n = len(x)
    out = {window: np.full(n, np.nan) for window in windows}
    block, size = np.asarray(x, float), 1  # block[i] covers rows i .. i + size - 1
    totals: dict[int, np.ndarray] = {}  # totals[window][i] covers rows i .. i + (window mod 2 size) - 1
    longest = max((window for window in windows if window <= n), default=0)
    while size <= longest:
        for window in out:
            if window & size and window <= n:
                # The new piece is older than what is there: it starts `size` rows earlier.
                newer = totals.get(window)
                covered = window & (size - 1)
                totals[window] = block if newer is None else join(newer[size:], block[: len(newer) - size], covered)
        if 2 * size <= longest:
            block = join(block[size:], block[: len(block) - size], size)
        size *= 2
    for window, total in totals.items():
        out[window][window - 1 :] = total
    return out
