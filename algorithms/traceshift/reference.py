"""Reference spectra: the median of the fibers themselves, or one that was measured elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from algorithms.traceshift.correlation import Reference
from qlstream.datamodel.traces import XYTraceSet

Array = NDArray[np.float64]

_FINE = 4  # samples per row of the median spectrum
_DIM = 0.05  # of the typical light, below which a fiber has no say in the median


def read_spectrum(path: Path) -> tuple[Array, Array]:
    """(wave, flux) of a text file of two columns, wavelength in vacuum [Angstrom] and flux density; .gz is read, too.

    Raises
    ------
    OSError, ValueError : the file cannot be read, or is no spectrum; the message names it
    """
    try:
        table = np.loadtxt(path, ndmin=2)  # unpacks .gz by itself
    except ValueError as error:
        raise ValueError(f"{path}: {error}; two columns, wavelength [Angstrom] and flux, are expected") from None
    if table.shape[1] < 2 or len(table) < 2 or not (np.diff(table[:, 0]) > 0).all() or not np.isfinite(table).all():
        raise ValueError(
            f"{path} holds a table of {table.shape[0]} x {table.shape[1]} numbers; two columns, increasing wavelength "
            "[Angstrom] and flux, all of them finite, are expected"
        )
    return table[:, 0], table[:, 1]


def seen_by(traces: XYTraceSet, wave: Array, flux: Array, edges: Array, name: str) -> Reference:
    """A spectrum of higher resolution as the middle of the fibers see it, in each bin.

    Parameters
    ----------
    traces : with widths along the dispersion
    wave, flux : (n,) of the reference
    edges : (nbin + 1,) of the bins [Angstrom]
    name : of the reference, for the message

    Raises
    ------
    ValueError : it does not cover all bins, or is too coarse
    """
    middles = 0.5 * (edges[1:] + edges[:-1])
    sigma = np.median(np.hypot(traces.ysig_vs_wave(middles), 12**-0.5) / traces.dy_dwave(middles), axis=0)
    margin = 6.0 * float(sigma.max())
    if wave[0] > edges[0] - margin or wave[-1] < edges[-1] + margin:
        raise ValueError(
            f"{name} covers {wave[0]:.0f} to {wave[-1]:.0f} Angstrom; {edges[0] - margin:.0f} to "
            f"{edges[-1] + margin:.0f} is needed"
        )
    step = float(sigma.min()) / 8.0
    inside = (wave > edges[0] - 2 * margin) & (wave < edges[-1] + 2 * margin)
    if np.median(np.diff(wave[inside])) > float(sigma.min()):
        raise ValueError(
            f"{name} has a sample every {np.median(np.diff(wave[inside])):.2f} Angstrom; lines are "
            f"{float(sigma.min()):.2f} wide (sigma), so that its steps must be finer"
        )
    grid = np.arange(edges[0] - margin, edges[-1] + margin, step)
    fine = _rebinned(grid, wave, flux)
    return Reference(grid, np.array([gaussian_filter1d(fine, s / step) for s in sigma]))


def median_spectrum(wave: Array, flux: Array, ivar: Array) -> Reference:
    """The median of the fibers, each in units of its own light, on the grid of the middle one.

    Parameters
    ----------
    wave, flux, ivar : (nspec, ny) spectra by row
    """
    middle = wave[len(wave) // 2]
    step = (middle[-1] - middle[0]) / (_FINE * (len(middle) - 1))
    grid = middle[0] + step * np.arange(_FINE * (len(middle) - 1) + 1)
    light = np.array([np.mean(f[w > 0]) if (w > 0).any() else 0.0 for f, w in zip(flux, ivar, strict=True)])
    lit = np.flatnonzero(light > _DIM * max(float(np.median(light)), 0.0))
    if not lit.size:
        return Reference(grid, np.zeros((1, grid.size)))
    table = np.full((lit.size, grid.size), np.nan)
    for row, f in zip(table, lit, strict=True):
        good = ivar[f] > 0
        inside = (grid >= wave[f, good][0]) & (grid <= wave[f, good][-1])
        row[inside] = np.interp(grid[inside], wave[f, good], flux[f, good]) / light[f]
    seen = np.isfinite(table).any(axis=0)
    out = np.zeros(grid.size)
    out[seen] = np.nanmedian(table[:, seen], axis=0)
    return Reference(grid, out[None, :])


def _rebinned(grid: Array, wave: Array, flux: Array) -> Array:
    """Mean density in the steps of an even grid: keeps the light of lines that are narrower than a step."""
    edges = np.append(grid, 2 * grid[-1] - grid[-2]) - 0.5 * (grid[1] - grid[0])
    middle = 0.5 * (wave[1:] + wave[:-1])
    borders = np.concatenate([[2 * wave[0] - middle[0]], middle, [2 * wave[-1] - middle[-1]]])
    total = np.append(0.0, np.cumsum(flux * np.diff(borders)))
    return np.diff(np.interp(edges, borders, total)) / np.diff(edges)
