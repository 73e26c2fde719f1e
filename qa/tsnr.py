"""Template signal to noise: how much an exposure tells of each class of target, and the effective time it is worth.

TSNR2 = sum over rows of (calibration * dF)^2 / variance, where dF is what a class has beyond its own mean over 100
Angstrom (lines and breaks, which tell redshifts), rms over an ensemble of redshifts (spec offline-reduction §10). The
templates are made here, from simple spectra: their absolute scale means nothing, so the effective time compares the
exposure with what the same templates give in nominal conditions: dark sky, zenith, seeing 1.1 arcsec, no clouds, no
dust, with the throughput of the flux calibration and the instrument's typical read noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, uniform_filter1d

from qa.expected import ExpectedRows
from qa.fiberlight import aperture_fraction
from qlstream.datamodel.fluxcalib import FluxCalib
from qlstream.instrument import Arm, Instrument
from qlstream.lines import sky_lines
from qlstream.simulate import templates
from qlstream.simulate.skylight import Sky

Array = NDArray[np.float64]

NOMINAL_TIME, NOMINAL_SEEING, NOMINAL_AIRMASS = 1000.0, 1.1, 1.0  # [second], [arcsec]
_SMOOTHED = 100.0  # width of the mean that is taken off a template [Angstrom]
_NREDSHIFT = 48
_SAMPLES = 1000  # rows of a fiber that are summed over; every so-many-th of a longer one stands for its neighbours


@dataclass(frozen=True)
class Ensemble:
    """Targets that stand for a class: spectrum, redshifts, r magnitude and half-light radius [arcsec]."""

    spectrum: Callable[[Array], Array]
    redshift: tuple[float, float]
    magnitude: float
    half_light: float


ENSEMBLES = {
    "ELG": Ensemble(lambda wave: templates.star_forming_galaxy(wave, 60.0), (0.6, 1.6), 23.0, 0.45),
    "LRG": Ensemble(templates.old_galaxy, (0.4, 1.0), 21.3, 1.0),
    "QSO": Ensemble(lambda wave: templates.quasar(wave, -1.5), (0.4, 3.2), 22.0, 0.0),
    "BGS": Ensemble(templates.old_galaxy, (0.05, 0.5), 19.5, 1.5),
    "MWS": Ensemble(lambda wave: templates.star(wave, 5800.0), (0.0, 0.001), 18.0, 0.0),
    "STAR": Ensemble(lambda wave: templates.star(wave, 6500.0), (0.0, 0.001), 17.5, 0.0),
}


@dataclass(frozen=True)
class Template:
    """What a class of targets sends to an arm, on a uniform grid, above the atmosphere.

    Attributes
    ----------
    wave : (n,) [Angstrom]
    flux : (n,) mean over the ensemble [1e-17 erg/s/cm2/Angstrom]
    contrast2 : (n,) mean square of dF over the ensemble, at the arm's resolution [(1e-17 erg/s/cm2/Angstrom)^2]
    half_light : of the targets [arcsec]
    """

    wave: Array
    flux: Array
    contrast2: Array
    half_light: float


@lru_cache(maxsize=64)
def template_of(name: str, arm: Arm) -> Template:
    """The template of a class in an arm."""
    ensemble = ENSEMBLES[name]
    row = 0.5 * sum(arm.dispersion)
    step = min(0.5, 0.5 * row)
    low, high = arm.wave_science
    wave = np.arange(low - _SMOOTHED, high + _SMOOTHED, step)
    resolution = row * float(np.hypot(arm.ysigma, 12.0**-0.5)) / step
    flux, contrast2 = np.zeros_like(wave), np.zeros_like(wave)
    for redshift in np.linspace(*ensemble.redshift, _NREDSHIFT):
        shape = ensemble.spectrum(templates.BAND_WAVE / (1.0 + redshift))
        scale = 10.0 ** (0.4 * (22.5 - ensemble.magnitude)) / templates.band_flux(shape)["R"]
        seen = gaussian_filter1d(scale * ensemble.spectrum(wave / (1.0 + redshift)), resolution, mode="nearest")
        flux += seen / _NREDSHIFT
        contrast2 += (seen - uniform_filter1d(seen, round(_SMOOTHED / step), mode="nearest")) ** 2 / _NREDSHIFT
    between_redshifts = round(0.5 * _SMOOTHED / step)  # a line steps by some 50 Angstrom from one to the next
    return Template(wave, flux, uniform_filter1d(contrast2, between_redshifts, mode="nearest"), ensemble.half_light)


def nominal_tsnr2(name: str, instrument: Instrument, arm: Arm, fluxcalib: FluxCalib) -> float:
    """TSNR2 of a class in one fiber after 1000 s of nominal conditions."""
    template = template_of(name, arm)
    wave, row = template.wave, 0.5 * sum(arm.dispersion)
    inside = (wave > arm.wave_science[0]) & (wave < arm.wave_science[1])
    per_row = fluxcalib.at(wave, NOMINAL_AIRMASS, NOMINAL_SEEING) * NOMINAL_TIME * row  # electrons of a point source
    point = float(aperture_fraction(instrument.fiber_diameter, NOMINAL_SEEING))
    share = float(aperture_fraction(instrument.fiber_diameter, NOMINAL_SEEING, template.half_light)) / point
    extinction = np.interp(wave, fluxcalib.wave, fluxcalib.airmass_term)
    area = np.pi * (0.5 * instrument.fiber_diameter) ** 2
    sky = per_row * dark_sky(arm, wave[0], wave[-1], wave.size) * area / point * 10.0 ** (0.4 * extinction)
    readout = 2.0 * instrument.extraction_half_width * arm.readnoise**2
    variance = sky + readout + share * per_row * template.flux
    signal2 = (share * per_row) ** 2 * template.contrast2
    rows = (wave[1] - wave[0]) / row  # per step of the grid
    return float((signal2 / variance)[inside].sum() * rows)


@lru_cache(maxsize=16)
def dark_sky(arm: Arm, first: float, last: float, n: int) -> Array:
    """Moonless sky at the arm's resolution [1e-17 erg/s/cm2/Angstrom/arcsec2]."""
    wave = np.linspace(first, last, n)
    table = sky_lines()
    lines = np.histogram(
        table["wave"], bins=n, range=(first, last), weights=table["strength"]
    )[0] / (wave[1] - wave[0])  # fmt: skip
    resolution = 0.5 * sum(arm.dispersion) * float(np.hypot(arm.ysigma, 12.0**-0.5)) / (wave[1] - wave[0])
    return np.asarray(Sky().continuum(wave) + gaussian_filter1d(lines, resolution))


