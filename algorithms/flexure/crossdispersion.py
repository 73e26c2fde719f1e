"""How far each spectrum lies from its trace, across the dispersion."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from algorithms.flexure.field import POINT
from algorithms.flexure.windows import NODES, REACH, Windows
from qlstream.datamodel.image import Image
from qlstream.datamodel.masks import EXTRACT_MASK

Array = NDArray[np.float64]

LEAK = 5e-4  # bias by a neighbour of equal brightness [pixel]
_BAD = int(EXTRACT_MASK)


def _response() -> float:
    """Shift per unit of weighted mean offset, for a Gaussian of sigma 1 under the biweight of half width REACH."""
    u = np.linspace(-REACH, REACH, 2001)
    light = (1.0 - (u / REACH) ** 2) ** 2 * np.exp(-0.5 * u**2)
    return float(light.sum() / (light * u**2).sum())


RESPONSE = _response()


def measure_offsets(
    image: Image, windows: Windows, blocks: int, row_step: int, min_snr: float = 5.0
) -> NDArray[np.void]:
    """Offset of the light of each fiber from its trace, in blocks of rows.

    The weighted mean of (column - trace) under a biweight window as wide as the spot, times the response of that
    mean to a shift: unbiased when repeated about the improved trace, and blind to neighbours 7 sigma away, unlike
    the plain first moment of spec preproc-and-extraction §7.1. A row with a masked pixel in the window is left out.

    Parameters
    ----------
    blocks : number of row blocks over the CCD
    row_step : take every so-many-th row
    min_snr : of the light in a block

    Returns
    -------
    (npoint,) POINT, wave of the light's mean row
    """
    light, moment, variance, noise2, rows = sum_moments(image, windows, blocks, row_step)
    snr = np.divide(light, np.sqrt(noise2), out=np.zeros_like(light), where=noise2 > 0)
    fiber, block = np.nonzero(snr > min_snr)
    total = light[fiber, block]
    neighbour = np.maximum(np.abs(np.roll(light, 1, axis=0)), np.abs(np.roll(light, -1, axis=0)))[fiber, block]
    first = block * image.ny / blocks
    mean_row = np.clip(rows[fiber, block] / total, first, first + image.ny / blocks)
    at = mean_row * (NODES - 1) / (image.ny - 1)
    node = np.minimum(at.astype(int), NODES - 2)
    below, above = windows.wave[fiber, node], windows.wave[fiber, node + 1]
    points = np.zeros(len(fiber), POINT)
    points["fiber"] = fiber
    points["wave"] = below + (at - node) * (above - below)
    points["shift"] = RESPONSE * moment[fiber, block] / total
    points["error"] = np.hypot(RESPONSE * np.sqrt(variance[fiber, block]), LEAK * neighbour) / total
    return points


def search_offset(image: Image, windows: Windows, reach: int) -> float:
    """The common offset within +-`reach` pixels at which the traces gather most light [pixel]; 0 unless clearly so.

    Square roots keep a few bright spectra or cosmic rays from deciding for all.
    """
    row_step = max(1, image.ny // 24)
    nspec = len(windows.center)
    windows = windows.select(np.arange(0, nspec, max(1, nspec // 150)))
    gathered = [
        np.sqrt(np.maximum(sum_moments(image, windows.moved(t), 8, row_step)[0], 0.0)).sum()
        for t in range(-reach, reach + 1)
    ]
    best = int(np.argmax(gathered))
    return float(best - reach) if gathered[best] > 1.2 * gathered[reach] else 0.0


def sum_moments(image: Image, windows: Windows, blocks: int, row_step: int) -> tuple[Array, Array, Array, Array, Array]:
    """Weighted light in the windows and its first moment about their centers, in blocks of rows.

    Returns
    -------
    light, moment, variance of the moment, variance of the light, light times row : (nspec, blocks) each
    """
    shape = (len(windows.center), blocks)
    sums = np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(shape)
    _sum_moments(image.pix, image.ivar, image.mask, windows.center, windows.reach, row_step, *sums)
    return sums


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _sum_moments(pix, ivar, mask, center, reach, row_step, light, moment, variance, noise2, rows):
    ny, nx = pix.shape
    nspec, blocks = light.shape
    last_node = center.shape[1] - 2
    bad = np.uint16(_BAD)
    one, zero = np.float32(1.0), np.float32(0.0)
    var = np.empty(nx, np.float32)
    for j in range(row_step // 2, ny, row_step):
        for i in range(nx):
            w = ivar[j, i] if (mask[j, i] & bad) == 0 else zero
            var[i] = one / max(w, zero)  # infinite where masked
        at = j * (last_node + 1) / (ny - 1.0)
        k = min(int(at), last_node)
        part = at - k
        block = j * blocks // ny
        for f in range(nspec):
            x = center[f, k] + part * (center[f, k + 1] - center[f, k])
            r = reach[f, k]
            first, last = math.ceil(x - r), math.floor(x + r)
            if first < 0 or last >= nx:
                continue
            inverse = 1.0 / (r * r)
            s0 = s1 = v0 = v1 = 0.0
            for i in range(first, last + 1):
                d = i - x
                w = 1.0 - d * d * inverse
                w *= w
                s0 += w * pix[j, i]
                s1 += w * d * pix[j, i]
                v = w * w * var[i]
                v0 += v
                v1 += d * d * v
            if v0 < np.inf:
                light[f, block] += s0
                moment[f, block] += s1
                variance[f, block] += v1
                noise2[f, block] += v0
                rows[f, block] += s0 * j
