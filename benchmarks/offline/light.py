"""The light of a simulated science exposure before the optics of the spectrograph, as no product can know it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.offline.night import Night
from qlstream.numeric.deconvolution import spread
from qlstream.simulate.exposure import build_camera
from qlstream.simulate.schedule import CLEAR, Exposure
from qlstream.simulate.seeds import generator
from qlstream.simulate.skylight import draw_sky
from qlstream.simulate.throughput import atmosphere, fiber_fraction

Array = NDArray[np.float64]

_LOBES = 12  # of the windowed sinc that puts a line between two bins


@dataclass(frozen=True)
class Light:
    """Of one camera of one exposure, all on its wavelength grid.

    Attributes
    ----------
    sky, target : (nspec, nwave) [electron/Angstrom] that reach the CCD, unresolved
    flux : (nspec, nwave) [1e-17 erg/s/cm2/Angstrom] above the atmosphere; of a resolved source the part that a fiber
        at its place would catch of it, over the part of a point, since that is what calibrated spectra hold
    calibration : (nspec, nwave) [electron/Angstrom] after a perfect fiber flat, for a point source of unit flux
    """

    sky: Array
    target: Array
    flux: Array
    calibration: Array


def light_of(night: Night, exposure: Exposure, camera: str, wave: Array) -> Light:
    """What the simulation let into the fibers."""
    instrument = night.instrument
    through = build_camera(instrument, camera, night.seed).throughput
    fibers = instrument.fibers(camera)
    targets = night.targets(exposure)
    own = through.of_fibers(wave)
    perfect = through.electrons(wave) * exposure.exptime
    air = atmosphere(wave, exposure.airmass) * (exposure.transparency / CLEAR)
    offset = np.hypot(targets.rows["DELTA_X"][fibers], targets.rows["DELTA_Y"][fibers]) / 254.0 * 3600.0
    point = fiber_fraction(instrument, exposure.seeing, offset)[:, None]
    enters = targets.entering(instrument, fibers, exposure.seeing)[:, None]
    flux = targets.spectra(fibers, wave) * enters / point

    glow = draw_sky(generator(night.seed, exposure.night, exposure.expid, "sky"), exposure.moonlight)
    area = np.pi * (0.5 * instrument.fiber_diameter) ** 2
    sky = own * (perfect * glow.continuum(wave) * area)
    for at, strength in zip(*glow.lines(), strict=True):
        electrons = through.electrons(np.array([at]))[0] * exposure.exptime * strength * area
        sky += own * (electrons * _between_bins(wave, at))
    middle = np.median(own, axis=0)
    return Light(sky, flux * point * own * (perfect * air), flux, point * (middle * perfect * air))


def _between_bins(wave: Array, at: float) -> Array:
    """(nwave,) density of a line of one electron at any place, as the samples of a band-limited one."""
    step = wave[1] - wave[0]
    t = (wave - at) / step
    return np.asarray(np.where(np.abs(t) < _LOBES, np.sinc(t) * np.sinc(t / _LOBES), 0.0) / step)


def through_resolution(resolution: NDArray[np.floating], spectra: Array) -> Array:
    """(nspec, nwave) each spectrum through the bands (nspec, ndiag, nwave) of its own resolution matrix."""
    pairs = zip(resolution, spectra, strict=True)
    return np.stack([spread(np.ascontiguousarray(bands, dtype=float), row) for bands, row in pairs])
