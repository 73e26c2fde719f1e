"""Spectra onto the CCD: electrons per row of each fiber, then electrons per pixel.

The spots are separable (see `optics`), so light is first spread along the rows of its fiber, each spectral line at its
exact position, continuum in quarter-row steps; every row is then spread over columns about the trace at that row. Both
profiles are integrated over the pixels, so a spot's electrons are conserved. The one approximation: light of one
wavelength is centred, in each row it reaches, on the trace of that row instead of its own; traces slant by less than
0.02 columns per row on desi, which is the error, in a spot's outer rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, exp, pi, sqrt

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from qlstream.simulate.optics import HALF_X, HALF_Y, Optics

Array = NDArray[np.float64]

STEPS = 4  # continuum steps per row
PAD = HALF_Y + 1  # rows beyond the CCD whose light still reaches it
NKNOT = 200  # of the splines below, at least; traces are smooth on a tenth of the CCD


@dataclass(frozen=True)
class RowGeometry:
    """Optics evaluated on the rows of the CCD.

    Attributes
    ----------
    wave, x, xsig : (nspec, ny) float64 at row centres [Angstrom], [pixel], [pixel]
    ysig : (nspec, ny + 2 PAD) float64 [pixel], from PAD rows below the CCD
    edges : (nspec, STEPS (ny + 2 PAD) + 1) float64, wavelengths of the continuum steps' edges [Angstrom]
    """

    wave: Array
    x: Array
    xsig: Array
    ysig: Array
    edges: Array


def row_geometry(optics: Optics) -> RowGeometry:
    """Wavelength, column and widths of every row, by cubic splines (exact to 1e-5 pixel)."""
    ny = optics.shape[0]
    traces = optics.traces
    knots = np.linspace(-PAD - 1.0, ny + PAD, max(NKNOT, ny // 16))
    wave = traces.wave_vs_y(knots)
    rows = np.arange(ny)
    padded = np.arange(-PAD, ny + PAD)
    edges = -PAD - 0.5 + np.arange(STEPS * (ny + 2 * PAD) + 1) / STEPS
    spline = CubicSpline(knots, wave, axis=1)
    return RowGeometry(
        wave=spline(rows),
        x=CubicSpline(knots, traces.x_vs_wave(wave), axis=1)(rows),
        xsig=CubicSpline(knots, traces.xsig_vs_wave(wave), axis=1)(rows),
        ysig=CubicSpline(knots, traces.ysig_vs_wave(wave), axis=1)(padded),
        edges=spline(edges),
    )


def spread_continuum(geometry: RowGeometry, grid: Array, density: Array, hermite_y: Array) -> Array:
    """Continuum light of each fiber as electrons per CCD row.

    Parameters
    ----------
    grid : (n,) float64, uniform wavelengths [Angstrom]; `density` is constant within half a step of each
    density : (nspec, n) float64 [electron/Angstrom]
    hermite_y : (nspec, 2)

    Returns
    -------
    (nspec, ny) float64 [electron per row]
    """
    step = float(grid[1] - grid[0])
    total = np.zeros((density.shape[0], density.shape[1] + 1))
    np.cumsum(density * step, axis=1, out=total[:, 1:])
    out = np.zeros(geometry.wave.shape)
    _spread_continuum(geometry.edges, grid[0] - 0.5 * step, step, total, geometry.ysig, hermite_y, out)
    return out


def spread_lines(optics: Optics, geometry: RowGeometry, wave: Array, electrons: Array) -> Array:
    """Narrow lines of each fiber as electrons per CCD row.

    Parameters
    ----------
    wave : (nline,) float64 [Angstrom]
    electrons : (nspec, nline) float64

    Returns
    -------
    (nspec, ny) float64 [electron per row]
    """
    out = np.zeros(geometry.wave.shape)
    on_domain = (wave >= optics.traces.wavemin) & (wave <= optics.traces.wavemax)
    if on_domain.any():
        y = optics.traces.y_vs_wave(wave[on_domain])
        _spread_lines(y, np.ascontiguousarray(electrons[:, on_domain]), geometry.ysig, optics.hermite_y, out)
    return out


def paint(geometry: RowGeometry, rows: Array, hermite_x: Array, nx: int) -> NDArray[np.float32]:
    """Electrons per row of each fiber as an image.

    Parameters
    ----------
    rows : (nspec, ny) float64 [electron per row]

    Returns
    -------
    (ny, nx) float32 [electron per pixel]
    """
    image = np.zeros((rows.shape[1], nx), dtype=np.float32)
    _paint(geometry.x, geometry.xsig, rows, hermite_x, image)
    return image


@njit(nogil=True, cache=True)
def _cumulative(u: float, h4: float, h6: float) -> float:
    """Integral of the profile from minus infinity to u sigmas: He_n phi integrates to -He_(n-1) phi."""
    phi = exp(-0.5 * u * u) / sqrt(2.0 * pi)
    u2 = u * u
    he3 = u * (u2 - 3.0)
    he5 = u * (u2 * (u2 - 10.0) + 15.0)
    return 0.5 * (1.0 + erf(u / sqrt(2.0))) - phi * (h4 * he3 + h6 * he5)


@njit(nogil=True, cache=True)
def _spread_continuum(edges, grid0, step, total, ysig, hermite, out):  # type: ignore[no-untyped-def]
    nspec, ny = out.shape
    n = total.shape[1] - 1
    width = 2 * HALF_Y + 2
    kernel = np.zeros((STEPS, width))
    for f in range(nspec):
        sigma_of_kernel = -1.0
        before = 0.0
        for k in range(edges.shape[1]):
            t = min(max((edges[f, k] - grid0) / step, 0.0), float(n))
            i = min(int(t), n - 1)
            now = total[f, i] + (t - i) * (total[f, i + 1] - total[f, i])
            if k > 0:
                row = (k - 1) // STEPS  # padded row
                sub = (k - 1) % STEPS
                sigma = ysig[f, row]
                if abs(sigma - sigma_of_kernel) > 1e-4 * sigma:
                    sigma_of_kernel = sigma
                    for s in range(STEPS):
                        offset = (s + 0.5) / STEPS - 0.5
                        low = _cumulative((-HALF_Y - 0.5 - offset) / sigma, hermite[f, 0], hermite[f, 1])
                        for j in range(2 * HALF_Y + 1):
                            high = _cumulative((j - HALF_Y + 0.5 - offset) / sigma, hermite[f, 0], hermite[f, 1])
                            kernel[s, j] = high - low
                            low = high
                light = now - before
                if light != 0.0:
                    for j in range(2 * HALF_Y + 1):
                        y = row - PAD + j - HALF_Y
                        if 0 <= y < ny:
                            out[f, y] += light * kernel[sub, j]
            before = now


@njit(nogil=True, cache=True)
def _spread_lines(y, electrons, ysig, hermite, out):  # type: ignore[no-untyped-def]
    nspec, ny = out.shape
    for f in range(nspec):
        for k in range(y.shape[1]):
            center = int(np.floor(y[f, k] + 0.5))
            if electrons[f, k] == 0.0 or center < -PAD or center >= ny + PAD:
                continue
            sigma = ysig[f, center + PAD]
            low = _cumulative((center - HALF_Y - 0.5 - y[f, k]) / sigma, hermite[f, 0], hermite[f, 1])
            for row in range(center - HALF_Y, center + HALF_Y + 1):
                high = _cumulative((row + 0.5 - y[f, k]) / sigma, hermite[f, 0], hermite[f, 1])
                if 0 <= row < ny:
                    out[f, row] += electrons[f, k] * (high - low)
                low = high


@njit(nogil=True, cache=True)
def _paint(x, xsig, rows, hermite, image):  # type: ignore[no-untyped-def]
    nspec, ny = rows.shape
    nx = image.shape[1]
    for row in range(ny):
        for f in range(nspec):
            light = rows[f, row]
            if light == 0.0:
                continue
            center = int(np.floor(x[f, row] + 0.5))
            sigma = xsig[f, row]
            low = _cumulative((center - HALF_X - 0.5 - x[f, row]) / sigma, hermite[f, 0], hermite[f, 1])
            for column in range(center - HALF_X, center + HALF_X + 1):
                high = _cumulative((column + 0.5 - x[f, row]) / sigma, hermite[f, 0], hermite[f, 1])
                if 0 <= column < nx:
                    image[row, column] += light * (high - low)
                low = high
