"""What classes of targets look like where redshifts are told: the templates of TSNR2 (spec offline-reduction §10).

A template holds dF, what a spectrum has beyond its own mean over 100 Angstrom (lines and breaks), rms over an ensemble
of redshifts. The spectra are simple ones, made here: their absolute scale means nothing, so that a TSNR2 wants that of
nominal conditions beside it (`algorithms.tsnr2.nominal`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, uniform_filter1d

from qlstream.instrument import Arm
from qlstream.simulate import templates

Array = NDArray[np.float64]

_SMOOTHED = 100.0  # width of the mean that is taken off a template [Angstrom]
_NREDSHIFT = 48
TRACERS = ("ELG", "LRG", "QSO", "LYA", "BGS", "GPBDARK", "GPBBRIGHT", "GPBBACKUP")  # of the SCORES tables
PROGRAMS = {"dark": "ELG", "bright": "BGS", "backup": "BGS"}  # the class that tells a program's effective time
TIMED = tuple(dict.fromkeys(PROGRAMS.values()))


@dataclass(frozen=True)
class Ensemble:
    """Targets that stand for a class.

    Attributes
    ----------
    spectrum : flux per Angstrom, in any unit, at wavelengths in the rest frame
    redshift : range
    magnitude : r [AB]
    half_light : half-light radius [arcsec]
    white : all of the light counts as dF, not only lines and breaks
    """

    spectrum: Callable[[Array], Array]
    redshift: tuple[float, float]
    magnitude: float
    half_light: float
    white: bool = False


def _white(wave: Array) -> Array:
    """The same flux per frequency everywhere."""
    return np.asarray((wave / 5000.0) ** -2.0)


# MWS and STAR are of the quicklook alone. The last three tell how much light of a flat spectrum an exposure gathers
# against its noise: of faint galaxies, of bright ones, of stars (15.8 and 27.5 nanomaggy in the variance of the latter)
ENSEMBLES = {
    "ELG": Ensemble(lambda wave: templates.star_forming_galaxy(wave, 60.0), (0.6, 1.6), 23.0, 0.45),
    "LRG": Ensemble(templates.old_galaxy, (0.4, 1.0), 21.3, 1.0),
    "QSO": Ensemble(lambda wave: templates.quasar(wave, -1.5), (0.4, 3.2), 22.0, 0.0),
    "LYA": Ensemble(lambda wave: templates.quasar(wave, -1.5), (2.1, 3.2), 22.0, 0.0),
    "BGS": Ensemble(templates.old_galaxy, (0.05, 0.5), 19.5, 1.5),
    "MWS": Ensemble(lambda wave: templates.star(wave, 5800.0), (0.0, 0.001), 18.0, 0.0),
    "STAR": Ensemble(lambda wave: templates.star(wave, 6500.0), (0.0, 0.001), 17.5, 0.0),
    "GPBDARK": Ensemble(_white, (0.0, 0.0), 23.0, 0.45, white=True),
    "GPBBRIGHT": Ensemble(_white, (0.0, 0.0), 19.5, 1.5, white=True),
    "GPBBACKUP": Ensemble(_white, (0.0, 0.0), 18.9, 0.0, white=True),
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
        mean = 0.0 if ensemble.white else uniform_filter1d(seen, round(_SMOOTHED / step), mode="nearest")
        flux += seen / _NREDSHIFT
        contrast2 += (seen - mean) ** 2 / _NREDSHIFT
    between_redshifts = round(0.5 * _SMOOTHED / step)  # a line steps by some 50 Angstrom from one to the next
    return Template(wave, flux, uniform_filter1d(contrast2, between_redshifts, mode="nearest"), ensemble.half_light)
