"""The normal equations of a bundle: every pixel as the sum of the spots that reach it (Bolton & Schlegel 2010).

With A the projection of spectra onto pixels and W the pixels' inverse variances, M = A^T W A couples only what
overlaps on the CCD. Unknowns are ordered by wavelength, fiber by fiber inside each, so M is a band of
(overlapping wavelengths) x (fibers) and the whole bundle, all wavelengths at once, is one banded Cholesky
factorisation: no patches, so no edges inside the spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from algorithms.extract.spectroperfect.spots import Spots
from qlstream.numeric.banded import factorize, solve

Array = NDArray[np.float64]

_LEAST = 1e-4  # of the largest weight: what says less is held by a prior
_RIDGE = 1e-12  # of the largest diagonal element: keeps what neither data nor prior hold apart from rounding errors
_FIBERS = 2  # neighbours on either side whose light may overlap


@dataclass(frozen=True)
class NormalEquations:
    """M x = b of one bundle.

    Attributes
    ----------
    band : (nwave nfiber, width) float64; band[k, d] is M[k, k + d] with k = wave nfiber + fiber
    rhs : (nwave, nfiber) float64, A^T W p
    weight : (nwave, nfiber) float64, sum of W A: how much the data say about an unknown
    reach : wavelengths whose spots overlap
    """

    band: Array
    rhs: Array
    weight: Array
    reach: int

    def solve(self) -> Array:
        """(nwave, nfiber) deconvolved flux, all unknowns together. `band` is used up for the factor.

        By a kernel of one thread: threads of LAPACK wait for each other longer than they work on so narrow a band, and
        where other processes are busy, twenty times as long.
        """
        x = self.rhs.ravel().copy()
        factorize(self.band)
        solve(self.band, x)
        return x.reshape(self.rhs.shape)

    def of_fiber(self, fiber: int, other: int) -> Array:
        """(nwave, 2 reach + 1) couplings of a fiber with another, at wavelength offsets -reach ... reach."""
        nwave, nfiber = self.rhs.shape
        out = np.zeros((nwave, 2 * self.reach + 1))
        for step in range(-self.reach, self.reach + 1):
            offset = step * nfiber + other - fiber
            here = np.arange(max(0, -step), nwave - max(0, step))
            lower = here * nfiber + fiber if offset >= 0 else (here + step) * nfiber + other
            if abs(offset) < self.band.shape[1]:
                out[here, step + self.reach] = self.band[lower, abs(offset)]
        return out


def normal_equations(
    spots: Spots, pix: NDArray[np.float32], ivar: NDArray[np.float32], regularize: float = 0.0
) -> NormalEquations:
    """Accumulate M, b and the weights.

    Unknowns with less than 1e-4 of the largest weight are held near zero by a prior (spec offline-reduction §4.2, where
    it counts squared and so holds nothing); it stands in M, so that the covariance knows it, too.

    Parameters
    ----------
    pix, ivar : (ny, nx) [electron], [electron^-2]; ivar 0 where a pixel is unusable
    regularize : prior on all unknowns [1/electron]
    """
    nwave, nfiber = spots.row.shape
    reach = _reach(spots.row, spots.image.shape[2])
    band = np.zeros((nwave * nfiber, reach * nfiber + _FIBERS + 1))
    rhs, weight = np.zeros((nwave, nfiber)), np.zeros((nwave, nfiber))
    _accumulate(spots.image, spots.row, spots.column, pix, ivar, reach, band, rhs, weight)
    least = _LEAST * float(weight.max())
    prior = np.maximum(least - weight, 0.0) + regularize**2 + _RIDGE * float(band[:, 0].max())
    band[:, 0] += prior.ravel() if least > 0.0 else 1.0  # without any data all is zero
    return NormalEquations(band, rhs, weight, reach)


@njit(nogil=True, cache=True)
def _reach(row, height):  # type: ignore[no-untyped-def]
    """Wavelength steps over which spots share a row, those of neighbouring fibers included."""
    nwave, nfiber = row.shape
    most = 1
    for f in range(nfiber):
        for g in range(max(0, f - _FIBERS), min(nfiber, f + _FIBERS + 1)):
            step = 0
            for k in range(nwave):
                step = max(step - 1, 0)
                while k + step < nwave and row[k + step, g] - row[k, f] < height:
                    step += 1
                most = max(most, step - 1)
    return min(most, nwave - 1)


@njit(nogil=True, cache=True, fastmath=True)
def _accumulate(image, row, column, pix, ivar, reach, band, rhs, weight):  # type: ignore[no-untyped-def]
    nwave, nfiber, height, width = image.shape
    ny, nx = pix.shape
    weighted = np.empty((height, width))
    for k in range(nwave):
        for f in range(nfiber):
            y0, x0 = row[k, f], column[k, f]
            spot = image[k, f]
            top, bottom = max(0, -y0), min(height, ny - y0)
            left, right = max(0, -x0), min(width, nx - x0)
            total, data = 0.0, 0.0
            for m in range(top, bottom):
                for n in range(left, right):
                    w = ivar[y0 + m, x0 + n] * spot[m, n]
                    weighted[m, n] = w
                    total += w
                    data += w * pix[y0 + m, x0 + n]
            weight[k, f] = total
            rhs[k, f] = data
            if total <= 0.0:
                continue
            own = band[k * nfiber + f]
            for step in range(min(reach, nwave - 1 - k) + 1):
                for g in range(max(f if step == 0 else 0, f - _FIBERS), min(nfiber, f + _FIBERS + 1)):
                    dy, dx = row[k + step, g] - y0, column[k + step, g] - x0
                    if dy >= height or dy <= -height or dx >= width or dx <= -width:
                        continue
                    other = image[k + step, g]
                    product = 0.0
                    for m in range(max(top, dy), min(bottom, height + dy)):
                        for n in range(max(left, dx), min(right, width + dx)):
                            product += weighted[m, n] * other[m - dy, n - dx]
                    own[step * nfiber + g - f] = product


@njit(nogil=True, cache=True)
def project(image, row, column, flux, out):  # type: ignore[no-untyped-def]
    """Add A x to `out` (ny, nx): the image that the spectra `flux` (nwave, nfiber) make."""
    nwave, nfiber, height, width = image.shape
    ny, nx = out.shape
    for k in range(nwave):
        for f in range(nfiber):
            y0, x0 = row[k, f], column[k, f]
            for m in range(max(0, -y0), min(height, ny - y0)):
                for n in range(max(0, -x0), min(width, nx - x0)):
                    out[y0 + m, x0 + n] += flux[k, f] * image[k, f, m, n]


@njit(nogil=True, cache=True)
def spot_averages(image, row, column, values, good, out):  # type: ignore[no-untyped-def]
    """Per unknown the mean of `values` over the good pixels of its spot, and the share of its light on bad ones.

    `out` is (2, nwave, nfiber); without a good pixel the mean is 0 and the share 1.
    """
    nwave, nfiber, height, width = image.shape
    ny, nx = values.shape
    for k in range(nwave):
        for f in range(nfiber):
            y0, x0 = row[k, f], column[k, f]
            total, seen, summed = 0.0, 0.0, 0.0
            for m in range(height):
                for n in range(width):
                    a = max(image[k, f, m, n], 0.0)
                    total += a
                    j, i = y0 + m, x0 + n
                    if 0 <= j < ny and 0 <= i < nx and good[j, i]:
                        seen += a
                        summed += a * values[j, i]
            out[0, k, f] = summed / seen if seen > 0.0 else 0.0
            out[1, k, f] = 1.0 - seen / total if total > 0.0 else 1.0
