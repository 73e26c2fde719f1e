"""How much of the light becomes electrons: atmosphere, fiber aperture, telescope and spectrograph, fiber by fiber."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qlstream.datamodel.fluxcalib import FluxCalib
from qlstream.instrument import Arm, Instrument
from qlstream.simulate.seeds import generator

Array = NDArray[np.float64]

ERG_ANGSTROM = 1.98644586e-8  # energy of a photon times its wavelength
REFERENCE_AIRMASS, REFERENCE_SEEING = 1.13, 1.1

# Zenith extinction at Kitt Peak [mag], and its strong telluric bands: centre, Gaussian sigma [Angstrom], depth [mag]
_EXTINCTION = np.array(
    [
        (3500, 0.600), (3600, 0.538), (3800, 0.440), (4000, 0.365), (4250, 0.294), (4500, 0.243), (4750, 0.204),
        (5000, 0.181), (5500, 0.150), (6000, 0.133), (6500, 0.098), (7000, 0.075), (7500, 0.063), (8000, 0.053),
        (8500, 0.048), (9000, 0.043), (10000, 0.024),
    ]
)  # fmt: skip
_TELLURIC = (
    (6882.0, 12.0, 0.35), (7210.0, 35.0, 0.06), (7605.0, 9.0, 1.2), (7640.0, 16.0, 0.6), (8180.0, 45.0, 0.08),
    (9370.0, 55.0, 0.35), (9500.0, 70.0, 0.12),
)  # fmt: skip


@dataclass(frozen=True)
class Fibers:
    """The fibers of one spectrograph, the same in all its arms.

    Attributes
    ----------
    transmission : (nspec,) float64, about 1; 0 for a broken fiber
    is_broken, is_low, is_stuck : (nspec,) bool: broken, of low transmission, with a stuck positioner
    """

    transmission: Array
    is_broken: NDArray[np.bool_]
    is_low: NDArray[np.bool_]
    is_stuck: NDArray[np.bool_]


def build_fibers(instrument: Instrument, spectrograph: int, seed: int) -> Fibers:
    """Fibers with a scatter of 5 %; 0.5 % broken, as many of low transmission, 1 % stuck, each at least one."""
    rng = generator(seed, f"sp{spectrograph}", "fibers")
    nspec = instrument.nspec
    some, few = max(1, round(0.01 * nspec)), max(1, round(0.005 * nspec))
    chosen = rng.permutation(nspec)
    broken, low, stuck = (np.zeros(nspec, dtype=bool) for _ in range(3))
    broken[chosen[:few]] = True
    low[chosen[few : 2 * few]] = True
    stuck[chosen[2 * few : 2 * few + some]] = True
    transmission = np.clip(rng.normal(1.0, 0.05, nspec), 0.8, 1.2)
    transmission[low] *= 0.4
    transmission[broken] = 0.0
    return Fibers(transmission, broken, low, stuck)


@dataclass(frozen=True)
class Throughput:
    """Telescope, fibers, spectrograph and CCD of one camera.

    Attributes
    ----------
    arm : the arm
    area : collecting area [cm^2]
    fibers : of the spectrograph
    shape : (nspec, 4) float64, Legendre coefficients over the arm of each fiber's own spectral response
    """

    arm: Arm
    area: float
    fibers: Fibers
    shape: Array

    def of_arm(self, wave: ArrayLike) -> Array:
        """Fraction of photons detected through a perfect fiber; dichroics cut 60 Angstrom outside the science range."""
        wave = np.asarray(wave, dtype=float)
        first, last = self.arm.wave_science
        t = 2.0 * (wave - first) / (last - first) - 1.0
        edges = 1.0 / ((1.0 + np.exp(-(wave - first + 60.0) / 12.0)) * (1.0 + np.exp((wave - last - 60.0) / 12.0)))
        return np.asarray(self.arm.throughput * (1.0 - 0.3 * (t - 0.15) ** 2).clip(0.05) * edges)

    def of_fibers(self, wave: Array) -> Array:
        """(nspec, n) factor of each fiber on top of `of_arm`, at `wave` (n,) or (nspec, n)."""
        first, last = self.arm.wave_on_ccd
        t = np.clip(2.0 * (wave - first) / (last - first) - 1.0, -1.2, 1.2)
        series = sum(
            self.shape[:, k, None] * np.polynomial.legendre.Legendre.basis(k)(t) for k in range(self.shape.shape[1])
        )
        return np.asarray(self.fibers.transmission[:, None] * series)

    def relative(self, wave: Array) -> Array:
        """(nspec, n) what a perfect fiber flat measures: each fiber against the median fiber at that wavelength."""
        sample = np.linspace(wave.min(), wave.max(), 400)
        median = np.interp(wave, sample, np.median(self.of_fibers(sample), axis=0))
        return self.of_fibers(wave) / median

    def electrons(self, wave: Array) -> Array:
        """(n,) electrons per second and Angstrom, in a perfect fiber, per 1e-17 erg/s/cm^2/Angstrom that enter it."""
        return 1e-17 * self.area * wave / ERG_ANGSTROM * self.of_arm(wave)

    def fluxcalib(self, instrument: Instrument) -> FluxCalib:
        """The average flux calibration of a point source in the median fiber, as a calibration tree holds it."""
        wave = np.arange(self.arm.wave_on_ccd[0] - 100.0, self.arm.wave_on_ccd[1] + 100.0, 1.0)
        median = np.median(self.of_fibers(wave), axis=0)
        enters = fiber_fraction(instrument, REFERENCE_SEEING, 0.0)
        slope = -2.5 * np.log10(fiber_fraction(instrument, REFERENCE_SEEING + 0.1, 0.0) / enters) / 0.1
        return FluxCalib(
            wave=wave,
            value=self.electrons(wave) * median * enters * atmosphere(wave, REFERENCE_AIRMASS),
            airmass_term=-2.5 * np.log10(atmosphere(wave, 1.0)),
            seeing_term=np.full(wave.shape, slope),
            airmass=REFERENCE_AIRMASS,
            seeing=REFERENCE_SEEING,
        )


def build_throughput(instrument: Instrument, camera: str, seed: int) -> Throughput:
    """The throughput of a camera: fibers differ by some percent, smoothly with wavelength."""
    fibers = build_fibers(instrument, instrument.spectrograph(camera), seed)
    rng = generator(seed, camera, "throughput")
    shape = rng.normal(0.0, [0.01, 0.015, 0.006, 0.003], (instrument.nspec, 4))
    shape[:, 0] += 1.0
    return Throughput(instrument.arm(camera), instrument.mirror_area, fibers, shape)


def atmosphere(wave: Array, airmass: float) -> Array:
    """(n,) fraction of starlight that reaches the ground."""
    extinction = np.interp(wave, *_EXTINCTION.T)
    for center, sigma, depth in _TELLURIC:
        extinction = extinction + depth * np.exp(-0.5 * ((wave - center) / sigma) ** 2)
    return np.asarray(10.0 ** (-0.4 * airmass * extinction))


def fiber_fraction(instrument: Instrument, seeing: float, offset: ArrayLike, half_light: ArrayLike = 0.0) -> Array:
    """Fraction of an object's light that enters its fiber: a Gaussian image in a round aperture.

    Parameters
    ----------
    seeing : FWHM [arcsec]
    offset : distance of the fiber from the object [arcsec]
    half_light : half-light radius of a galaxy, 0 for a point source [arcsec]
    """
    sigma2 = (seeing / 2.3548) ** 2 + (np.asarray(half_light) / 1.1774) ** 2
    centered = 1.0 - np.exp(-0.5 * (0.5 * instrument.fiber_diameter) ** 2 / sigma2)
    return np.asarray(
        centered * np.exp(-0.5 * np.asarray(offset) ** 2 / (sigma2 + 0.25 * instrument.fiber_diameter**2 / 2))
    )
