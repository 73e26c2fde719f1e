"""Emission lines in arc spectra, and what the line list looks like at their resolution."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from qlstream.numeric.gaussfit import fit_lines

Array = NDArray[np.float64]

DETECTED = np.dtype([("fiber", "i4"), ("y", "f8"), ("error", "f8"), ("flux", "f8"), ("sigma", "f8")])

_HALF = 4  # rows on each side that are fitted
_ROOM = 6  # rows in which a peak must rise from its surroundings
_EDGE = 5  # rows at the ends of the CCD where lines are cut
_SIGMA_RANGE = (0.5, 2.5)  # of lines, in units of the expected width
_PER_SIGMA = 10  # samples of the synthetic spectrum
_RESOLVED = 0.01  # peaks below this share of the strongest are not looked for


def find_lines(flux: Array, ivar: Array, sigma: float, threshold: float) -> NDArray[np.void]:
    """Lines of every fiber: local maxima that rise from their surroundings, fitted by Gaussians.

    Parameters
    ----------
    flux, ivar : (nspec, ny) [electron/row]
    sigma : expected width [pixel]
    threshold : least height of a peak [sigma of the noise]

    Returns
    -------
    (nline,) DETECTED: fiber, y and its error [pixel], flux [electron], sigma [pixel]; by fiber, then y
    """
    at = np.argwhere(_peaks(flux, ivar, threshold))
    fiber, row = at[:, 0], at[:, 1]
    index = row[:, None] + np.arange(-_HALF, _HALF + 1)
    profiles, weights = flux[fiber[:, None], index], ivar[fiber[:, None], index]
    fits = fit_lines(profiles, weights, np.full(len(at), float(_HALF)), np.full(len(at), sigma))
    amount, center, width, _ = fits.parameters.T
    good = fits.good & (np.abs(center - _HALF) < 1.5) & (amount > threshold * fits.errors[:, 0])
    good &= (width > _SIGMA_RANGE[0] * sigma) & (width < _SIGMA_RANGE[1] * sigma)
    out = np.zeros(int(good.sum()), DETECTED)
    out["fiber"], out["y"] = fiber[good], row[good] + center[good] - _HALF
    out["error"], out["flux"], out["sigma"] = fits.errors[good, 1], amount[good], width[good]
    return out


def resolved_lines(table: NDArray[np.void], sigma: float) -> tuple[Array, Array]:
    """Peaks of the spectrum of a line list at a resolution: what blends is one.

    Parameters
    ----------
    table : as `qlstream.lines.arc_lines`
    sigma : Gaussian width of a line [Angstrom]

    Returns
    -------
    wave, strength : (n,) [Angstrom], [-], by wavelength
    """
    if not len(table):
        return np.zeros(0), np.zeros(0)
    step = sigma / _PER_SIGMA
    grid = np.arange(table["wave"].min() - 4 * sigma, table["wave"].max() + 4 * sigma, step)
    light = np.zeros(len(grid))
    for wave, strength in zip(table["wave"], table["strength"], strict=True):
        near = slice(*np.searchsorted(grid, [wave - 5 * sigma, wave + 5 * sigma]))
        light[near] += strength * np.exp(-0.5 * ((grid[near] - wave) / sigma) ** 2)
    inner = light[1:-1]
    top = np.flatnonzero((inner > light[:-2]) & (inner >= light[2:]) & (inner > _RESOLVED * light.max())) + 1
    below, middle, above = light[top - 1], light[top], light[top + 1]
    return grid[top] + step * 0.5 * (below - above) / (below - 2.0 * middle + above), middle


@njit(nogil=True, cache=True)
def _peaks(flux, ivar, threshold):  # type: ignore[no-untyped-def]
    nspec, ny = flux.shape
    found = np.zeros((nspec, ny), np.bool_)
    for f in range(nspec):
        for j in range(_EDGE, ny - _EDGE):
            here = flux[f, j]
            if not ivar[f, j] > 0 or here <= flux[f, j - 1] or here < flux[f, j + 1]:
                continue
            left, right = here, here
            for d in range(1, min(_ROOM, j, ny - 1 - j) + 1):
                left, right = min(left, flux[f, j - d]), min(right, flux[f, j + d])
            rise = here - max(left, right)
            found[f, j] = rise > threshold / np.sqrt(ivar[f, j])
    return found
