"""Sums and extremes over the last `window` rows, with a rounding that does not depend on where the series starts.

Windows are put together from halves of halves (1 + 1, 2 + 2, ...), so a row's value is a fixed tree of additions over
its own last rows: the tail of a long history gives the very same bits as the history itself. Time is the last axis; any
axes before it are series side by side. `last` asks for that many rows at the end only. Knows no markets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def rolling_sum(x: np.ndarray, window: int) -> np.ndarray:
    """Sum over the last `window` rows. [..., n] -> [..., n], NaN in the first `window - 1` rows."""
    return rolling_sums(x, (window,))[window]


def rolling_sums(x: np.ndarray, windows: Sequence[int], last: int | None = None) -> dict[int, np.ndarray]:
    """window -> rolling_sum(x, window), the parts that they share made once."""
    return _assemble(x, windows, lambda new, old, _: new + old, last)


def rolling_mean(x: np.ndarray, window: int) -> np.ndarray:
    return rolling_sum(x, window) / window


def rolling_means(x: np.ndarray, windows: Sequence[int], last: int | None = None) -> dict[int, np.ndarray]:
    """window -> rolling_mean(x, window)."""
    return {window: total / window for window, total in rolling_sums(x, windows, last).items()}


def rolling_maxima(x: np.ndarray, windows: Sequence[int], last: int | None = None) -> dict[int, np.ndarray]:
    """window -> the highest of the last `window` rows."""
    return _assemble(x, windows, lambda new, old, _: np.maximum(new, old), last)


def rolling_minima(x: np.ndarray, windows: Sequence[int], last: int | None = None) -> dict[int, np.ndarray]:
    """window -> the lowest of the last `window` rows."""
    return _assemble(x, windows, lambda new, old, _: np.minimum(new, old), last)


def ewma(x: np.ndarray, decay: float, window: int, last: int | None = None) -> np.ndarray:
    """Weighted mean of the last `window` rows with weights decay**age, scaled to sum one. [..., n], NaN while warming up.

    RiskMetrics' recursion, cut off at a finite look-back so that training and serving agree to the bit.
    """
    total = _assemble(x, (window,), lambda new, old, age: new + decay**age * old, last)[window]
    return total * ((1.0 - decay) / (1.0 - decay**window))


def lagged(x: np.ndarray, rows: int) -> np.ndarray:
    """The value `rows` earlier; NaN where there is none. [..., n] -> [..., n] float"""
    out = np.full(x.shape, np.nan)
    if rows < x.shape[-1]:
        out[..., rows:] = x[..., : x.shape[-1] - rows]
    return out


def _assemble(
    x: np.ndarray,
    windows: Sequence[int],
    join: Callable[[np.ndarray, np.ndarray, int], np.ndarray],
    last: int | None,
) -> dict[int, np.ndarray]:
    """Fold the last rows with an associative `join(newer, older, age of the older part)`. window -> [..., last or n]"""
    rows = x.shape[-1] if last is None else last
    block, size = np.asarray(x, float)[..., -(max(windows) + rows - 1) :], 1  # block[i] covers rows i .. i + size - 1
    n = block.shape[-1]
    totals: dict[int, np.ndarray] = {}  # totals[window][i] covers rows i .. i + (window mod 2 size) - 1
    longest = max((window for window in windows if window <= n), default=0)
    while size <= longest:
        for window in windows:
            if window & size and window <= n:
                # The new piece is older than what is there: it starts `size` rows earlier.
                newer = totals.get(window)
                covered = window & (size - 1)
                totals[window] = (
                    block if newer is None else join(newer[..., size:], block[..., : newer.shape[-1] - size], covered)
                )
        if 2 * size <= longest:
            block = join(block[..., size:], block[..., : block.shape[-1] - size], size)
        size *= 2
    return {window: _last(totals.get(window, block[..., :0]), rows) for window in windows}


def _last(x: np.ndarray, rows: int) -> np.ndarray:
    """The last `rows` rows, NaN in front where there are not as many."""
    missing = rows - x.shape[-1]
    if missing <= 0:
        return x[..., -rows:]
    out = np.full((*x.shape[:-1], rows), np.nan)
    out[..., missing:] = x
    return out
