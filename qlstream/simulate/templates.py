"""Spectra of the simulated targets: simple shapes with the breaks and lines that a pipeline looks for.

Every function gives flux per Angstrom in an arbitrary unit at vacuum wavelengths in the rest frame; `targets` redshifts
and normalises them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SPEED_OF_LIGHT = 299792.458  # km/s
NANOMAGGY = 3.631e-29  # erg/s/cm^2/Hz
BANDS = {"G": (4000.0, 5500.0), "R": (5700.0, 7100.0), "Z": (8500.0, 9990.0)}  # top hats near the DECam filters
BAND_WAVE = np.arange(3950.0, 10000.0, 2.0)  # where `band_flux` needs a spectrum [Angstrom]

_BALMER = (6564.61, 4862.68, 4341.68, 4102.89, 3971.20, 3890.15, 3836.47, 3798.98)
_GALAXY_EMISSION = (
    (3727.09, 0.7), (3729.88, 1.0), (3869.86, 0.12), (4862.68, 0.5), (4960.30, 0.35), (5008.24, 1.05), (6564.61, 1.6),
)  # fmt: skip
_QSO_EMISSION = ((1215.67, 80.0), (1549.06, 40.0), (1908.73, 25.0), (2799.12, 35.0), (4862.68, 60.0), (6564.61, 200.0))
_OLD_ABSORPTION = (
    (3934.78, 0.5, 9.0), (3969.59, 0.5, 9.0), (4305.6, 0.25, 14.0), (4862.68, 0.1, 7.0), (5176.6, 0.22, 18.0),
    (5895.6, 0.18, 7.0),
)  # fmt: skip


def star(wave: Array, temperature: float, logg: float = 4.0, feh: float = -1.5) -> Array:
    """A black body of 5000-10000 K with Balmer lines that strengthen with temperature, and metals that weaken.

    Gravity `logg` [cm/s2, log10] widens the Balmer lines and weakens their jump; metals follow `feh` [dex].
    """
    hot = np.clip((temperature - 5000.0) / 4000.0, 0.05, 1.0)
    jump = 0.25 * hot * (1.0 - 0.2 * (logg - 4.0))
    flux = _black_body(wave, temperature) * (1.0 - jump / (1.0 + np.exp((wave - 3680.0) / 25.0)))
    width = (4.0 + 7.0 * hot) * (1.0 + 0.25 * (logg - 4.0))
    for n, center in enumerate(_BALMER):
        flux = flux * (1.0 - 0.6 * hot * 0.97**n / (1.0 + ((wave - center) / width) ** 2))
    metals = min(10.0 ** (0.25 * (feh + 1.5)), 1.9)
    for center, depth, sigma in _OLD_ABSORPTION:
        flux = flux * (1.0 - metals * depth * (1.0 - hot) * _bump(wave, center, sigma))
    return flux


def old_galaxy(wave: Array) -> Array:
    """An old population: 4000 Angstrom break, calcium, G band, magnesium, sodium."""
    step = 0.45 + 0.55 / (1.0 + np.exp(-(wave - 3995.0) / 20.0))
    flux = _black_body(wave, 4600.0) * step
    for center, depth, sigma in _OLD_ABSORPTION:
        flux = flux * (1.0 - depth * _bump(wave, center, sigma))
    return flux


def star_forming_galaxy(wave: Array, width: float) -> Array:
    """A blue continuum with [O II], H beta, [O III], H alpha; `width` is the [O II] equivalent width [Angstrom]."""
    flux = (wave / 4000.0) ** -1.6 * (1.0 - 0.4 / (1.0 + np.exp((wave - 3700.0) / 30.0)))
    for center, ratio in _GALAXY_EMISSION:
        sigma = center * 80.0 / SPEED_OF_LIGHT
        flux = flux + 0.6 * width * ratio * (center / 4000.0) ** -1.6 * _line(wave, center, sigma)
    return flux


def quasar(wave: Array, slope: float) -> Array:
    """A power law with broad lines; bluewards of Lyman alpha the forest absorbs a third."""
    flux = (wave / 3000.0) ** slope
    for center, width in _QSO_EMISSION:
        flux = flux + width * (center / 3000.0) ** slope * _line(wave, center, center * 2500.0 / SPEED_OF_LIGHT)
    return flux * np.where(wave < 1215.67, 0.65, 1.0) * np.where(wave < 912.0, 0.05, 1.0)


def band_flux(spectrum: Array) -> dict[str, float]:
    """AB fluxes [nanomaggy] of a spectrum [1e-17 erg/s/cm2/Angstrom] on BAND_WAVE, photon weighted in each band."""
    fluxes = {}
    for band, (first, last) in BANDS.items():
        inside = (first <= BAND_WAVE) & (last > BAND_WAVE)
        wave = BAND_WAVE[inside]
        per_hertz = 1e-17 * (spectrum[inside] * wave).sum() / (2.99792458e18 / wave).sum()
        fluxes[band] = float(per_hertz / NANOMAGGY)
    return fluxes


def _black_body(wave: Array, temperature: float) -> Array:
    return np.asarray((wave / 5000.0) ** -5.0 / np.expm1(1.4387769e8 / (wave * temperature)))


def _bump(wave: Array, center: float, sigma: float) -> Array:
    return np.asarray(np.exp(-0.5 * ((wave - center) / sigma) ** 2))


def _line(wave: Array, center: float, sigma: float) -> Array:
    """A Gaussian of unit area."""
    return _bump(wave, center, sigma) / (np.sqrt(2.0 * np.pi) * sigma)
