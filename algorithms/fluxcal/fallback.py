"""Calibration by the average of the instrument, where the stars of an exposure show too little light (spec §9)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from algorithms.fluxcal.starfit import StarData
from qlstream.calibration.served import MissingCalibration

Array = NDArray[np.float64]

_LEAST = 1e-4  # of a calibration vector: what is divided by


def scaled_average(stars: StarData, average: Array) -> tuple[Array, float]:
    """The average vector on the scale of the stars, and that scale: the weighted median of data over expectation.

    Clouds take all wavelengths alike, so one number is what few photons can tell.

    Parameters
    ----------
    stars : of the exposure
    average : (n,) [electron/Angstrom per 1e-17 erg/s/cm2/Angstrom] for its airmass, seeing and exposure time; 0 where
        it does not reach

    Raises
    ------
    MissingCalibration : the average does not cover the stars, or they show no light at all
    """
    expected = stars.seen(average)
    used = (stars.ivar > 0) & (expected > 0)
    if not used.any():
        raise MissingCalibration("the average flux calibration has no wavelength in common with the standard stars")
    ratio, weight = stars.data[used] / expected[used], stars.ivar[used] * expected[used] ** 2
    order = np.argsort(ratio)
    total = np.cumsum(weight[order])
    scale = float(ratio[order][np.searchsorted(total, 0.5 * total[-1])])
    if not scale > 0:
        raise MissingCalibration(f"the standard stars show no light: their median is {scale:.3g} of the average")
    return np.maximum(scale * average, _LEAST), scale
