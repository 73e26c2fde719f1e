"""Spectra of an arc before its wavelengths are known."""

from __future__ import annotations

from math import erf

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]

_HALF = 3  # columns on each side


def extract_rows(pix: NDArray[np.float32], ivar: NDArray[np.float32], x: Array, sigma: Array) -> tuple[Array, Array]:
    """Row by row, the amplitude of a Gaussian of known place and width (spec offline-reduction §1.5).

    f = sum P D / sum P^2 over the good pixels; not weighted by the inverse variances, which rise and fall with the
    light and would bend the shape of lines.

    Parameters
    ----------
    pix, ivar : (ny, nx) arc [electron]; ivar 0 takes a pixel out
    x, sigma : (nspec, ny) [pixel]

    Returns
    -------
    flux, ivar : (nspec, ny) float64 [electron/row]; ivar 0 where less than half of the profile is on good pixels
    """
    flux, weight = np.zeros(x.shape), np.zeros(x.shape)
    _extract(pix, ivar, x, sigma, flux, weight)
    return flux, weight


@njit(nogil=True, cache=True)
def _extract(pix, ivar, x, sigma, flux, weight):  # type: ignore[no-untyped-def]
    ny, nx = pix.shape
    for f in range(x.shape[0]):
        for j in range(ny):
            middle = int(np.rint(x[f, j]))
            scale = 1.0 / (np.sqrt(2.0) * sigma[f, j])
            total, square, variance, lit = 0.0, 0.0, 0.0, 0.0
            low = erf((middle - _HALF - 0.5 - x[f, j]) * scale)
            for i in range(middle - _HALF, middle + _HALF + 1):
                high = erf((i + 0.5 - x[f, j]) * scale)
                p = 0.5 * (high - low)
                low = high
                if i < 0 or i >= nx or not ivar[j, i] > 0:
                    continue
                lit += p
                total += p * pix[j, i]
                square += p * p
                variance += p * p / ivar[j, i]
            if lit > 0.5 and variance > 0:
                flux[f, j] = total / square
                weight[f, j] = square * square / variance
