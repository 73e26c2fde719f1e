"""How far a calibration may be off because the stars are hotter or cooler than their models."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.stars import StdStars

Array = NDArray[np.float64]

_SCALE_AT = 6400.0  # where photometry sets the scale of the models [Angstrom]
_PLANCK = 1.4387769e8  # h c / k [Angstrom K]


def temperature_error(wave: Array, stars: StdStars, share: Array) -> Array:
    """(nwave,) relative error of a vector to which each star contributes its share.

    A spectrum that is too hot is too blue, as a black body is, since its magnitude in r is right anyway. Stars whose
    file tells no TEFF_ERR count as known.

    Parameters
    ----------
    share : (nstar,) weights, 0 for stars that took no part; they sum to 1
    """
    if "TEFF_ERR" not in (stars.metadata.dtype.names or ()):
        return np.zeros(wave.size)
    teff, error = (stars.metadata[name].astype(float)[:, None] for name in ("TEFF", "TEFF_ERR"))
    slope = _slope(wave[None], teff) - _slope(np.full((1, 1), _SCALE_AT), teff)
    return np.asarray(np.sqrt(((share[:, None] * slope * error) ** 2).sum(axis=0)))


def _slope(wave: Array, teff: Array) -> Array:
    """Change of the logarithm of a black body with its temperature [1/K]."""
    x = _PLANCK / (wave * teff)
    return np.asarray(x / teff / -np.expm1(-x))
