"""The optics of one simulated camera: where each wavelength of each fiber falls, and how wide.

Shapes and amplitudes follow a measured PSF of a DESI r camera: a smile of about 100 rows that grows with wavelength,
traces that bow by some pixels, spacings that scatter by 0.06 pixel, rows that scatter by 0.2 pixel from fiber to fiber,
Gaussian cores that vary by several percent over the field, and Gauss-Hermite terms that raise the wings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.datamodel.traces import XYTraceSet
from qlstream.instrument import Arm, Instrument
from qlstream.numeric import legendre
from qlstream.simulate.seeds import generator

Array = NDArray[np.float64]

NCOEF_TRACE = 7
NCOEF_WIDTH = 4
DEGREES = (4, 6)  # of the Hermite terms; even, so that a spot's centroid stays on its trace
HERMITE_X = (-0.002, 0.004)
HERMITE_Y = (0.006, 0.004)
HALF_X, HALF_Y = 8, 7  # beyond these a spot holds less than 1e-8 of its light


@dataclass(frozen=True)
class Optics:
    """Traces and spots of one camera.

    A spot is the product of two profiles, X(x) and Y(y), each a Gaussian times 1 + sum_n h_n He_n (n = 4, 6).

    Attributes
    ----------
    traces : with the Gaussian core widths
    hermite_x, hermite_y : (nspec, 2) float64, h_4 and h_6 of each fiber
    shape : (ny, nx) of the trimmed CCD
    """

    traces: XYTraceSet
    hermite_x: Array
    hermite_y: Array
    shape: tuple[int, int]

    @property
    def psf(self) -> GaussHermitePSF:
        """The same spots in the format of the PSF files: GH-i-j = h_i h_j with h_0 = 1."""
        traces = self.traces
        if traces.xsigcoef is None or traces.ysigcoef is None:
            raise ValueError("these traces carry no widths; optics are built with them")
        coef = {"GHSIGX": traces.xsigcoef, "GHSIGY": traces.ysigcoef}
        along_x = {0: np.ones(traces.nspec), **dict(zip(DEGREES, self.hermite_x.T, strict=True))}
        along_y = {0: np.ones(traces.nspec), **dict(zip(DEGREES, self.hermite_y.T, strict=True))}
        for j in range(DEGREES[-1] + 1):
            for i in range(DEGREES[-1] + 1):
                term = np.zeros((traces.nspec, NCOEF_WIDTH))
                if i in along_x and j in along_y:
                    term[:, 0] = along_x[i] * along_y[j]
                coef[f"GH-{i}-{j}"] = term
        return GaussHermitePSF(
            traces,
            coef,
            traces.wavemin,
            traces.wavemax,
            ghdegx=DEGREES[-1],
            ghdegy=DEGREES[-1],
            hsizex=HALF_X,
            hsizey=HALF_Y,
            meta={"NPIX_X": self.shape[1], "NPIX_Y": self.shape[0]},
        )


def build_optics(instrument: Instrument, camera: str, seed: int) -> Optics:
    """The optics of a camera; the same for every exposure, since flexure moves spots but does not rebuild them."""
    arm = instrument.arm(camera)
    rng = generator(seed, camera, "optics")
    columns = instrument.trace_columns()
    u = 2.0 * columns / (arm.nx - 1) - 1.0  # across the CCD
    nspec = len(columns)

    y_sample = np.linspace(-0.03 * arm.ny, 1.03 * arm.ny, 60)
    v = 2.0 * y_sample / (arm.ny - 1) - 1.0  # along the CCD
    smile = arm.smile * (1.1 + 0.18 * v) * (u**2)[:, None]
    row = y_sample + smile + rng.normal(0.0, 0.2, (nspec, 1))
    bow = instrument.trace_bow * v**2 * (5 * u**3 - 4 * u)[:, None]
    column = columns[:, None] + rng.normal(0.0, 0.04, (nspec, 1)) + bow + rng.normal(0.0, 0.02, (nspec, 1)) * v
    wave = _wave_of_row(arm, y_sample)

    wavemin, wavemax = _domain(arm, wave, row)
    w = legendre.reduced(wave, wavemin, wavemax)
    traces = XYTraceSet(
        xcoef=legendre.fit(w, column, NCOEF_TRACE - 1),
        ycoef=legendre.fit(w, row, NCOEF_TRACE - 1),
        wavemin=wavemin,
        wavemax=wavemax,
        npix_y=arm.ny,
        xsigcoef=_widths(arm.xsigma, u, rng, slope=0.01, bend=-0.03),
        ysigcoef=_widths(arm.ysigma, u, rng, slope=0.06, bend=0.01),
        meta={"CAMERA": camera},
    )
    scatter = 1.0 + rng.normal(0.0, 0.1, (2, nspec, 1))
    return Optics(traces, np.array(HERMITE_X) * scatter[0], np.array(HERMITE_Y) * scatter[1], arm.shape)


def _wave_of_row(arm: Arm, row: Array) -> Array:
    """Wavelength of the middle fiber: the dispersion varies linearly and spans `wave_on_ccd` exactly."""
    blue, red = arm.dispersion
    t = row / (arm.ny - 1)
    first, last = arm.wave_on_ccd
    return np.asarray(first + (last - first) * (blue * t + 0.5 * (red - blue) * t**2) / (0.5 * (blue + red)))


def _domain(arm: Arm, wave: Array, row: Array) -> tuple[float, float]:
    """Every wavelength that some fiber has on the CCD, with a margin of a spot."""
    low = min(np.interp(-HALF_Y, r, wave) for r in row)
    high = max(np.interp(arm.ny + HALF_Y, r, wave) for r in row)
    return float(np.floor(low)), float(np.ceil(high))


def _widths(sigma: float, u: Array, rng: np.random.Generator, slope: float, bend: float) -> Array:
    """(nspec, 4) Legendre series of a width: smooth over the field, and 1 % from fiber to fiber."""
    coef = np.zeros((len(u), NCOEF_WIDTH))
    coef[:, 0] = 1.0 + 0.02 * (u**2 - 0.33) + 0.008 * rng.normal() * u + rng.normal(0.0, 0.01, len(u))
    coef[:, 1] = slope + 0.01 * u * rng.normal() + rng.normal(0.0, 0.003, len(u))
    coef[:, 2] = bend * (1.0 - 0.7 * u**2)
    coef[:, 3] = 0.005 * rng.normal()
    return sigma * coef
