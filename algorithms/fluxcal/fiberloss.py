"""How much of a source's light a fiber catches (spec offline-reduction §9, point-source correction)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import ncx2

Array = NDArray[np.float64]

FWHM = 2.3548  # of a Gaussian, in its sigma


def source_fraction(seeing: float, offset: ArrayLike, diameter: float, half_light: ArrayLike) -> Array:
    """Share of an extended source's light that enters a fiber.

    A source of half-light radius r counts as a Gaussian of sigma r / 1.1774, which seeing widens.

    Parameters
    ----------
    half_light : half-light radius [arcsec], 0 for points; more than 2 counts as 2
    """
    r50 = np.clip(np.nan_to_num(np.asarray(half_light, dtype=float)), 0.0, 2.0)
    return point_fraction(np.sqrt(seeing**2 + (FWHM * r50 / 1.1774) ** 2), offset, diameter)


def point_fraction(seeing: ArrayLike, offset: ArrayLike, diameter: float) -> Array:
    """Share of a point source's light that enters a fiber.

    Parameters
    ----------
    seeing : FWHM of a Gaussian image [arcsec]
    offset : distance of the source from the fiber's centre [arcsec]
    diameter : of the fiber [arcsec]
    """
    sigma = np.asarray(seeing, dtype=float) / FWHM
    # the squared distance from the fiber's centre, in sigma^2, is a noncentral chi2 of two degrees of freedom
    noncentral = np.maximum((np.asarray(offset, dtype=float) / sigma) ** 2, 1e-12)
    return np.asarray(ncx2.cdf((0.5 * diameter / sigma) ** 2, 2, noncentral))
