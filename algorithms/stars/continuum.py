"""Spectra divided by their running median: lines stay, calibration and colour go."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

Array = NDArray[np.float64]

MEDIAN_WIDTH = 160.0  # [Angstrom]; 200 bins of 0.8 Angstrom (spec offline-reduction §8)


def running_median(wave: Array, flux: Array, width: float = MEDIAN_WIDTH) -> Array:
    """Median of flux (..., nwave) in windows of `width` [Angstrom]; at the ends the window is mirrored."""
    step = float(np.median(np.diff(wave)))
    size = max(3, min(int(width / step) | 1, 2 * (len(wave) // 2) - 1))
    rows = flux.reshape(-1, flux.shape[-1])
    # one row at a time: on one dimension the filter keeps its window sorted and is 30 times as fast
    return np.stack([median_filter(row, size=size, mode="mirror") for row in rows]).reshape(flux.shape)


def bridged(flux: Array, good: NDArray[np.bool_]) -> Array:
    """`flux` (nwave,) with bad bins interpolated linearly; zeros if none is good."""
    if not good.any():
        return np.zeros_like(flux)
    at = np.arange(flux.size)
    return np.asarray(np.interp(at, at[good], flux[good]))
