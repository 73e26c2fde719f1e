"""TSNR2 of nominal conditions: what an effective time is measured in.

Nominal are a dark sky, the zenith, seeing of 1.1 arcsec, no clouds, no dust, the throughput of the flux calibration and
the instrument's typical read noise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.special import erf

from algorithms.fluxcal.fiberloss import source_fraction
from algorithms.tsnr2.tracers import template_of
from qlstream.datamodel.fluxcalib import FluxCalib
from qlstream.instrument import Arm, Instrument
from qlstream.lines import sky_lines
from qlstream.simulate.skylight import Sky

Array = NDArray[np.float64]

NOMINAL_TIME, NOMINAL_SEEING, NOMINAL_AIRMASS = 1000.0, 1.1, 1.0  # [second], [arcsec]


def boxcar_variance(electrons: Array, readnoise: float, half_width: float) -> Array:
    """Variance of a row of so many electrons, summed over a window [electron^2].

    Parameters
    ----------
    half_width : of the window [pixel]
    """
    return electrons + 2.0 * half_width * readnoise**2


def fitted_variance(electrons: Array, readnoise: float, sigma: float) -> Array:
    """Variance of a row of so many electrons, fitted by its Gaussian profile P: 1 / sum P^2 / (N P + readnoise^2).

    It is more than photons and the read noise of sqrt(4 pi) sigma pixels together: the brighter a row, the more the fit
    takes from pixels of the wings.

    Parameters
    ----------
    sigma : of the profile across the trace [pixel]
    """
    reach = np.ceil(5.0 * sigma)
    edges = np.arange(-reach, reach + 2.0) - 0.5
    profile = np.diff(0.5 * erf(edges / (np.sqrt(2.0) * sigma)))[:, None]
    return np.asarray(1.0 / (profile**2 / (np.maximum(electrons, 0.0) * profile + readnoise**2)).sum(axis=0))


def nominal_tsnr2(
    name: str, instrument: Instrument, arm: Arm, fluxcalib: FluxCalib, row_variance: Callable[[Array], Array]
) -> float:
    """TSNR2 of a class in one fiber after 1000 s of nominal conditions.

    Parameters
    ----------
    row_variance : variance of rows of so many electrons by the way of extraction [electron^2]
    """
    template = template_of(name, arm)
    wave, row = template.wave, 0.5 * sum(arm.dispersion)
    inside = (wave > arm.wave_science[0]) & (wave < arm.wave_science[1])
    per_row = fluxcalib.at(wave, NOMINAL_AIRMASS, NOMINAL_SEEING) * NOMINAL_TIME * row  # electrons of a point source
    point = float(source_fraction(NOMINAL_SEEING, 0.0, instrument.fiber_diameter, 0.0))
    share = float(source_fraction(NOMINAL_SEEING, 0.0, instrument.fiber_diameter, template.half_light)) / point
    extinction = np.interp(wave, fluxcalib.wave, fluxcalib.airmass_term)
    area = np.pi * (0.5 * instrument.fiber_diameter) ** 2
    sky = per_row * dark_sky(arm, wave[0], wave[-1], wave.size) * area / point * 10.0 ** (0.4 * extinction)
    variance = row_variance(sky + share * per_row * template.flux)
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
