"""Counts of spectra within windows of wavelength, whatever bins they come in."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from benchmarks.truth.line import Array

WINDOW = 50.0  # [Angstrom]


class Cumulated:
    """Rows or bins of one fiber, cumulated so that any stretch of wavelength can be summed.

    Parameters
    ----------
    wave : (n,) their centres, increasing [Angstrom]
    columns : (n,) arrays of counts per bin
    good : (n,) bins with information
    """

    def __init__(self, wave: Array, columns: tuple[NDArray[np.floating], ...], good: NDArray[np.bool_]) -> None:
        middle = 0.5 * (wave[1:] + wave[:-1])
        self.edges = np.concatenate([[2 * wave[0] - middle[0]], middle, [2 * wave[-1] - middle[-1]]])
        filled = (*(np.where(good, column, 0.0) for column in columns), ~good)
        self.totals = [np.concatenate([[0.0], np.cumsum(column, dtype=float)]) for column in filled]

    def summed(self, low: float, high: float) -> tuple[float, ...] | None:
        """Sums between two wavelengths, bins by the part inside; None if one of them is bad."""
        *sums, bad = (
            float(np.interp(high, self.edges, total) - np.interp(low, self.edges, total)) for total in self.totals
        )
        return None if bad > 1e-9 else tuple(sums)


def windows_of(wave: Array) -> list[tuple[float, float]]:
    """Windows of whole bins, WINDOW wide, as (lower, upper) edge [Angstrom]; the ends of the spectrum are left out."""
    edges = np.concatenate([[1.5 * wave[0] - 0.5 * wave[1]], 0.5 * (wave[1:] + wave[:-1])])
    per_window = max(int(WINDOW / np.median(np.diff(wave))), 2)
    chosen = edges[per_window // 4 :: per_window]
    return list(pairwise(chosen))
