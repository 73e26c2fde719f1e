"""Division of spectra by the fiber flat, on each fiber's own wavelengths."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from qlstream.datamodel.fiberflat import FiberFlat
from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.qframe import QFrame

_BAD = np.uint32(SpecMask.BADFIBERFLAT)


def divide_by_fiberflat(
    qframe: QFrame, fiberflat: FiberFlat
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint32]]:
    """Flux, ivar and mask of `qframe` divided by the flat, which is interpolated linearly in wavelength.

    The flat's own error is added (spec quicklook-pipeline §9.8, _QL): with F and ivar_F at the fiber's wavelengths
    1/ivar' = 1/(ivar F^2) + flux^2/(ivar_F F^4). Where the flat is masked, not positive, without information, of other
    range or fibers, the flux stays as it is, ivar is 0 and the mask says BADFIBERFLAT. Fibers are matched by
    number.

    Returns
    -------
    flux, ivar : (nspec, ny) float32
    mask : (nspec, ny) uint32
    """
    order = np.argsort(fiberflat.fibers, kind="stable")
    at = order[np.minimum(np.searchsorted(fiberflat.fibers, qframe.fibers, sorter=order), len(order) - 1)]
    row = np.where(fiberflat.fibers[at] == qframe.fibers, at, -1)
    good = (fiberflat.ivar > 0) & (fiberflat.fiberflat > 0) & (fiberflat.mask == 0)
    with np.errstate(divide="ignore"):
        variance = np.where(good, 1.0 / fiberflat.ivar, np.inf)
    flux, ivar, mask = np.empty_like(qframe.flux), np.empty_like(qframe.ivar), np.empty_like(qframe.mask)
    _divide(qframe.wave, qframe.flux, qframe.ivar, qframe.mask, row, fiberflat.wave, fiberflat.fiberflat, variance,
            flux, ivar, mask)  # fmt: skip
    return flux, ivar, mask


@njit(nogil=True, cache=True)
def _divide(  # type: ignore[no-untyped-def]
    wave, flux, ivar, mask, row, grid: NDArray[Any], flat, variance, flux_out, ivar_out, mask_out
):
    for f in range(wave.shape[0]):
        i = 0
        for j in range(wave.shape[1]):
            flux_out[f, j] = flux[f, j]
            ivar_out[f, j] = 0.0
            mask_out[f, j] = mask[f, j] | _BAD
            x = wave[f, j]
            if row[f] < 0 or not grid[0] <= x <= grid[-1]:
                continue
            while i < grid.size - 2 and grid[i + 1] < x:
                i += 1
            t = (x - grid[i]) / (grid[i + 1] - grid[i])
            v = (1.0 - t) * variance[row[f], i] + t * variance[row[f], i + 1]
            if v < np.inf:
                throughput = (1.0 - t) * flat[row[f], i] + t * flat[row[f], i + 1]
                flux_out[f, j] = flux[f, j] / throughput
                mask_out[f, j] = mask[f, j]
                if ivar[f, j] > 0:
                    square = throughput * throughput
                    ivar_out[f, j] = 1.0 / (1.0 / (ivar[f, j] * square) + flux[f, j] ** 2 * v / (square * square))
