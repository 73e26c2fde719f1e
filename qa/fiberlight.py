"""How much of a target's light should reach its fiber, and how much did."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from speclite import filters

from algorithms.expected import ExpectedRows
from qlstream.datamodel.fibermap import Fibermap

Array = NDArray[np.float64]

_IMAGING_SEEING, _IMAGING_APERTURE = 1.0, 1.5  # FWHM and diameter that FIBERFLUX is for [arcsec]
_NANOMAGGY = 1e-9 * 0.10885 / 1e-17  # flux density of a nanomaggy times wavelength squared [1e-17 erg/s/cm2 Angstrom]


def aperture_fraction(diameter: float, seeing: float, half_light: ArrayLike = 0.0) -> Array:
    """Fraction of the light of a centered source that enters a round aperture, all taken as Gaussians.

    For a point source, 1.5 arcsec and 1.0 arcsec seeing it is the 0.789 of the imaging surveys' fiber fluxes (spec
    offline-reduction §9).

    Parameters
    ----------
    diameter, seeing : of the aperture; FWHM [arcsec]
    half_light : half-light radius of the source, 0 for a point source [arcsec]
    """
    sigma2 = (seeing / 2.3548) ** 2 + (np.asarray(half_light, dtype=float) / 1.1774) ** 2
    return np.asarray(1.0 - np.exp(-0.5 * (0.5 * diameter) ** 2 / sigma2))


def expected_flux(fibermap: Fibermap, band: str, diameter: float, seeing: float) -> Array:
    """(nspec,) flux of each target that enters a well-placed fiber [nanomaggy]; NaN where the imaging has none.

    FIBERFLUX of the band, from the imaging's seeing and aperture to those of the exposure by the size SHAPE_R; where
    only the total FLUX is known, the fraction of it that a source of that size sends into the fiber.
    """
    size = np.nan_to_num(fibermap.column("SHAPE_R", 0.0).astype(float))
    inside = aperture_fraction(diameter, seeing, size)
    total = fibermap.column(f"FLUX_{band}", np.nan).astype(float)
    through = fibermap.column(f"FIBERFLUX_{band}", np.nan).astype(float)
    through = through * inside / aperture_fraction(_IMAGING_APERTURE, _IMAGING_SEEING, size)
    flux = np.where(through > 0, through, total * inside)
    return np.where(flux > 0, flux, np.nan)


@dataclass(frozen=True)
class Light:
    """Mean counts per row of every fiber in a filter; NaN where a fiber has no information.

    Attributes
    ----------
    counts, error : (nspec,) of the target, and the standard error [electron per row]
    sky : (nspec,) of the sky that was subtracted [electron per row]
    per_flux : (nspec,) counts per row that 1 nanomaggy would give; 0 if no calibration was given
    """

    counts: Array
    error: Array
    sky: Array
    per_flux: Array


def band_light(
    expected: ExpectedRows,
    wave: Array,
    sky: NDArray[np.float32] | None,
    curve: str,
    calibration: tuple[Array, Array] | None = None,
    wave_range: tuple[float, float] = (0.0, float("inf")),
) -> Light:
    """Light of every fiber in a filter.

    Without a calibration the mean is weighted against noise: good for comparing fibers of one camera. With one it is
    weighted as the filter weights photons above the atmosphere, so that the color of a target does not matter.

    Parameters
    ----------
    expected : of sky-subtracted counts
    wave : (nspec, ny) [Angstrom]
    sky : (nspec, ny) that was subtracted [electron per row], or None
    curve : name of the filter
    calibration : wavelengths [Angstrom] and electrons per Angstrom for a flux of 1e-17 erg/s/cm2/Angstrom, or None
    wave_range : rows outside do not count [Angstrom]
    """
    filter_wave, response = filter_of(curve)
    per_flux = np.zeros_like(response)
    if calibration is not None:
        per_flux = np.interp(filter_wave, *calibration, left=0.0, right=0.0) * _NANOMAGGY / filter_wave**2
    nothing = np.zeros((0, 0), np.float32)
    found = _band_light(expected.flux, expected.signal, expected.background, nothing if sky is None else sky, wave,
                        filter_wave, response, per_flux, *wave_range)  # fmt: skip
    return Light(*found.T)


@cache
def filter_of(name: str) -> tuple[Array, Array]:
    """Wavelengths [Angstrom] and response of a filter by its speclite name."""
    curve = filters.load_filter(name)
    return np.asarray(curve.wavelength, dtype=float), np.asarray(curve.response, dtype=float)


@njit(nogil=True, cache=True)
def _band_light(  # type: ignore[no-untyped-def]
    flux, signal, background, sky, wave, filter_wave, response, per_flux, low, high
):
    nspec, ny = flux.shape
    out = np.full((nspec, 4), np.nan)
    is_calibrated = per_flux.max() > 0
    low, high = max(low, filter_wave[0]), min(high, filter_wave[-1])
    for f in range(nspec):
        k = 0
        weights, light, variance, level, unit = 0.0, 0.0, 0.0, 0.0, 0.0
        first, last = np.searchsorted(wave[f], low, "right"), np.searchsorted(wave[f], high)
        for j in range(first, last):
            x, b = wave[f, j], background[f, j]
            if b <= 0:
                continue
            while filter_wave[k + 1] < x:
                k += 1
            share = (x - filter_wave[k]) / (filter_wave[k + 1] - filter_wave[k])
            w = response[k] + share * (response[k + 1] - response[k])
            if is_calibrated:
                width = 0.5 * (wave[f, min(j + 1, ny - 1)] - wave[f, max(j - 1, 0)])
                counts = width * (per_flux[k] + share * (per_flux[k + 1] - per_flux[k]))
                if counts <= 0:
                    continue
                w *= width / (x * counts)  # makes it the mean of f_nu over T dlambda / lambda
                unit += w * counts
            else:
                w /= b
            weights += w
            light += w * flux[f, j]
            variance += w * w * (b + max(signal[f, j], 0.0))
            if sky.shape[0] > 0:
                level += w * sky[f, j]
        if weights > 0:
            out[f, 0] = light / weights
            out[f, 1] = np.sqrt(variance) / weights
            out[f, 2] = level / weights
            out[f, 3] = unit / weights
    return out
