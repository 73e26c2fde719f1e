"""A sky-subtracted frame divided by the calibration vectors of its exposure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qlstream.datamodel.fluxcalib import FrameFluxCalib
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.qframe import CALIBRATED


def apply_fluxcalib(frame: Frame, calib: FrameFluxCalib) -> Frame:
    """F/C with Var' = 1/(ivar C^2) + F^2/(ivar_C C^4) (spec offline-reduction §9).

    Bins that the calibration does not cover have flux 0, ivar 0 and the bit LOWFLAT. The fibermap gets the corrections
    of each fiber: FLAT_TO_PSF_FLUX, in the flux already, and PSF_TO_FIBER_SPECFLUX, not in it (spec datamodel §5.2).

    Returns
    -------
    Frame in 1e-17 erg/s/cm2/Angstrom

    Raises
    ------
    ValueError : other fibers or wavelengths
    """
    if calib.value.shape != frame.flux.shape or not np.allclose(calib.wave, frame.wave, atol=1e-3):
        raise ValueError(
            f"apply_fluxcalib: the calibration has {calib.value.shape} bins from {calib.wave[0]:.1f}, the frame "
            f"{frame.flux.shape} from {frame.wave[0]:.1f} Angstrom; compute it from this very frame"
        )
    good = (calib.value > 0) & (calib.ivar > 0) & (calib.mask == 0)
    c = np.where(good, calib.value, 1.0)
    flux = np.where(good, frame.flux / c, 0.0)
    informed = good & (frame.ivar > 0)
    variance = np.ones(flux.shape)
    variance[informed] = 1.0 / (frame.ivar[informed] * c[informed] ** 2)
    variance[informed] += flux[informed] ** 2 / (calib.ivar[informed] * c[informed] ** 2)
    mask = frame.mask | calib.mask | np.where(good, 0, np.uint32(SpecMask.LOWFLAT)).astype(np.uint32)
    fibermap = frame.fibermap
    if fibermap is not None and calib.fibercorr is not None:
        fibermap = fibermap.with_columns(
            PSF_TO_FIBER_SPECFLUX=calib.fibercorr["PSF_TO_FIBER_FLUX"].astype("f4"),
            FLAT_TO_PSF_FLUX=calib.fibercorr["FLAT_TO_PSF_FLUX"].astype("f4"),
        )
    return replace(
        frame,
        flux=flux,
        ivar=np.where(informed, 1.0 / variance, 0.0),
        mask=mask,
        fibermap=fibermap,
        bunit=CALIBRATED,
        sky=None,
    )
