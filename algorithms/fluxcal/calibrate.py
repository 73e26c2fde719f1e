"""Division by exposure time, bin width and response, in one pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from qlstream.datamodel.fluxcalib import FluxCalib
from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.qframe import QFrame
from qlstream.datamodel.sky import SkyModel

_NODATA = np.uint32(SpecMask.NODATA)


def calibrate(
    qframe: QFrame, fluxcalib: FluxCalib, exptime: float, airmass: float, seeing: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint32], NDArray[np.float32] | None]:
    """Counts per row of `qframe` as flux density: counts / (dlambda exptime C(lambda)), spec quicklook-pipeline §9.11.

    Parameters
    ----------
    qframe : flux [electron per row]
    exptime : [second]
    airmass, seeing : of the exposure, [-] and [arcsec]

    Returns
    -------
    flux, ivar : (nspec, ny) float32 [1e-17 erg/s/cm2/Angstrom] and its inverse variance
    mask : (nspec, ny) uint32, with NODATA where the calibration is not positive: flux and ivar are 0 there
    sky : (nspec, ny) float32 in the same unit, or None
    """
    steps = np.diff(fluxcalib.wave)
    response = fluxcalib.at(fluxcalib.wave, airmass, seeing) * exptime
    flux, ivar, mask = np.empty_like(qframe.flux), np.empty_like(qframe.ivar), np.empty_like(qframe.mask)
    sky_in = qframe.flux[:0] if qframe.sky is None else qframe.sky
    sky = np.empty_like(sky_in)
    if not (steps > 0).all():
        raise ValueError(
            "the wavelengths of FLUXCALIB do not increase; give a calibration vector on an increasing grid"
        )
    _calibrate(
        qframe.wave, qframe.flux, qframe.ivar, qframe.mask, sky_in, fluxcalib.wave, response, flux, ivar, mask, sky
    )
    return flux, ivar, mask, None if qframe.sky is None else sky


def scaled_sky(sky: SkyModel, response: NDArray[np.float64]) -> SkyModel:
    """A sky model in the unit of calibrated spectra: divided by `response` (nwave,), 0 where that is not positive."""
    factor = np.zeros(response.size)
    np.divide(1.0, response, out=factor, where=response > 0)
    stat_ivar = None if sky.stat_ivar is None else sky.stat_ivar * np.where(factor > 0, response, 0.0) ** 2
    ivar = sky.ivar * np.where(factor > 0, response, 0.0) ** 2
    return replace(sky, flux=sky.flux * factor, ivar=ivar, stat_ivar=stat_ivar)


@njit(nogil=True, cache=True)
def _calibrate(wave, flux, ivar, mask, sky, grid, response, flux_out, ivar_out, mask_out, sky_out):  # type: ignore[no-untyped-def]
    ny = wave.shape[1]
    for f in range(wave.shape[0]):
        i = 0
        for j in range(ny):
            x = wave[f, j]
            scale = 0.0
            if grid[0] <= x <= grid[-1]:
                while i < grid.size - 2 and grid[i + 1] < x:
                    i += 1
                t = (x - grid[i]) / (grid[i + 1] - grid[i])
                first, last = max(j - 1, 0), min(j + 1, ny - 1)
                dwave = (wave[f, last] - wave[f, first]) / (last - first)
                scale = ((1.0 - t) * response[i] + t * response[i + 1]) * dwave
            good = scale > 0.0
            factor = 1.0 / scale if good else 0.0
            flux_out[f, j] = flux[f, j] * factor
            ivar_out[f, j] = ivar[f, j] * scale * scale if good else 0.0
            mask_out[f, j] = mask[f, j] if good else mask[f, j] | _NODATA
            if sky.shape[0] > 0:
                sky_out[f, j] = sky[f, j] * factor
