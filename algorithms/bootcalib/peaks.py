"""Where fibers cross the middle rows of a flat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_NOISE = 7.0  # a peak stands above the noise of the cut by so many sigma
_FAINTEST = 0.02  # and above this share of a typical peak: what a broken fiber leaks is no trace
_SHARP = 0.2  # a fiber gives the fainter neighbour column at least this share of its light; a hot column does not
_MEDIAN_ERROR = 1.2533  # of a median, in errors of a mean


def middle_cut(pix: NDArray[np.float32], ivar: NDArray[np.float32], half: int = 50) -> tuple[Array, Array]:
    """Median of the middle rows, column by column.

    Parameters
    ----------
    pix, ivar : (ny, nx) flat [electron]; ivar 0 takes a pixel out
    half : rows on each side of the middle one

    Returns
    -------
    cut, error : (nx,) [electron]; error is infinite where every pixel is masked
    """
    middle = pix.shape[0] // 2
    half = min(half, middle // 4)
    rows = slice(middle - half, middle + half + 1)
    good = ivar[rows] > 0
    number = good.sum(axis=0)
    ordered = np.sort(np.where(good, pix[rows], np.inf), axis=0)
    low, high = np.maximum(number - 1, 0) // 2, np.minimum(number // 2, len(ordered) - 1)
    columns = np.arange(pix.shape[1])
    variance = np.where(good, 1.0 / np.where(good, ivar[rows], 1.0), 0.0).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        cut = np.where(number > 0, 0.5 * (ordered[low, columns] + ordered[high, columns]), 0.0)
        error = np.where(number > 0, _MEDIAN_ERROR * np.sqrt(variance) / number, np.inf)
    return cut.astype(np.float64), error


def find_peaks(cut: Array, error: Array, expected: int) -> Array:
    """Columns of the fibers, in increasing order.

    A peak is a local maximum that is neither noise, nor the rest of a broken fiber, nor a single column.

    Parameters
    ----------
    cut, error : (nx,) as `middle_cut` gives them
    expected : number of fibers, for a guess of what a typical peak is

    Returns
    -------
    (npeak,) float64 [pixel], to about 0.1 pixel
    """
    inner = cut[1:-1]
    top = (inner >= cut[:-2]) & (inner > cut[2:]) & np.isfinite(error[1:-1])
    at = np.flatnonzero(top) + 1
    # the floor between two peaks: light that is no fiber's
    floor = np.array([max(cut[max(a - 5, 0) : a].min(), cut[a + 1 : a + 6].min()) for a in at])
    height = cut[at] - floor
    typical = float(np.median(np.sort(height)[-max(expected, 1) :])) if len(at) else 0.0
    lowest = np.minimum(cut[at - 1], cut[at + 1]) - floor
    keep = (height > _NOISE * error[at]) & (height > _FAINTEST * typical) & (lowest > _SHARP * height)
    at = at[keep]
    below, middle, above = cut[at - 1], cut[at], cut[at + 1]
    bend = below - 2.0 * middle + above
    return np.asarray(at + np.clip(0.5 * (below - above) / np.where(bend < 0, bend, -1.0), -0.5, 0.5))
