"""Has the market moved away from what a model was trained on? The realised variance of the newest window against the forecast
one; asks for nothing itself. `python -m benchmarks.drift` chose the limit and says what it finds.
"""

from __future__ import annotations

import numpy as np

RECENT_BARS = 240  # two trading weeks of H1
VOLATILITY_LIMIT = 0.445


def volatility_shift(realised: np.ndarray, forecast: np.ndarray) -> float:
    """|log(mean realised / mean forecast variance)| of the newest closes, symbols pooled; 0 when there is none. [n], [n]"""
    known = np.isfinite(realised) & np.isfinite(forecast)
    if not known.any() or realised[known].mean() <= 0.0:
        return 0.0
    return float(abs(np.log(realised[known].mean() / forecast[known].mean())))
