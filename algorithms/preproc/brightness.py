"""How bright each row of each fiber is against the level of its columns, from what all fibers of a block share."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from algorithms.preproc.variance import STAINED
from qlstream.datamodel.traces import XYTraceSet

Float = NDArray[np.float32]

_CONTINUUM, _STEP = 25, 8  # rows on each side whose median is the continuum; it is taken once in so many rows
_FINE = 2  # samples of the shared spectrum per row
_ROUNDS = 3  # of scales and shared spectrum
_LEAST_SCALE = 0.1  # of the typical fiber, below which a fiber says nothing about the others
_TOLD = 25.0  # squared sigmas from the model where a row speaks for itself
_MODEL_ERROR = 0.1  # of the shared spectrum


def model_brightness(
    pix: Float,
    level: Float,
    mask: NDArray[np.uint16],
    traces: XYTraceSet,
    fibers_per_bundle: int,
    half_width: float,
    variance: float,
    out: Float,
) -> None:
    """Fill `out` with the brightness of each row, at every pixel, for `variance.weigh_pixels`.

    A quick extraction gives each fiber's spectrum. It is the fiber's continuum, a running median, and lines, which
    the fibers of a block share up to a factor: their median, at the same wavelength, is nearly free of noise. So the
    model of a row does not know that row's own noise, but what a line does in it. Where a fiber differs (its object's
    own lines) by 5 sigma and a tenth of the shared lines, its own spectrum is taken (spec preproc §5, model_variance).

    Parameters
    ----------
    pix, level, mask : (ny, nx) [electron], `column_levels` of pix, CCDMask bits; flagged pixels count as their level
    fibers_per_bundle : fibers of a block
    half_width : of the extraction [pixel]
    variance : of a pixel without light [electron^2]
    out : (ny, nx) float32, output: light of the row / what the levels of its columns say; near 1 where it is dark

    Raises
    ------
    ValueError : the traces are not those of whole blocks
    """
    if traces.nspec % fibers_per_bundle:
        raise ValueError(f"{traces.nspec} traces are no whole number of blocks of {fibers_per_bundle} fibers")
    ny = len(pix)
    rows = np.arange(ny, dtype=float)
    x = traces.x_vs_y(rows, out=np.empty((traces.nspec, ny), np.float32))
    flux, expected = np.zeros(x.shape, np.float32), np.zeros(x.shape, np.float32)
    _extract(pix, level, mask, x, half_width, flux, expected)
    continuum = _running_median(flux)
    floor = 2 * half_width * variance
    model = np.empty_like(flux)
    for first in range(0, traces.nspec, fibers_per_bundle):
        block = slice(first, first + fibers_per_bundle)
        lines = _shared_lines(flux[block] - continuum[block], traces.select(block), ny)
        light = continuum[block] + lines
        sigma2 = np.maximum(light, 0) + floor + (_MODEL_ERROR * lines) ** 2
        model[block] = np.where((flux[block] - light) ** 2 > _TOLD * sigma2, flux[block], light)
    dim = np.float32(np.sqrt(floor))
    ratio = np.maximum(model + dim, 0.3 * dim) / np.maximum(expected + dim, 0.3 * dim)
    _spread(ratio.astype(np.float32), x, out)


def _shared_lines(excess: Float, traces: XYTraceSet, ny: int) -> Float:
    """(nspec, ny), the lines that the fibers of a block have in common, each fiber's with its factor."""
    nspec = len(excess)
    middle = traces.select([nspec // 2])
    fine = np.arange(_FINE * (ny - 1) + 1) / _FINE
    wave = middle.wave_vs_y(fine)[0]
    inside = np.clip(wave, traces.wavemin, traces.wavemax)
    aligned = _sampled(excess, traces.y_vs_wave(inside))
    scale = np.ones(nspec)
    shared = np.zeros(len(fine))
    for _ in range(_ROUNDS):
        bright = scale > _LEAST_SCALE * np.median(scale)
        shared = np.median(aligned[bright] / scale[bright, None], axis=0)
        scale = np.maximum(aligned @ shared / max(float(shared @ shared), 1e-9), 0.0)
        if not np.median(scale) > 0:
            return np.zeros(excess.shape, np.float32)
    own = traces.wave_vs_y(np.arange(ny, dtype=float))
    at = _FINE * middle.y_vs_wave(np.clip(own, traces.wavemin, traces.wavemax).reshape(1, -1)).reshape(own.shape)
    lines = scale[:, None] * _sampled(np.broadcast_to(shared.astype(np.float32), (nspec, len(fine))), at)
    return np.asarray(lines, np.float32)


def _sampled(values: Float, at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each row of `values` at the places `at` of its own; 0 beyond its ends."""
    out = np.empty(at.shape)
    _sample(np.ascontiguousarray(values), at, out)
    return out


def _running_median(flux: Float) -> Float:
    out = np.empty_like(flux)
    _continuum(flux, out)
    return out


@njit(nogil=True, cache=True)
def _extract(pix, level, mask, x, half_width, flux, expected):  # type: ignore[no-untyped-def]
    """Sums over the fraction of each pixel within half_width of the traces, of the pixels and of their levels."""
    ny, nx = pix.shape
    for j in range(ny):
        for f in range(len(x)):
            low, high = x[f, j] - half_width, x[f, j] + half_width
            light, told = 0.0, 0.0
            for i in range(max(int(np.floor(low + 0.5)), 0), min(int(np.floor(high + 0.5)) + 1, nx)):
                share = min(i + 0.5, high) - max(i - 0.5, low)
                light += share * (level[j, i] if mask[j, i] & STAINED != 0 else pix[j, i])
                told += share * level[j, i]
            flux[f, j], expected[f, j] = light, told


@njit(nogil=True, cache=True)
def _continuum(flux, out):  # type: ignore[no-untyped-def]
    """Median of 51 rows, at every eighth row and interpolated between."""
    nspec, ny = flux.shape
    for f in range(nspec):
        before, last = np.float32(0.0), 0
        for j in range(0, ny + _STEP - 1, _STEP):
            row = min(j, ny - 1)
            here = np.float32(np.median(flux[f, max(row - _CONTINUUM, 0) : min(row + _CONTINUUM + 1, ny)]))
            for i in range(last, row):
                out[f, i] = before + (here - before) * np.float32((i - last) / (row - last))
            out[f, row] = here
            before, last = here, row


@njit(nogil=True, cache=True)
def _sample(values, at, out):  # type: ignore[no-untyped-def]
    """Cubic convolution (Keys 1981, IEEE Trans. ASSP 29, 1153)."""
    n = values.shape[1]
    for f in range(len(at)):
        for k in range(at.shape[1]):
            y = at[f, k]
            if not 0.0 <= y <= n - 1:
                out[f, k] = 0.0
                continue
            i = min(int(y), n - 2)
            t = y - i
            b, c = values[f, i], values[f, i + 1]
            a, d = values[f, max(i - 1, 0)], values[f, min(i + 2, n - 1)]
            out[f, k] = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))


@njit(nogil=True, cache=True, error_model="numpy")
def _spread(ratio, x, out):  # type: ignore[no-untyped-def]
    """From the traces to the columns: linear from fiber to fiber, held beyond the outermost."""
    nspec = len(x)
    ny, nx = out.shape
    for j in range(ny):
        f = 0
        for i in range(nx):
            at = np.float32(i)
            while f < nspec and x[f, j] <= at:
                f += 1
            if f == 0:
                out[j, i] = ratio[0, j]
            elif f == nspec:
                out[j, i] = ratio[nspec - 1, j]
            else:
                share = (at - x[f - 1, j]) / (x[f, j] - x[f - 1, j])
                out[j, i] = ratio[f - 1, j] + share * (ratio[f, j] - ratio[f - 1, j])
