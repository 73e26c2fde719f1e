"""TSNR2 of nominal conditions: what an effective time is measured in.

Nominal are a dark sky, the zenith, seeing of 1.1 arcsec, no clouds, no dust, the throughput of the flux calibration and
the instrument's typical read noise.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from algorithms.fluxcal.fiberloss import source_fraction
from algorithms.tsnr2.tracers import template_of
from qlstream.datamodel.fluxcalib import FluxCalib
from qlstream.instrument import Arm, Instrument
from qlstream.lines import sky_lines
from qlstream.simulate.skylight import Sky

Array = NDArray[np.float64]

NOMINAL_TIME, NOMINAL_SEEING, NOMINAL_AIRMASS = 1000.0, 1.1, 1.0  # [second], [arcsec]


def nominal_tsnr2(name: str, instrument: Instrument, arm: Arm, fluxcalib: FluxCalib, pixels: float) -> float:
    """TSNR2 of a class in one fiber after 1000 s of nominal conditions.

    Parameters
    ----------
    pixels : whose read noise a row of the extraction has: the width of a boxcar's window, or sqrt(4 pi) sigma of a fit
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
    variance = sky + pixels * arm.readnoise**2 + share * per_row * template.flux
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
