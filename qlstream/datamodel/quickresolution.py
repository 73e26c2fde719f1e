"""The quick resolution matrix: Gaussian, from the widths of the lines alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from qlstream.datamodel.resolution import Resolution, gaussian_bands
from qlstream.numeric import legendre

QUICK_NDIAG = 9


class QuickResolution(Resolution):
    """A `Resolution` from Gaussian line widths, or from a Legendre series of them (spec preproc-and-extraction §10.2).

    Widths are in bins of the spectrum that the matrix belongs to. The seed took CCD pixels for bins, which made its
    matrices too wide by 1.4 on a grid of 0.8 Angstrom; `BoxcarExtract` converts.

    Parameters
    ----------
    sigma : (nwave,) Gaussian sigma of each bin [bin]
    coefficients : (ncoef,) Legendre coefficients of sigma over `domain` [bin], in place of `sigma`
    wavelengths : (nwave,) where the series is evaluated [Angstrom]
    domain : (wavemin, wavemax) of the series [Angstrom]; default the first and last of `wavelengths`
    ndiag : number of diagonals, odd
    mu : common offset of all lines, towards smaller indices [bin]

    Raises
    ------
    ValueError : ndiag is even; neither sigma nor coefficients and wavelengths are given; a width is not positive
    """

    def __init__(
        self,
        *,
        sigma: ArrayLike | None = None,
        coefficients: ArrayLike | None = None,
        wavelengths: ArrayLike | None = None,
        domain: tuple[float, float] | None = None,
        ndiag: int = QUICK_NDIAG,
        mu: float = 0.0,
    ) -> None:
        if sigma is None:
            if coefficients is None or wavelengths is None:
                raise ValueError("QuickResolution needs sigma, or coefficients and wavelengths")
            wave = np.asarray(wavelengths, dtype=float)
            u = legendre.reduced(wave, *(domain or (float(wave[0]), float(wave[-1]))))
            sigma = legendre.evaluate(np.atleast_2d(np.asarray(coefficients, dtype=float)), u)
        self.data = gaussian_bands(np.atleast_2d(np.asarray(sigma)), ndiag, mu, np.float64)[0]
