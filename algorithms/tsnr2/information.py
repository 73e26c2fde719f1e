"""TSNR2 of fibers: sum over rows of (calibration * dF)^2 / variance (spec offline-reduction §10)."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from algorithms.expected import ExpectedRows
from algorithms.tsnr2.tracers import Template

Array = NDArray[np.float64]


def tsnr2(
    expected: ExpectedRows,
    wave: Array,
    fibers: NDArray[np.int64],
    template: Template,
    electrons: Array,
    share: Array,
    wave_range: tuple[float, float],
    most: int | None = None,
) -> Array:
    """(n,) TSNR2 of a class in these fibers; NaN without information.

    Parameters
    ----------
    expected : of flat-fielded, sky-subtracted counts
    wave : (nspec, ny) [Angstrom]
    fibers : (n,) indices
    electrons : (nspec, m) or, common to all fibers, (1, m) electrons per Angstrom for 1e-17 erg/s/cm2/Angstrom of a
        point source, at the wavelengths of the template
    share : (nspec,) factor of clouds, dust and the class's size on the light of that point source
    wave_range : rows outside do not count [Angstrom]
    most : rows of a fiber that are summed over; every so-many-th of a longer one stands for its neighbours
    """
    stride = 1 if most is None else max(1, wave.shape[1] // most)
    return _tsnr2(
        expected.background, wave, fibers, template.wave, template.flux, template.contrast2, electrons, share,
        *wave_range, stride,
    )  # fmt: skip


@njit(nogil=True, cache=True)
def _tsnr2(  # type: ignore[no-untyped-def]
    background, wave, fibers, grid, flux, contrast2, electrons, share, low, high, stride
):
    ny = background.shape[1]
    out = np.full(fibers.size, np.nan)
    per_step = 1.0 / (grid[1] - grid[0])
    for i in range(fibers.size):
        f = fibers[i]
        response = electrons[min(f, electrons.shape[0] - 1)]
        total, have = 0.0, 0
        for j in range(1 + f % stride, ny - 1, stride):
            x = wave[f, j]
            if x <= low or x >= high or background[f, j] <= 0:
                continue
            have += 1
            place = (x - grid[0]) * per_step
            k = int(place)
            t = place - k
            counts = share[f] * 0.5 * (wave[f, j + 1] - wave[f, j - 1])
            counts *= (1.0 - t) * response[k] + t * response[k + 1]
            signal2 = counts * counts * ((1.0 - t) * contrast2[k] + t * contrast2[k + 1])
            poisson = counts * ((1.0 - t) * flux[k] + t * flux[k + 1])
            total += signal2 / (background[f, j] + poisson)
        if have > 0:
            out[i] = stride * total
    return out
