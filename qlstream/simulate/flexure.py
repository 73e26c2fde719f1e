"""How far the spectra of an exposure lie from where the calibration PSF has them.

The displacement is a smooth field over the CCD: a constant part of some tenths of a pixel since the PSF was measured,
a slow thermal drift through the night, and a part that comes with the pointing of the telescope. Lamp exposures are
taken with the telescope parked, so a flat lies within thousandths of a pixel of the arcs beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qlstream.simulate.optics import Optics
from qlstream.simulate.schedule import Exposure
from qlstream.simulate.seeds import generator

Array = NDArray[np.float64]

NWAVE = 40
_CONSTANT = np.eye(6)[0]
_SIZE = np.array([0.2, 0.06, 0.06, 0.03, 0.03, 0.03])  # of the terms 1, X, Y, X^2, XY, Y^2 [pixel]


@dataclass(frozen=True)
class Flexure:
    """The displacement field of one camera in one exposure.

    Attributes
    ----------
    coef_x, coef_y : (6,) float64, factors of 1, X, Y, X^2, XY, Y^2 [pixel]; X and Y run from -1 to 1 over the CCD
    focus : factor on the widths of all spots
    """

    coef_x: Array
    coef_y: Array
    focus: float = 1.0

    def displaced(self, dx: float, dy: float) -> Flexure:
        """The same with all spectra moved by (dx, dy) [pixel]."""
        return replace(self, coef_x=self.coef_x + dx * _CONSTANT, coef_y=self.coef_y + dy * _CONSTANT)

    def shifts(self, optics: Optics) -> tuple[Array, Array, Array]:
        """(wave, dx, dy): (n,) [Angstrom], and two (nspec, n) [pixel], along every trace."""
        traces = optics.traces
        ny, nx = optics.shape
        wave = np.linspace(traces.wavemin, traces.wavemax, NWAVE)
        x = 2.0 * traces.x_vs_wave(wave) / (nx - 1) - 1.0
        y = 2.0 * traces.y_vs_wave(wave) / (ny - 1) - 1.0
        terms = np.stack([np.ones_like(x), x, y, x**2, x * y, y**2])
        return wave, np.tensordot(self.coef_x, terms, 1), np.tensordot(self.coef_y, terms, 1)

    def applied_to(self, optics: Optics) -> Optics:
        """The optics as they are in this exposure."""
        wave, dx, dy = self.shifts(optics)
        traces = optics.traces.shifted(dx, dy, wave)
        if traces.xsigcoef is None or traces.ysigcoef is None:
            raise ValueError("these traces carry no widths; optics are built with them")
        xsigcoef, ysigcoef = traces.xsigcoef * self.focus, traces.ysigcoef * self.focus
        return replace(optics, traces=replace(traces, xsigcoef=xsigcoef, ysigcoef=ysigcoef))


def draw_flexure(camera: str, exposure: Exposure, seed: int, focus: float = 1.0) -> Flexure:
    """The flexure of an exposure. `focus` multiplies the widths, beside their own 0.3 % scatter."""
    static = generator(seed, camera, "flexure")
    since, drift = static.normal(0.0, _SIZE, (2, 6)), static.normal(0.0, 0.1 * _SIZE, (2, 6))  # pixel, pixel per hour
    own = generator(seed, exposure.night, exposure.expid, camera, "flexure")
    moved = own.normal(0.0, (0.25 if exposure.flavor == "science" else 0.005) * _SIZE, (2, 6))
    hours = 24.0 * ((exposure.mjd + 0.375) % 1.0 - 0.5)  # from 3 h UT, early in the night; jumps at 15 h, by day
    coef = since + drift * hours + moved
    return Flexure(coef[0], coef[1], focus * (1.0 + own.normal(0.0, 0.003)))
