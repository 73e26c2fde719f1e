"""Division of spectra by the fiber flat, on each fiber's own wavelengths."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from qlstream.datamodel.fiberflat import FiberFlat
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.qframe import QFrame

_BAD = np.uint32(SpecMask.BADFIBERFLAT)


def divide_by_fiberflat(
    spectra: QFrame | Frame, fiberflat: FiberFlat
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.uint32]]:
    """Flux, ivar and mask of `spectra` divided by the flat, which is interpolated linearly in wavelength.

    The flat's own error is added (spec quicklook-pipeline §9.8, _QL): with F and ivar_F at the fiber's wavelengths, and
    the flux before the division, 1/ivar' = 1/(ivar F^2) + flux^2/(ivar_F F^4). Where the flat is masked, not positive,
    without information, of other range or fibers, the flux stays as it is, ivar is 0 and the mask says BADFIBERFLAT.
    Fibers are matched by number.

    Returns
    -------
    flux, ivar : (nspec, n), in the type of those given
    mask : (nspec, n) uint32
    """
    order = np.argsort(fiberflat.fibers, kind="stable")
    at = order[np.minimum(np.searchsorted(fiberflat.fibers, spectra.fibers, sorter=order), len(order) - 1)]
    row = np.where(fiberflat.fibers[at] == spectra.fibers, at, -1)
    flux, ivar, mask = np.empty_like(spectra.flux), np.empty_like(spectra.ivar), np.empty_like(spectra.mask)
    _divide(np.atleast_2d(spectra.wave), spectra.flux, spectra.ivar, spectra.mask, row, fiberflat.wave,
            fiberflat.fiberflat, fiberflat.ivar, fiberflat.mask, flux, ivar, mask)  # fmt: skip
    return flux, ivar, mask


def moved_with_the_earth(fiberflat: FiberFlat, factor: float) -> FiberFlat:
    """The flat on the wavelengths of spectra that were corrected for the observer's motion by `factor` (HELIOCOR).

    A fiber's throughput belongs to wavelengths on the CCD; the corrected spectra call them `factor` times as long. One
    more bin on either side keeps what moves past the end of the grid.
    """
    wave = fiberflat.wave * factor
    side = ((0, 0), (1, 1))
    return replace(
        fiberflat,
        wave=np.concatenate([[2 * wave[0] - wave[1]], wave, [2 * wave[-1] - wave[-2]]]),
        fiberflat=np.pad(fiberflat.fiberflat, side, mode="edge"),
        ivar=np.pad(fiberflat.ivar, side, mode="edge"),
        mask=np.pad(fiberflat.mask, side, mode="edge"),
        meanspec=np.pad(fiberflat.meanspec, 1, mode="edge"),
    )


@njit(nogil=True, cache=True)
def _divide(  # type: ignore[no-untyped-def]
    wave, flux, ivar, mask, row, grid, flat, flat_ivar, flat_mask, flux_out, ivar_out, mask_out
):
    for f in range(flux.shape[0]):
        r = row[f]
        i = -1  # the two bins of the flat about the wavelength are i and i + 1
        lower = upper = np.inf  # their variances
        for j in range(flux.shape[1]):
            flux_out[f, j] = flux[f, j]
            ivar_out[f, j] = 0.0
            mask_out[f, j] = mask[f, j] | _BAD
            x = wave[f if len(wave) > 1 else 0, j]
            if r < 0 or not grid[0] <= x <= grid[-1]:
                continue
            while i < 0 or (i < grid.size - 2 and grid[i + 1] < x):
                i += 1
                lower = upper if i > 0 else _variance(flat[r, 0], flat_ivar[r, 0], flat_mask[r, 0])
                upper = _variance(flat[r, i + 1], flat_ivar[r, i + 1], flat_mask[r, i + 1])
            t = (x - grid[i]) / (grid[i + 1] - grid[i])
            if (lower < np.inf or t == 1.0) and (upper < np.inf or t == 0.0):  # on a bin its neighbour does not matter
                throughput = (1.0 - t) * flat[r, i] + t * flat[r, i + 1]
                flux_out[f, j] = flux[f, j] / throughput
                mask_out[f, j] = mask[f, j]
                if ivar[f, j] > 0:
                    square = throughput * throughput
                    variance = (0.0 if t == 1.0 else (1.0 - t) * lower) + (0.0 if t == 0.0 else t * upper)
                    ivar_out[f, j] = 1.0 / (
                        1.0 / (ivar[f, j] * square) + flux[f, j] ** 2 * variance / (square * square)
                    )


@njit(nogil=True, cache=True, inline="always")
def _variance(flat, ivar, mask):  # type: ignore[no-untyped-def]
    return 1.0 / ivar if ivar > 0 and flat > 0 and mask == 0 else np.inf
