"""Light that the spectrograph scatters far from the traces: a halo around all spectra, scaled by what the gaps show."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from algorithms.preproc.gaps import Gaps, gap_means
from qlstream.datamodel.traces import XYTraceSet
from qlstream.numeric import legendre

_BIN = 4  # pixels; the halo is smooth on this scale
_CORE = 2  # columns on each side of a trace that hold its light
_ROWS = 100  # of a sample of the gaps
_DEGREE = 4  # of the scale along the gaps


def subtract_scattered_light(
    pix: NDArray[np.float32],
    mask: NDArray[np.uint16],
    traces: XYTraceSet,
    gaps: Gaps,
    half_width: int,
    radius: tuple[float, ...],
    halo: tuple[float, ...],
) -> float:
    """Subtract scattered light from `pix`, in place (spec preproc §6b iii).

    The light within 2 pixels of the traces, convolved with a halo, is what is scattered but for its amount. That is
    fitted to the means of each gap, as a polynomial along it that multiplies the halo's light, by least squares; a
    ratio of the two would be lost in noise where there is little light. It is interpolated from gap to gap.

    Parameters
    ----------
    pix, mask : (ny, nx) [electron], CCDMask bits; any bit excludes a pixel
    half_width : columns on each side of the middle of a gap that are averaged
    radius, halo : (n,) [pixel], brightness of the halo at these distances, in any unit; interpolated between, and 0
        beyond

    Returns
    -------
    mean share of the spectra's light that is scattered

    Raises
    ------
    ValueError : `radius` and `halo` differ in length, or radii do not increase
    """
    if len(radius) != len(halo) or np.any(np.diff(radius) <= 0):
        raise ValueError(f"scattered light: radii {radius} must increase and have one brightness each, got {halo}")
    ny, nx = pix.shape
    shape = (ny - 1) // _BIN + 1, (nx - 1) // _BIN + 1
    core = np.zeros(shape, np.float32)
    rows = np.arange(ny, dtype=float)
    _collect(pix, mask, traces.x_vs_y(rows, out=np.empty((traces.nspec, ny), np.float32)), core)
    n = int(radius[-1] // _BIN)
    distance = _BIN * np.hypot(*np.mgrid[-n : n + 1, -n : n + 1])
    kernel = np.interp(distance, radius, halo, right=0.0)
    model = fftconvolve(core, kernel / kernel.sum(), mode="same").astype(np.float32) / _BIN**2  # per pixel

    means = gap_means(pix, mask, gaps, half_width)
    scale = np.clip([_scale(means[k], _along(model, gaps.x[k])) for k in range(len(means))], 0.0, None)
    at = (np.arange(shape[0]) * _BIN + 0.5 * (_BIN - 1)).clip(0, ny - 1)
    columns = np.arange(shape[1]) * _BIN + 0.5 * (_BIN - 1)
    order = np.round(at).astype(int)
    for j, row in enumerate(order):
        model[j] *= np.interp(columns, gaps.x[:, row], scale[:, row])
    _subtract(pix, model)
    return float(scale.mean())


def _along(model: NDArray[np.float32], x: NDArray[np.float32]) -> NDArray[np.float64]:
    """(ny,) the binned model along a gap."""
    rows = (np.arange(len(x)) // _BIN).clip(0, model.shape[0] - 1)
    columns = np.round((x - 0.5 * (_BIN - 1)) / _BIN).astype(int).clip(0, model.shape[1] - 1)
    return model[rows, columns].astype(np.float64)


def _scale(means: NDArray[np.float32], model: NDArray[np.float64]) -> NDArray[np.float64]:
    """(ny,) by how much the model has to be multiplied to be the light of a gap."""
    ny = len(means)
    edges = np.linspace(0, ny, max(1, round(ny / _ROWS)) + 1).astype(int)
    rows = np.arange(ny, dtype=float)
    at, light, expected = [], [], []
    for first, last in pairwise(edges):
        good = np.isfinite(means[first:last])
        if 10 * good.sum() > last - first:
            at.append(rows[first:last][good].mean())
            light.append(np.median(means[first:last][good]))
            expected.append(np.median(model[first:last][good]))
    if not at or np.max(expected) <= 0:
        return np.zeros(ny)
    degree = min(_DEGREE, len(at) - 1)
    terms = np.asarray(expected)[:, None] * np.polynomial.legendre.legvander(legendre.reduced(at, 0, ny - 1), degree)
    coef = np.linalg.lstsq(terms, np.asarray(light), rcond=None)[0]
    return np.asarray(np.polynomial.legendre.legval(legendre.reduced(rows, 0, ny - 1), coef))


@njit(nogil=True, cache=True)
def _collect(pix, mask, x, core):  # type: ignore[no-untyped-def]
    """Sums of the good pixels near the traces, in cells of _BIN x _BIN."""
    nspec, ny = x.shape
    nx = pix.shape[1]
    for j in range(ny):
        for f in range(nspec):
            middle = int(np.floor(x[f, j] + 0.5))
            for i in range(max(middle - _CORE, 0), min(middle + _CORE + 1, nx)):
                if mask[j, i] == 0:
                    core[j // _BIN, i // _BIN] += pix[j, i]


@njit(nogil=True, cache=True)
def _subtract(pix, model):  # type: ignore[no-untyped-def]
    """Subtract the model, interpolated linearly between the middles of its cells."""
    ny, nx = pix.shape
    my, mx = model.shape
    half = np.float32(0.5 * (_BIN - 1))
    for j in range(ny):
        v = min(max((np.float32(j) - half) / np.float32(_BIN), np.float32(0.0)), np.float32(my - 1))
        j0 = min(int(v), max(my - 2, 0))
        fy = v - np.float32(j0)
        low, high = model[j0], model[min(j0 + 1, my - 1)]
        for i in range(nx):
            u = min(max((np.float32(i) - half) / np.float32(_BIN), np.float32(0.0)), np.float32(mx - 1))
            i0 = min(int(u), max(mx - 2, 0))
            i1 = min(i0 + 1, mx - 1)
            fx = u - np.float32(i0)
            below = low[i0] + fx * (low[i1] - low[i0])
            above = high[i0] + fx * (high[i1] - high[i0])
            pix[j, i] -= below + fy * (above - below)
