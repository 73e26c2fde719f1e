"""Where the light of each fiber is looked for in each row: a table that the kernels interpolate linearly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.traces import XYTraceSet

Array = NDArray[np.float64]

NODES = 257  # rows of the table; between them traces are straight to 1e-4 pixel
REACH = 3.3  # half width of the window [sigma]


@dataclass(frozen=True)
class Windows:
    """Windows at NODES rows, evenly from the first to the last row of the CCD.

    Attributes
    ----------
    center : (nspec, NODES) float64 [pixel]
    reach : (nspec, NODES) float64, half width [pixel]
    wave : (nspec, NODES) float64 [Angstrom]
    """

    center: Array
    reach: Array
    wave: Array

    def moved(self, offset: float) -> Windows:
        """The same windows `offset` columns further right."""
        return Windows(self.center + offset, self.reach, self.wave)

    def select(self, fibers: NDArray[np.int64]) -> Windows:
        return Windows(self.center[fibers], self.reach[fibers], self.wave[fibers])


def tabulate_windows(traces: XYTraceSet, ny: int) -> Windows:
    """The windows of all fibers on a CCD of `ny` rows; raises ValueError if the traces carry no widths."""
    rows = np.linspace(0.0, ny - 1.0, NODES)
    wave = traces.wave_vs_y(rows)
    inside = np.clip(wave, traces.wavemin, traces.wavemax)
    few = slice(None, None, 16)  # widths vary slowly
    sigma2 = traces.xsig_vs_wave(inside[:, few]) ** 2 + 1.0 / 12.0  # spread by the pixel too
    between = np.arange(NODES) / 16.0
    k = np.minimum(between.astype(int), sigma2.shape[1] - 2)
    sigma2 = sigma2[:, k] + (between - k) * (sigma2[:, k + 1] - sigma2[:, k])
    return Windows(traces.x_vs_y(rows), REACH * np.sqrt(sigma2), wave)
