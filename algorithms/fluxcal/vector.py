"""The flux calibration of one camera in one exposure, from its standard stars (spec offline-reduction §9).

The vector that the stars have in common (`starfit`) is that of every fiber, through the resolution of the fiber and
with what the fiber catches of a point source (`corrections`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from algorithms.fluxcal.choose import StarCuts, choose_stars
from algorithms.fluxcal.corrections import fiber_corrections
from algorithms.fluxcal.fallback import scaled_average
from algorithms.fluxcal.modelerror import temperature_error
from algorithms.fluxcal.smoothness import is_telluric
from algorithms.fluxcal.starfit import CommonFit, FitLimits, StarData, fit_common
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.fluxcalib import FrameFluxCalib
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.stars import StdStars
from qlstream.numeric.deconvolution import spread

Array = NDArray[np.float64]

# lines that are neither the stars' nor the air's in front of them: Ca H, K and Na D between the stars and us, and the
# glow of oxygen, of which more is left after the sky subtraction than there is starlight
_BRIDGED = (3934.77, 3969.59, 5578.9, 5891.58, 5897.56, 6302.0, 6365.5)
_HALF = 6.0  # [Angstrom] that such a line takes out on either side
_ENOUGH_STARS = 3  # that a bin needs, or half of them if there are few
_LEAST_SNR = 0.5  # median per bin of all stars: less is no starlight
_OWN_SNR = 2.0  # below this the average of the instrument is better than the stars of the exposure


@dataclass(frozen=True)
class CalibrationLimits:
    """Which stars are taken, and what is rejected in the fit."""

    cuts: StarCuts = field(default_factory=StarCuts)
    fit: FitLimits = field(default_factory=FitLimits)


def compute_fluxcalib(
    frame: Frame,
    stars: StdStars,
    seeing: float,
    fiber_diameter: float,
    limits: CalibrationLimits,
    average: Array | None = None,
) -> FrameFluxCalib:
    """Calibration vectors of all fibers of a flat-fielded, sky-subtracted frame.

    Parameters
    ----------
    stars : models of the petal's standard stars
    seeing : of the exposure [arcsec]
    fiber_diameter : [arcsec]
    average : (nwave,) vector of the instrument for such an exposure, [electron/Angstrom per 1e-17 erg/s/cm2/Angstrom].
        It takes the place of the stars', scaled to them, where their median S/N is below 2 a bin; its error is 100 %

    Returns
    -------
    FrameFluxCalib; its meta has NSTDSTAR (stars used), STARSNR (median per bin), SEEUSED, and CALAVG: how much of
    the average was left, 0 if the vector is that of the stars

    Raises
    ------
    MissingCalibration : no good star in this frame
    """
    if frame.fibermap is None:
        raise MissingCalibration("no fibermap in this frame, so its stars cannot be found")
    corrections = fiber_corrections(frame.fibermap, seeing, fiber_diameter)
    to_point = corrections["FLAT_TO_PSF_FLUX"]
    chosen, index, models = choose_stars(frame, stars, limits.cuts)
    data = _star_data(frame, index, models, to_point[index])
    snr, scale, common = data.snr(), 0.0, None
    if average is not None and snr < _OWN_SNR:
        vector, scale = scaled_average(data, np.pad(average, _beyond(frame), "edge"))
        value = np.tile(vector[_inside(frame)], (frame.nspec, 1))
        ivar, mask = value**-2.0, np.zeros(value.shape, np.uint32)
        kept = np.arange(len(index))
    elif snr < _LEAST_SNR:
        raise MissingCalibration(
            f"the {len(index)} standard stars of {frame.camera} have a median S/N of {snr:.2f} per bin, needed "
            f"{_LEAST_SNR:g}; clouds? With an average FLUXCALIB in the calibration tree that would be used"
        )
    else:
        fit = fit_common(data, limits.fit)
        share = np.zeros(len(stars.fibers))
        share[chosen] = fit.share
        value, ivar, mask = _vectors(frame, fit, temperature_error(frame.wave, stars, share))
        kept, common = fit.kept, fit.common.model[_inside(frame)]
    good = to_point > 0
    safe = np.where(good, to_point, 1.0)[:, None]
    rows = None if stars.fibermap is None else stars.fibermap[chosen[kept]]
    cards = {"NSTDSTAR": len(kept), "STARSNR": round(snr, 3), "SEEUSED": seeing, "CALAVG": round(scale, 5)}
    return FrameFluxCalib(
        wave=frame.wave,
        value=value / safe,
        ivar=np.where(good[:, None], ivar * safe**2, 0.0),
        mask=mask,
        fibercorr=corrections,
        stdstar_fibermap=rows,
        deconvolved=common,
        meta={**frame.meta, **cards},
    )


def _beyond(frame: Frame) -> int:
    """Bins from beyond either end that light the outermost ones, so they are unknowns, too."""
    return frame.resolution_of(0).ndiag // 2


def _inside(frame: Frame) -> slice:
    return slice(_beyond(frame), _beyond(frame) + frame.wave.size)


def _longer(frame: Frame, index: int) -> Array:
    """Bands of a resolution matrix that goes on beyond both ends, as it is there."""
    more = _beyond(frame)
    return np.pad(np.ascontiguousarray(frame.resolution_of(index).data, dtype=float), ((0, 0), (more, more)), "edge")


def _star_data(frame: Frame, index: NDArray[np.int64], models: Array, to_point: Array) -> StarData:
    """The stars of a frame as point sources, on its wavelengths and some beyond, where there are no data."""
    more = _beyond(frame)
    good = (
        (frame.ivar[index] > 0) & (frame.mask[index] == 0) & (to_point > 0)[:, None] & ~_is_bridged(frame.wave, _HALF)
    )
    safe = np.where(to_point > 0, to_point, 1.0)[:, None]
    wider = ((0, 0), (more, more))
    wave = np.pad(frame.wave, more, "reflect", reflect_type="odd")
    return StarData(
        wave=wave,
        data=np.pad(np.where(good, frame.flux[index] * safe, 0.0), wider),
        ivar=np.pad(np.where(good, _ivar(frame, index) / safe**2, 0.0), wider),
        bands=np.stack([_longer(frame, int(k)) for k in index]),
        models=np.pad(models, wider, "edge"),
        rough=is_telluric(wave) & ~_is_bridged(wave, 2.0 * _HALF),  # two bins beside a gap do not tell a slope
    )


def _is_bridged(wave: Array, half: float) -> NDArray[np.bool_]:
    """(n,) bins that no star tells, only the bins beside them and the smoothness of the response."""
    return np.asarray(np.abs(wave[:, None] - np.array(_BRIDGED)).min(axis=1) < half)


def _ivar(frame: Frame, index: NDArray[np.int64]) -> Array:
    """(nstar, nwave) that of the stars, when they are averaged: the error of the sky is all stars' and stays."""
    ivar = frame.ivar[index]
    if frame.sky is None:
        return ivar
    sky = frame.sky.ivar[index]
    common = (len(index) - 1) / np.where(sky > 0, sky, np.inf)
    return np.asarray(ivar / (1.0 + ivar * common))


def _vectors(frame: Frame, fit: CommonFit, model_error: Array) -> tuple[Array, Array, NDArray[np.uint32]]:
    """Calibration of each fiber: the common one through its resolution, with one variance for all.

    It is that of the fit and of the relative error (nwave,) of the models.
    """
    inside = _inside(frame)
    value = np.zeros(frame.flux.shape)
    for f in range(frame.nspec):
        bands = _longer(frame, f)
        total = spread(bands, np.ones(bands.shape[1]))[inside]
        value[f] = spread(bands, fit.common.model)[inside] / np.where(total > 0.1, total, 1.0)
    variance = fit.common.variance_through(_longer(frame, frame.nspec // 2))[inside]
    variance += (model_error * fit.common.model[inside]) ** 2
    enough = fit.count[inside] >= min(_ENOUGH_STARS, max(1, len(fit.kept) // 2))
    known = (enough | _is_bridged(frame.wave, _HALF)) & np.isfinite(variance) & (variance > 0)
    ivar = np.where(known, 1.0 / np.where(known, variance, 1.0), 0.0)
    good = known & (value > 0)
    return np.where(good, value, 0.0), np.where(good, ivar, 0.0), np.where(good, 0, SpecMask.LOWFLAT).astype(np.uint32)
