"""The flux calibration of one camera in one exposure, from its standard stars (spec offline-reduction §9).

Star f gives p_f D_f = a_f R_f (m_f c) + noise: m_f is its model, R_f its resolution, p_f by how much its fiber falls
short for a point source, a_f what is left of its own scale, and c the common calibration before any resolution. c is
a banded least squares (`numeric.deconvolution`); the scales are fitted in turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from algorithms.fluxcal.fiberloss import point_fraction, source_fraction
from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.fluxcalib import FrameFluxCalib
from qlstream.datamodel.frame import Frame
from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.stars import StdStars
from qlstream.numeric.deconvolution import CommonSpectrum, NormalEquations, spread

Array = NDArray[np.float64]

MM_PER_ARCSEC = 0.0704  # of DESI's focal plane: its fibers of 107 micron see 1.52 arcsec
_LOST = 0.01  # of its light: a fiber that catches less has missed its target
_IMAGING = 0.789  # of a point source's light in the fiber fluxes of the imaging surveys
_MARGIN = 3  # bins at either end that are not used
_RANGE = 0.2  # a star that keeps less of its scale than this is no star of this exposure
_ABSORBED = (3934.77, 3969.59, 5891.58, 5897.56)  # Ca H, K and Na D: between the stars and us
_HALF, _BESIDE = 6.0, 20.0  # what such a line takes out, and what tells the calibration there [Angstrom]
_LEAST_SNR = 0.5  # median per bin of all stars: less is no starlight


@dataclass(frozen=True)
class CalibrationLimits:
    """Rejection of bins and stars.

    Attributes
    ----------
    nsig : bins that deviate by more [sigma], after 20 % of the flux was added to their error once
    nsig_scale : stars whose scale deviates by more from the others' [sigma]
    max_iterations : rounds
    color : stars whose model is redder or bluer than the photometry by more take no part [mag]
    chi2dof : nor those whose model fits worse
    """

    nsig: float = 10.0
    nsig_scale: float = 3.0
    max_iterations: int = 20
    color: float = 0.2
    chi2dof: float = 3.0


def compute_fluxcalib(
    frame: Frame, stars: StdStars, seeing: float, fiber_diameter: float, limits: CalibrationLimits
) -> FrameFluxCalib:
    """Calibration vectors of all fibers of a flat-fielded, sky-subtracted frame.

    Parameters
    ----------
    stars : models of the petal's standard stars
    seeing : of the exposure [arcsec]
    fiber_diameter : [arcsec]

    Raises
    ------
    MissingCalibration : no good star in this frame
    """
    fibermap = frame.fibermap
    if fibermap is None:
        raise MissingCalibration("no fibermap in this frame, so its stars cannot be found")
    to_point = flat_to_psf(fibermap, seeing, fiber_diameter)
    index, models = _usable(frame, stars, limits)
    fit = _fit(frame, index, models, to_point[index], limits)
    value, ivar, mask = _vectors(frame, fit.common, len(fit.kept))
    corrections = np.zeros(frame.nspec, dtype=[("FLAT_TO_PSF_FLUX", "f8"), ("PSF_TO_FIBER_FLUX", "f8")])
    corrections["FLAT_TO_PSF_FLUX"] = to_point
    corrections["PSF_TO_FIBER_FLUX"] = psf_to_fiber(fibermap, seeing, fiber_diameter)
    good = to_point > 0
    safe = np.where(good, to_point, 1.0)[:, None]
    rows = stars.fibermap[np.isin(stars.fibers, frame.fibers[index[fit.kept]])] if stars.fibermap is not None else None
    return FrameFluxCalib(
        wave=frame.wave,
        value=value / safe,
        ivar=np.where(good[:, None], ivar * safe**2, 0.0),
        mask=mask,
        fibercorr=corrections,
        stdstar_fibermap=rows,
        deconvolved=fit.common.model,
        meta={**frame.meta, "NSTDSTAR": len(fit.kept), "SEEUSED": seeing},
    )


def flat_to_psf(fibermap: Fibermap, seeing: float, fiber_diameter: float) -> Array:
    """(nspec,) by how much the counts of a point source fall short in each fiber, relative to the mean; 0 if lost.

    The flat field fills a fiber evenly, a star does not: one beside its star catches less. Lost is what catches less
    than 1 %.
    """
    caught = point_fraction(seeing, _offsets(fibermap), fiber_diameter)
    good = caught > _LOST
    factor = np.where(good, 1.0 / np.where(good, caught, 1.0), 0.0)
    return np.asarray(factor / factor[good].mean() if good.any() else factor)


def psf_to_fiber(fibermap: Fibermap, seeing: float, fiber_diameter: float) -> Array:
    """(nspec,) from a calibrated flux, right for a point source, to the flux inside a nominal fiber; 0 if lost.

    n a / c: a and c are what the fiber catches of a point and of the real source, n what a nominal one (1 arcsec
    seeing, no offset) does, scaled so that a point source there gives the 0.789 of the imaging surveys' fiber fluxes.
    """
    points = np.char.strip(fibermap.column("MORPHTYPE", "PSF").astype(str)) == "PSF"
    half_light = np.where(points, 0.0, fibermap.column("SHAPE_R", 0.0).astype(float))
    offset = _offsets(fibermap)
    point = point_fraction(seeing, offset, fiber_diameter)
    source = source_fraction(seeing, offset, fiber_diameter, half_light)
    nominal = source_fraction(1.0, 0.0, fiber_diameter, half_light)
    scale = _IMAGING / float(point_fraction(1.0, 0.0, fiber_diameter))
    good = source > _LOST
    return np.asarray(np.where(good, scale * nominal * point / np.where(good, source, 1.0), 0.0))


def _offsets(fibermap: Fibermap) -> Array:
    """(nspec,) distance of each fiber from its target [arcsec]; 0 where it is not known."""
    axes = [np.nan_to_num(fibermap.column(name, 0.0).astype(float)) for name in ("DELTA_X", "DELTA_Y")]
    return np.asarray(np.hypot(*axes) / MM_PER_ARCSEC)


@dataclass(frozen=True)
class _Fit:
    common: CommonSpectrum
    scales: Array
    kept: NDArray[np.int64]


def _usable(frame: Frame, stars: StdStars, limits: CalibrationLimits) -> tuple[NDArray[np.int64], Array]:
    """Indices of the good stars in the frame, and their models on its grid."""
    table = stars.metadata
    good = np.isin(stars.fibers, frame.fibers) & (table["CHI2DOF"] < limits.chi2dof)
    good &= np.abs(table["DATA_G-R"] - table["MODEL_G-R"]) < limits.color
    if not good.any():
        raise MissingCalibration(
            f"none of {len(stars.fibers)} standard stars is good enough for {frame.camera}: colours within "
            f"{limits.color:g} mag and chi2/dof below {limits.chi2dof:g}"
        )
    order = np.argsort(frame.fibers, kind="stable")
    index = order[np.searchsorted(frame.fibers, stars.fibers[good], sorter=order)]
    models = np.stack([np.interp(frame.wave, stars.wave, row) for row in stars.flux[good]])
    return index, models


def _fit(frame: Frame, index: NDArray[np.int64], models: Array, to_point: Array, limits: CalibrationLimits) -> _Fit:
    data = frame.flux[index] * to_point[:, None]
    usable = (frame.ivar[index] > 0) & (frame.mask[index] == 0) & (to_point > 0)[:, None]
    usable[:, :_MARGIN] = usable[:, -_MARGIN:] = False
    safe = np.where(to_point > 0, to_point, 1.0)[:, None]
    ivar = np.where(usable, frame.ivar[index] / safe**2, 0.0)
    bands = [np.ascontiguousarray(frame.resolution_of(int(k)).data) for k in index]
    seen = np.stack([spread(b, m) for b, m in zip(bands, models, strict=True)])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(usable & (seen > 0), data / seen, np.nan)
    known = np.isfinite(ratio).any(axis=0)
    start = np.zeros(frame.wave.size)
    start[known] = np.nanmedian(ratio[:, known], axis=0)
    snr = float(np.median((data * np.sqrt(ivar))[usable])) if usable.any() else 0.0
    if snr < _LEAST_SNR:
        raise MissingCalibration(
            f"the {len(index)} standard stars of {frame.camera} have a median S/N of {snr:.2f} per bin, needed "
            f"{_LEAST_SNR:g}; clouds?"
        )
    scales = _scales(data, ivar, start * seen)
    weight = np.where(usable, 1.0 / (1.0 / np.where(ivar > 0, ivar, 1.0) + (0.2 * data) ** 2), 0.0)
    weight = np.where((data - scales[:, None] * start * seen) ** 2 * weight > limits.nsig**2, 0.0, weight)
    kept = np.flatnonzero(scales > _RANGE)
    if not kept.size:
        raise MissingCalibration(f"no standard star of {frame.camera} follows its model")
    # from here on the true errors decide; 2 % of the model stand for what a template may be off
    scales /= 1.0 / (1.0 / scales[kept]).mean()
    fit = _solve(bands, models, data, weight, scales, kept)
    for _ in range(limits.max_iterations):
        predicted = np.stack([spread(b, m * fit.model) for b, m in zip(bands, models, strict=True)])
        error2 = 1.0 / np.where(ivar > 0, ivar, 1.0) + (0.02 * predicted) ** 2
        new = _scales(data, np.where(weight > 0, 1.0 / error2, 0.0), predicted)
        new /= 1.0 / (1.0 / new[kept]).mean()
        pull2 = (data - new[:, None] * predicted) ** 2 / error2
        bad = (pull2 > limits.nsig**2) & (weight > 0)
        bad &= pull2 >= np.where(weight > 0, pull2, 0.0)[kept].max(axis=0)  # the worst star of each wavelength
        weight = np.where(bad, 0.0, np.where(weight > 0, 1.0 / error2, 0.0))
        dropped = _outlier(new, kept, limits.nsig_scale)
        if dropped is not None:
            kept = kept[kept != dropped]
        settled = not bad.any() and dropped is None and np.abs(new[kept] - scales[kept]).max() < 1e-4
        scales = new
        fit = _solve(bands, models, data, weight, scales, kept)
        if settled:
            break
    return _Fit(fit, scales, kept)


def _scales(data: Array, ivar: Array, predicted: Array) -> Array:
    total = (ivar * predicted**2).sum(axis=1)
    return np.asarray(np.where(total > 0, (ivar * data * predicted).sum(axis=1) / np.where(total > 0, total, 1.0), 0.0))


def _solve(
    bands: list[Array], models: Array, data: Array, weight: Array, scales: Array, kept: NDArray[np.int64]
) -> CommonSpectrum:
    equations = NormalEquations(bands[0].shape[0], models.shape[1])
    for k in kept:
        equations.add(bands[k] * models[k][None, :], float(scales[k]), data[k], weight[k])
    return equations.solve()


def _outlier(scales: Array, kept: NDArray[np.int64], nsig: float) -> int | None:
    """The star whose scale deviates most, if it deviates too much; never one of the last two."""
    if len(kept) < 3:
        return None
    here = scales[kept]
    scatter = 1.4826 * float(np.median(np.abs(here - np.median(here))))
    far = np.abs(here - np.median(here)) > max(nsig * scatter, 0.05)
    return int(kept[np.argmax(np.where(far, np.abs(here - np.median(here)), -1.0))]) if far.any() else None


def _vectors(frame: Frame, common: CommonSpectrum, nstars: int) -> tuple[Array, Array, NDArray[np.uint32]]:
    """Calibration of each fiber: the common one through its resolution, with one variance for all."""
    shape = frame.flux.shape
    value, mask = np.zeros(shape), np.zeros(shape, np.uint32)
    middle = np.ascontiguousarray(frame.resolution_of(frame.nspec // 2).data)
    variance = common.variance_through(middle)
    for f in range(frame.nspec):
        bands = np.ascontiguousarray(frame.resolution_of(f).data)
        total = spread(bands, np.ones(frame.wave.size))
        value[f] = spread(bands, common.model) / np.where(total > 0.1, total, 1.0)
    _bridge(frame.wave, value)
    value[:, :_MARGIN] = value[:, _MARGIN : _MARGIN + 1]
    value[:, -_MARGIN:] = value[:, -_MARGIN - 1 : -_MARGIN]
    good = np.isfinite(variance) & (variance > 0)
    good[:_MARGIN] = good[_MARGIN]
    good[-_MARGIN:] = good[-_MARGIN - 1]
    inverse = np.where(np.isfinite(variance) & (variance > 0), 1.0 / np.where(variance > 0, variance, 1.0), 0.0)
    inverse[:_MARGIN], inverse[-_MARGIN:] = inverse[_MARGIN], inverse[-_MARGIN - 1]
    ok = good[None, :] & (value > 0)
    mask[~ok] = np.uint32(SpecMask.LOWFLAT)
    return np.where(ok, value, 0.0), np.where(ok, inverse[None, :], 0.0), mask


def _bridge(wave: Array, value: Array) -> None:
    """Straight lines through the bins beside interstellar absorption in its place, in all rows of `value`.

    The bins are those after the resolution: before it, single ones are hardly determined.
    """
    absorbed = (np.abs(wave[:, None] - np.array(_ABSORBED)) < _HALF).any(axis=1)
    for run in np.split(np.flatnonzero(absorbed), np.flatnonzero(np.diff(np.flatnonzero(absorbed)) > 1) + 1):
        if not run.size:
            continue
        near = (wave > wave[run[0]] - _BESIDE) & (wave < wave[run[-1]] + _BESIDE) & ~absorbed
        if near[: run[0]].any() and near[run[-1] :].any():
            middle = wave[run].mean()
            slope = np.polynomial.polynomial.polyfit(wave[near] - middle, value[:, near].T, 1)
            value[:, run] = slope[0][:, None] + slope[1][:, None] * (wave[run] - middle)
