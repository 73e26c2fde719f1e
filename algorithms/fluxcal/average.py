"""The average flux calibration of a camera, from many exposures, with what airmass and seeing do to it (spec §9)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qlstream.calibration.served import MissingCalibration
from qlstream.datamodel.fluxcalib import FluxCalib, FrameFluxCalib

Array = NDArray[np.float64]

_FEWEST_FOR_A_TERM = 4  # exposures
_LEAST = 0.1, 0.2  # standard deviations of airmass and seeing [arcsec] below which a term is not told
_CLOUDS = 4.0  # [sigma of all exposures] by which a dim one is left out
_MOST = 0.5  # of the bins of the fullest exposure: one with less is none
_PASSES = 5


@dataclass(frozen=True)
class Conditions:
    """Of the exposures.

    Attributes
    ----------
    exptime : (n,) [s]
    airmass, seeing : (n,) [-], [arcsec]
    transparency : (n,) of the air against a clear night; nan where it was not measured
    """

    exptime: Array
    airmass: Array
    seeing: Array
    transparency: Array


def average_fluxcalib(
    wave: Array, vectors: Array, conditions: Conditions, with_airmass: bool = True, with_seeing: bool = True
) -> FluxCalib:
    """Average vector, and the change of its magnitude with airmass and seeing at each wavelength.

    At each wavelength lines are fitted to the magnitudes of the vectors, over exposure time and transparency, by least
    squares. Exposures without valid conditions, with less than half of the bins of the others, and those that are
    dimmer or brighter at all wavelengths than the others, do not count; bins that one of the rest lacks are 0, and so
    are terms for which the conditions hardly vary.

    Where transparency was not measured, all exposures are brought to the mean of their scales first: clouds would make
    airmass terms. Then the terms tell colour alone; their median over wavelength is 0.

    Parameters
    ----------
    wave : (nwave,) of one camera
    vectors : (n, nwave) of its exposures; see `mean_vector`

    Returns
    -------
    FluxCalib [electron/s/Angstrom per 1e-17 erg/s/cm2/Angstrom] at the median airmass and seeing; meta has NEXP, the
    number of exposures

    Raises
    ------
    MissingCalibration : no exposure has valid conditions and bins, or no bin is good in all of them
    """
    valid = (conditions.airmass >= 1) & (conditions.seeing > 0) & (conditions.exptime > 0)
    valid &= np.isfinite(conditions.airmass + conditions.seeing)
    number = np.isfinite(vectors).sum(axis=1)
    valid &= (number > 0) & (number >= _MOST * number.max(initial=0))
    if not valid.any():
        raise MissingCalibration(
            f"none of {len(vectors)} exposures has EXPTIME, an AIRMASS of at least 1 and a SEEING in its header, and "
            "good bins"
        )
    if not np.isfinite(vectors[valid]).all(axis=0).any():
        raise MissingCalibration(f"no bin is good in all of {valid.sum()} exposures; are they of one camera?")
    airmass, seeing = conditions.airmass[valid], conditions.seeing[valid]
    rate = vectors[valid] / conditions.exptime[valid][:, None]
    magnitude = -2.5 * np.log10(rate / _brightness(rate, conditions.transparency[valid])[:, None])
    pivots = float(np.median(airmass)), float(np.median(seeing))
    design = np.stack(
        [np.ones(airmass.size), (airmass - pivots[0]) * with_airmass, (seeing - pivots[1]) * with_seeing], axis=1
    )
    terms, kept = _fit(magnitude, design)
    return FluxCalib(
        wave=wave,
        value=np.nan_to_num(10.0 ** (-0.4 * terms[0])),
        airmass_term=np.nan_to_num(terms[1]),
        seeing_term=np.nan_to_num(terms[2]),
        airmass=pivots[0],
        seeing=pivots[1],
        meta={"NEXP": int(kept.sum())},
    )


def mean_vector(calib: FrameFluxCalib) -> Array:
    """(nwave,) median over the fibers of an exposure, each as if it stood on its star; nan where none is good."""
    to_point = np.ones(len(calib.value)) if calib.fibercorr is None else calib.fibercorr["FLAT_TO_PSF_FLUX"]
    good = (calib.ivar > 0) & (calib.mask == 0) & (calib.value > 0) & (to_point > 0)[:, None]
    values = np.where(good, calib.value * to_point[:, None], np.nan)
    known = good.any(axis=0)
    out = np.full(calib.wave.size, np.nan)
    out[known] = np.nanmedian(values[:, known], axis=0)
    return out


def _brightness(rate: Array, transparency: Array) -> Array:
    """(n,) by what to divide each exposure: what was measured, or else what makes them alike, 1 on average."""
    if (transparency > 0).all():
        return transparency
    told = np.isfinite(rate).all(axis=0)
    found = np.median(rate[:, told] / np.median(rate[:, told], axis=0), axis=1)
    return np.asarray(found / found.mean())


def _fit(magnitude: Array, design: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Terms (3, nwave), nan where an exposure does not tell, and which exposures made them."""
    kept = np.ones(len(magnitude), dtype=bool)
    told = np.isfinite(magnitude).all(axis=0)
    terms = np.full((design.shape[1], magnitude.shape[1]), np.nan)
    for _ in range(_PASSES):
        columns = np.array([0, *(n for n, least in enumerate(_LEAST, 1) if _tells(design[kept, n], least))])
        terms[:] = np.where(told, 0.0, np.nan)
        terms[np.ix_(columns, told)] = np.linalg.lstsq(design[kept][:, columns], magnitude[kept][:, told], rcond=None)[
            0
        ]
        offset = np.median((magnitude - design @ terms)[:, told], axis=1)
        scatter = 1.4826 * float(np.median(np.abs(offset[kept] - np.median(offset[kept]))))
        now = np.abs(offset - np.median(offset[kept])) <= max(_CLOUDS * scatter, 0.02)
        if (now == kept).all() or now.sum() < _FEWEST_FOR_A_TERM:
            break
        kept = now
    return terms, kept


def _tells(values: Array, least: float) -> bool:
    return values.size >= _FEWEST_FOR_A_TERM and float(np.std(values)) >= least
