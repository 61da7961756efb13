"""How far the features of the newest window are from those of the training time. `benchmarks.drift` scores it: it finds too
little to ask for a retrain, so nothing else uses it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 10
NO_SHIFT = 0.1  # PSI below this is called no shift
FEWEST_SHARE = 1e-4  # an empty bin is no infinity


def psi(reference: np.ndarray, recent: np.ndarray) -> np.ndarray:
    """Population stability index of each column. reference [n, k], recent [m, k], NaN left out -> [k].

    Sum over the reference's deciles of (q - p) log(q / p); NaN where either side has no values.
    """
    return np.array([_psi(a[np.isfinite(a)], b[np.isfinite(b)]) for a, b in zip(reference.T, recent.T, strict=True)])


def _psi(reference: np.ndarray, recent: np.ndarray) -> float:
    if not len(reference) or not len(recent):
        return float("nan")
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, BINS + 1)[1:-1]))
    p, q = (_shares(values, edges) for values in (reference, recent))
    return float(np.sum((q - p) * np.log(q / p)))


def _shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return np.maximum(counts / len(values), FEWEST_SHARE)


@dataclass(frozen=True)
class TrainingFeatures:
    """Features of the training time, [rows, k], and how far its own windows strayed from it. usual: [k], largest PSI of any.

    Features that look back a month differ in every fortnight: only more than the training time has seen is news.
    """

    rows: np.ndarray
    usual: np.ndarray

    @classmethod
    def of(cls, windows: np.ndarray) -> TrainingFeatures:
        """windows: [w, bars * symbols, k], cut out of the training time one after another."""
        rows = windows.reshape(-1, windows.shape[-1])
        usual = np.nanmax(np.stack([psi(rows, window) for window in windows]), axis=0)
        return cls(rows, np.maximum(usual, NO_SHIFT))

    def drift(self, recent: np.ndarray) -> float:
        """The share of features whose PSI is larger than in any window of the training time. recent: [m, k]

        One feature alone says little: a spread is measured against the price, and leaves its old range when the price does.
        """
        return float(np.mean(psi(self.rows, recent) > self.usual))
