"""Cross-dispersion profiles of a PSF, tabulated finely enough to be read off by linear interpolation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from algorithms.extract.rows import sampled_rows
from algorithms.extract.spectroperfect.spots import pixel_integrals, spot_series
from qlstream.datamodel.psf import GaussHermitePSF

Array = NDArray[np.float64]

STEPS = 32  # per pixel; a profile of sigma 1 pixel is read off to 1e-4 of its peak
_ROWS = 33  # at which it is tabulated: a PSF varies slowly along the CCD


@dataclass(frozen=True)
class CrossProfiles:
    """What share of a fiber's light of a row falls into a pixel that far from its trace.

    Attributes
    ----------
    table : (nspec, nrow, npoint) float32 at rows evenly from the first to the last, for pixels centred at
        -half - 1 ... half + 1 from the trace, in steps of 1 / STEPS [pixel]
    half : pixels on either side of the one that holds the trace
    """

    table: NDArray[np.float32]
    half: int


def cross_profiles(psf: GaussHermitePSF, ny: int) -> CrossProfiles:
    """Profiles of all fibers of a PSF on a CCD of `ny` rows: its spots, core and tail, summed along the dispersion.

    That is the profile of continuum. On the flanks of a line it differs by the mixed terms GH-i-j, j > 0, which a sum
    along the dispersion loses: they take from one flank what they add to the other.
    """
    wave = psf.traces.wave_vs_y(sampled_rows(psf.traces, ny, _ROWS))
    sigma, _, terms, tail = spot_series(psf, wave)
    table = np.empty((*wave.shape, 2 * (psf.hsizex + 1) * STEPS + 1), np.float32)
    _tabulate(sigma, np.ascontiguousarray(terms[:, 0]), tail, psf.hsizex, psf.hsizey, table)
    return CrossProfiles(table, psf.hsizex)


@njit(nogil=True, cache=True)
def _tabulate(sigma, terms, tail, half, hsizey, table):  # type: ignore[no-untyped-def]
    integrals = np.empty((terms.shape[0], 2 * half + 3))
    for f in range(table.shape[0]):
        for s in range(table.shape[1]):
            out = table[f, s]
            for phase in range(STEPS):
                pixel_integrals(phase / STEPS - half - 1.0, sigma[f, s], integrals)
                for k in range(2 * half + 3 if phase == 0 else 2 * half + 2):
                    total = 0.0
                    for i in range(terms.shape[0]):
                        total += terms[i, f, s] * integrals[i, k]
                    out[k * STEPS + phase] = total
            if tail[0, f, s] == 0.0:
                continue
            power = -(1.0 + 0.5 * tail[4, f, s])
            for q in range(out.size):
                dx2 = ((q / STEPS - half - 1.0) / tail[2, f, s]) ** 2
                total = 0.0
                for m in range(-hsizey, hsizey + 1):
                    r2 = dx2 + (m / tail[3, f, s]) ** 2
                    total += r2 * (tail[1, f, s] ** 2 + r2) ** power
                out[q] += tail[0, f, s] * total