def tsnr2(
    expected: ExpectedRows,
    wave: Array,
    fibers: NDArray[np.int64],
    template: Template,
    calibration: tuple[Array, Array],
    share: Array,
    arm: Arm,
) -> Array:
    """(n,) TSNR2 of a class in these fibers; NaN without information.

    Parameters
    ----------
    expected : of flat-fielded, sky-subtracted counts
    wave : (nspec, ny) [Angstrom]
    fibers : (n,) indices
    calibration : wavelengths and electrons per Angstrom for 1e-17 erg/s/cm2/Angstrom of a point source
    share : (nspec,) factor of clouds, dust and the class's size on the light of the calibration's point source
    """
    electrons = np.interp(template.wave, *calibration, left=0.0, right=0.0)
    signal2, poisson = electrons**2 * template.contrast2, electrons * template.flux
    stride = max(1, wave.shape[1] // _SAMPLES)
    return _tsnr2(expected.background, wave, fibers, template.wave, signal2, poisson, share, *arm.wave_science, stride)


@njit(nogil=True, cache=True)
def _tsnr2(background, wave, fibers, grid, signal2, poisson, share, low, high, stride):  # type: ignore[no-untyped-def]
    ny = background.shape[1]
    out = np.full(fibers.size, np.nan)
    per_step = 1.0 / (grid[1] - grid[0])
    for i in range(fibers.size):
        f = fibers[i]
        total, have = 0.0, 0
        for j in range(1 + f % stride, ny - 1, stride):
            x = wave[f, j]
            if x <= low or x >= high:
                continue
            if background[f, j] <= 0:
                continue
            have += 1
            width = 0.5 * (wave[f, j + 1] - wave[f, j - 1])
            place = (x - grid[0]) * per_step
            k = int(place)
            t = place - k
            factor = share[f] * width
            s = (1.0 - t) * signal2[k] + t * signal2[k + 1]
            p = (1.0 - t) * poisson[k] + t * poisson[k + 1]
            total += factor * factor * s / (background[f, j] + factor * p)
        if have > 0:
            out[i] = stride * total
    return out
