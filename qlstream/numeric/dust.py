"""Extinction by the dust of the Galaxy (Fitzpatrick 1999, PASP 111, 63; R_V = 3.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

Array = NDArray[np.float64]

_RV = 3.1
# anchors of the optical and infrared spline for R_V = 3.1: wavelength [Angstrom] -> A / E(B-V) (his table 3)
_ANCHORS = ((26500.0, 0.265), (12200.0, 0.829), (6000.0, 2.688), (5470.0, 3.055), (4670.0, 3.806), (4110.0, 4.315),
            (2700.0, 6.265), (2600.0, 6.591))  # fmt: skip


def extinction(wave: Array) -> Array:
    """A(wave) / E(B-V) [mag] from 2600 Angstrom to the infrared."""
    inverse = np.array([0.0, *(1e4 / w for w, _ in _ANCHORS)])
    values = np.array([0.0, *(a for _, a in _ANCHORS)])
    return np.asarray(CubicSpline(inverse, values)(1e4 / np.asarray(wave, dtype=float)))


def transmission(wave: Array, ebv: float) -> Array:
    """Fraction of the light that passes dust of reddening `ebv` [mag]."""
    return np.asarray(10 ** (-0.4 * ebv * extinction(wave)))
