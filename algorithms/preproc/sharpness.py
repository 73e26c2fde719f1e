"""How sharp the optics can make a spot, over the CCD."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from qlstream.datamodel.traces import XYTraceSet

CELL = 64  # pixels; spots hardly change over this distance
WIDEST = 3  # pixels; wider runs tell little: a spot may be as wide
_NWAVE = 17
_LARGE_SLANT = 0.01


@dataclass(frozen=True)
class SharpnessMap:
    """How far a run of 1, 2 or 3 pixels can stand out of the two pixels at its ends: ends / run, both summed.

    Any image is a sum of spots of light. The ratio of a spot is smallest where it is centred on the run; hence no sum
    of spots falls below it, be it a line, a blend or a continuum.

    Attributes
    ----------
    x, y : (ny / CELL, nx / CELL, WIDEST) float32, for runs along rows and along columns of 1, 2, ... pixels
    slant : (ny / CELL, nx / CELL) float32, how far a trace moves aside from row to row [pixel]
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    slant: NDArray[np.float32]


def smallest_ratio(sigma: NDArray[np.float64]) -> NDArray[np.float32]:
    """(..., WIDEST) ends / run of a Gaussian spot of width `sigma` [pixel], integrated over pixels."""
    edge = 0.5 * np.arange(1, WIDEST + 1) / (np.sqrt(2.0) * np.asarray(sigma)[..., None])  # half the run
    beyond = edge + 1.0 / (np.sqrt(2.0) * np.asarray(sigma)[..., None])
    return ((erf(beyond) - erf(edge)) / erf(edge)).astype(np.float32)


def sharpness_of_arm(shape: tuple[int, int], xsigma: float, ysigma: float) -> SharpnessMap:
    """One width for the whole CCD, and traces that bend as much as they may: where there is no PSF."""
    cells = ((shape[0] - 1) // CELL + 1, (shape[1] - 1) // CELL + 1)
    return SharpnessMap(
        smallest_ratio(np.full(cells, xsigma)),
        smallest_ratio(np.full(cells, ysigma)),
        np.full(cells, _LARGE_SLANT, np.float32),
    )


def sharpness_of_traces(shape: tuple[int, int], traces: XYTraceSet) -> SharpnessMap:
    """From the widths that a PSF gives to each fiber and wavelength.

    Between fibers and beyond the outermost the values are interpolated and held; the row of a wavelength is that of
    the median fiber, which is off by less than the smile: widths change little over that.

    Raises
    ------
    ValueError : the traces carry no widths
    """
    ny, nx = shape
    wave = np.linspace(traces.wavemin, traces.wavemax, _NWAVE)
    x, y = traces.x_vs_wave(wave), traces.y_vs_wave(wave)
    rows = np.median(y, axis=0)
    ycell = np.arange((ny - 1) // CELL + 1) * CELL + CELL / 2
    xcell = np.arange((nx - 1) // CELL + 1) * CELL + CELL / 2

    def on_cells(values: NDArray[np.float64]) -> NDArray[np.float64]:
        across = np.stack([np.interp(xcell, x[:, k], values[:, k]) for k in range(_NWAVE)])  # (wave, xcell)
        return np.stack([np.interp(ycell, rows, column) for column in across.T], axis=1)

    slant = np.abs(np.gradient(x, axis=1) / np.gradient(y, axis=1))
    return SharpnessMap(
        smallest_ratio(on_cells(traces.xsig_vs_wave(wave))),
        smallest_ratio(on_cells(traces.ysig_vs_wave(wave))),
        on_cells(slant).astype(np.float32),
    )
