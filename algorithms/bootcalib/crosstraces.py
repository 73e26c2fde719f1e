"""Columns and widths of the fibers over all rows, from a flat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from algorithms.bootcalib.layout import FiberPeaks
from algorithms.bootcalib.smooth import fit_fiber_field
from qlstream.numeric import legendre
from qlstream.numeric.gaussfit import fit_lines
from qlstream.numeric.legendre import reduced

Array = NDArray[np.float64]

_HALF = 3  # columns on each side that are fitted: those further out hold the neighbour's light
_BLOCKS = 64  # over the CCD
_ROWS = 16  # of a block: over so many, a trace is straight, and its slope widens it by nothing
_MAX_STEP = 0.5  # a trace that lies further from where it was foreseen was lost [pixel]
_STEP = 0.06  # from block to block, fibers follow their neighbours to this [pixel]
_SIGMAS = 4.0  # or to so many errors
_MAX_ERROR = 0.2  # of a place that counts [pixel]
_SMOOTH = 11  # fibers whose median slope foresees the next place
_FLOOR = 0.002  # error of the pixel response, as a place [pixel]
_PLACE_PRIOR, _WIDTH_PRIOR = 0.3, 0.05  # how much single fibers deviate from their neighbours [pixel], [pixel]


@dataclass(frozen=True)
class CrossTraces:
    """Columns and widths as smooth functions of the row, and what they rest on.

    Attributes
    ----------
    x, sigma : (nspec, ncoef) Legendre series over reduced rows [pixel]; `x` is measured from `origin`
    origin : (nspec,) column in the middle row [pixel]
    ny : rows of the CCD
    row : (nblock,) rows at which fibers were measured
    residual : (nspec, nblock) measured less fitted column [pixel]; NaN where nothing was measured
    lit : (nspec,) bool
    """

    x: Array
    sigma: Array
    origin: Array
    ny: int
    row: Array
    residual: Array
    lit: NDArray[np.bool_]

    def column(self, row: Array) -> Array:
        """(nspec, n) at rows (n,) or (nspec, n) [pixel]."""
        return self.origin[:, None] + legendre.evaluate(self.x, reduced(row, 0.0, self.ny - 1.0))

    def width(self, row: Array) -> Array:
        """(nspec, n) Gaussian sigma across the dispersion [pixel]."""
        return legendre.evaluate(self.sigma, np.clip(reduced(row, 0.0, self.ny - 1.0), -1.0, 1.0))


def trace_fibers(
    pix: NDArray[np.float32],
    ivar: NDArray[np.float32],
    peaks: FiberPeaks,
    bundle_of: NDArray[np.int64],
    sigma: float,
    degree: int,
) -> CrossTraces:
    """Follow every fiber from the middle row to both ends, then smooth.

    Every block of rows is summed and fitted by a Gaussian that is integrated over pixels: it gives place and width with
    their errors. Where a fiber is lost, the median slope of its neighbours leads on. A field that all fibers share,
    plus what each adds, is fitted to the places with rejection.

    Parameters
    ----------
    pix, ivar : (ny, nx) flat [electron]; ivar 0 takes a pixel out
    bundle_of : (nspec,)
    sigma : expected width [pixel]
    degree : of the traces over rows

    Raises
    ------
    ValueError : no fiber could be followed
    """
    ny = pix.shape[0]
    number = min(_BLOCKS, max(ny // 8, 8))
    start = np.linspace(0, ny - min(_ROWS, ny // number), number).astype(np.int64)
    size = min(_ROWS, ny // number)
    nspec = len(peaks.column)
    place, width = np.zeros((nspec, number)), np.zeros((nspec, number))
    error, width_error = np.full((nspec, number), np.inf), np.full((nspec, number), np.inf)
    middle = number // 2
    for path in (range(middle, number), range(middle - 1, -1, -1)):
        last, step, missed = peaks.column, np.zeros(nspec), np.zeros(nspec)
        for n, b in enumerate(path):
            if n == 0 and b != middle:
                last = place[:, middle]
            foreseen = last + step
            fits = _measure(pix, ivar, foreseen, int(start[b]), size, sigma)
            allowed = np.minimum(np.maximum(_STEP * (1 + missed), _SIGMAS * fits[1]), _MAX_STEP)
            good = (np.abs(fits[0] - foreseen) < (_MAX_STEP if n == 0 else allowed)) & (fits[1] < _MAX_ERROR)
            good &= peaks.lit & (fits[2] > 0.4 * sigma) & (fits[2] < 3.0 * sigma)
            place[:, b] = np.where(good, fits[0], foreseen)
            error[good, b], width[:, b] = fits[1][good], fits[2]
            width_error[good, b] = fits[3][good]
            if n > 0 or b != middle:
                step = _typical_step(place[:, b] - last, good)
            last = place[:, b]
            missed = np.where(good, 0.0, missed + 1.0)
    if not np.isfinite(error).any():
        raise ValueError("no fiber of the flat could be traced; look at the image")
    row = start + 0.5 * (size - 1)
    u = reduced(row, 0.0, ny - 1.0)
    origin = place[:, middle]
    shift = place - origin[:, None]
    x = fit_fiber_field(u, shift, np.hypot(error, _FLOOR), bundle_of, 5, degree, min(degree, 4), _PLACE_PRIOR)
    sigmas = fit_fiber_field(u, width, np.hypot(width_error, _FLOOR), bundle_of, 3, 3, 1, _WIDTH_PRIOR)
    residual = np.where(np.isfinite(error), shift - legendre.evaluate(x, u), np.nan)
    return CrossTraces(x, sigmas, origin, ny, row, residual, peaks.lit)


def _measure(
    pix: NDArray[np.float32], ivar: NDArray[np.float32], x: Array, first: int, size: int, sigma: float
) -> tuple[Array, Array, Array, Array]:
    """Place, its error, width and its error (nspec,) of the light near `x` in a block of rows; errors inf if bad."""
    profile = np.zeros((len(x), 2 * _HALF + 1))
    weight = np.zeros_like(profile)
    left = np.rint(x).astype(np.int64) - _HALF
    _collapse(pix, ivar, left, first, size, profile, weight)
    fits = fit_lines(profile, weight, x - left, np.full(len(x), sigma))
    error = np.where(fits.good, fits.errors[:, 1], np.inf)
    return fits.parameters[:, 1] + left, error, fits.parameters[:, 2], np.where(fits.good, fits.errors[:, 2], np.inf)


def _typical_step(step: Array, good: NDArray[np.bool_]) -> Array:
    """(nspec,) median step of the fibers around each one that were measured."""
    known = np.flatnonzero(good)
    if not known.size:
        return np.zeros(len(step))
    half = _SMOOTH // 2
    padded = np.pad(step[known], half, mode="reflect" if len(known) > half else "edge")
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, _SMOOTH), axis=1)
    return np.interp(np.arange(len(step)), known, smooth)


@njit(nogil=True, cache=True)
def _collapse(pix, ivar, left, first, size, profile, weight):  # type: ignore[no-untyped-def]
    """Mean over good rows of each column, and its inverse variance."""
    ny, nx = pix.shape
    for f in range(left.size):
        for c in range(profile.shape[1]):
            i = left[f] + c
            if i < 0 or i >= nx:
                continue
            total, variance, n = 0.0, 0.0, 0
            for j in range(first, min(first + size, ny)):
                if ivar[j, i] > 0:
                    total += pix[j, i]
                    variance += 1.0 / ivar[j, i]
                    n += 1
            if 2 * n > size:
                profile[f, c] = total / n
                weight[f, c] = n * n / variance
