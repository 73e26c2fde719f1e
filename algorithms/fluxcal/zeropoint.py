"""What a calibration vector says of telescope and spectrograph: zero points and throughput (spec §9)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from algorithms.fluxcal.fiberloss import point_fraction
from qlstream.datamodel.fluxcalib import FrameFluxCalib

Array = NDArray[np.float64]

_UNIT = 1e-17  # of calibrated flux [erg/s/cm2/Angstrom]
_LIGHT = 2.99792458e18  # [Angstrom/s]
_PHOTON = 1.98644586e-8  # energy of a photon times its wavelength [erg Angstrom]


def zero_point(wave: ArrayLike, rate: ArrayLike) -> Array:
    """AB magnitude of a source that gives one electron per second and Angstrom; nan where `rate` is not positive.

    Parameters
    ----------
    wave : [Angstrom]
    rate : calibration vector over exposure time [electron/s per 1e-17 erg/s/cm2]
    """
    wave, rate = np.asarray(wave, dtype=float), np.asarray(rate, dtype=float)
    good = rate > 0
    per_hertz = _UNIT / np.where(good, rate, 1.0) * wave**2 / _LIGHT
    return np.where(good, -2.5 * np.log10(per_hertz) - 48.6, np.nan)


def throughput(wave: ArrayLike, rate: ArrayLike, area: float, fiber_fraction: float) -> Array:
    """Share of the photons above the atmosphere, that fall on the mirror and into a fiber, which become electrons.

    Parameters
    ----------
    wave, rate : as of `zero_point`
    area : of the mirror [cm2]
    fiber_fraction : share of a star's light that enters the fiber
    """
    wave, rate = np.asarray(wave, dtype=float), np.asarray(rate, dtype=float)
    return np.asarray(rate / _UNIT / area * _PHOTON / wave / fiber_fraction)


def calibration_cards(
    calib: FrameFluxCalib, exptime: float, area: float, seeing: float, fiber_diameter: float
) -> dict[str, Any]:
    """Cards of the median fiber at the middle of the grid: CALWAVE, CALVALUE, and per second CALZP and CALTHRU.

    Parameters
    ----------
    exptime : [s]
    area : of the mirror [cm2]
    seeing, fiber_diameter : [arcsec]
    """
    middle = calib.wave.size // 2
    near = slice(max(middle - 5, 0), middle + 6)
    value = np.where((calib.ivar > 0) & (calib.mask == 0), calib.value, np.nan)[:, near]
    if exptime <= 0 or not np.isfinite(value).any():
        return {}
    vector, wave = float(np.nanmedian(value)), float(calib.wave[middle])
    rate = vector / exptime
    caught = float(point_fraction(seeing, 0.0, fiber_diameter))
    return {
        "CALWAVE": wave,
        "CALVALUE": vector,
        "CALZP": round(float(zero_point(wave, rate)), 4),
        "CALTHRU": round(float(throughput(wave, rate, area, caught)), 5),
    }
