"""Width of the lines as a smooth function of fiber and wavelength, in units of the expected width."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray

from algorithms.flexure.field import POINT, Field, Grid, TooUncertain, common_error
from algorithms.flexure.lineerrors import fit_lines_field

Array = NDArray[np.float64]

FIELD_ACROSS = 2  # degree of the camera's field across fibers
MAX_ERROR = 0.03  # of the field anywhere; else its degrees are lowered
FIELD_SLOPE = 0.1  # how much a width may change over half a CCD against the calibration
LINE_ERROR = 0.005  # common to all fibers: faint lines blended with it, and the shape of its wings
CLIP = 4.0  # sigma
ROUNDS = 4


@dataclass(frozen=True)
class WidthSeries:
    """ratio(fiber, wave) = 1 + field(fiber, wave) + sum_n coef[fiber, n] P_n(wave), in units of the expected width.

    Attributes
    ----------
    field : of the camera
    grid : its coordinates
    coef : (nspec, n) float64, what a fiber deviates from the field
    used : (nspec, nline) bool, widths that survived the clipping
    chi2, dof : (nspec,) float64
    """

    field: Field
    grid: Grid
    coef: Array
    used: NDArray[np.bool_]
    chi2: Array
    dof: Array

    def at(self, wave: Array) -> Array:
        """(nspec, n) ratio at `wave` (n,) [Angstrom]."""
        along = legvander(self.grid.along(wave), self.coef.shape[1] - 1)
        return np.asarray(1.0 + self.field.at(self.grid, wave) + self.coef @ along.T)


def fit_series(ratio: Array, error: Array, wave: Array, grid: Grid, degree: int, fiber_scatter: float) -> WidthSeries:
    """Robust fit of measured widths, in two steps.

    First a field for the whole camera, as flexure fits its shifts: an error common to all fibers per line, lines far
    off dropped, the degrees lowered if the lines do not support them. Then each fiber's deviation from it, a Legendre
    series of `degree` with a Gaussian prior about zero. A fiber with many lines follows them; one with few is held by
    the lines of all others, one with none takes the field: no fiber ends without a width.

    Parameters
    ----------
    ratio, error : (nspec, nline) measured over expected width; NaN where there is none
    wave : (nline,) [Angstrom]
    degree : along wavelength
    fiber_scatter : how much fibers deviate from the field; half of that per order more

    Raises
    ------
    TooUncertain : the measurements do not support even one common ratio
    """
    fiber, line = np.nonzero(np.isfinite(ratio))
    points = np.zeros(len(fiber), POINT)
    points["fiber"], points["wave"] = fiber, wave[line]
    points["shift"], points["error"] = ratio[fiber, line] - 1.0, error[fiber, line]
    blur = np.full(len(wave), LINE_ERROR)
    try:
        field = fit_lines_field(points, line, blur, grid, (FIELD_ACROSS, degree), MAX_ERROR, FIELD_SLOPE)
    except TooUncertain:
        told = f"{len(points)} widths of {len(np.unique(line))} lines do not tell even a common change"
        raise TooUncertain(f"{told} to {100 * MAX_ERROR:.0f} %") from None
    residual = points["shift"] - field.at_points(grid, points)
    total: Array = np.hypot(points["error"], LINE_ERROR)
    along = np.asarray(legvander(grid.along(points["wave"]), degree), dtype=float)
    prior = (fiber_scatter * 0.5 ** np.arange(degree + 1.0)) ** -2
    # Lines that the field dropped are blends; a point that it clipped may just be of a fiber that differs.
    used = np.isin(line, np.unique(line[field.used]))
    for _ in range(ROUNDS):
        coef = _fit_fibers(fiber[used], along[used], residual[used], total[used], prior, len(ratio))
        rest = residual - np.einsum("pn,pn->p", along, coef[fiber])
        total = np.hypot(total, common_error(rest[used], total[used], 0.02))
        used &= np.abs(rest) < CLIP * total
    kept = np.zeros(ratio.shape, bool)
    kept[fiber[used], line[used]] = True
    alone = np.hypot(points["error"], LINE_ERROR)  # without what was added to explain the scatter
    chi2 = np.bincount(fiber[used], (rest[used] / alone[used]) ** 2, len(ratio)).astype(float)
    dof = np.maximum(kept.sum(axis=1) - (degree + 1.0), 0.0).astype(float)
    return WidthSeries(field, grid, coef, kept, chi2, dof)


def _fit_fibers(
    fiber: NDArray[np.int64], along: Array, residual: Array, error: Array, prior: Array, nspec: int
) -> Array:
    """(nspec, n) coefficients of all fibers at once, from the normal equations of each."""
    n = along.shape[1]
    w = 1.0 / error**2
    normal = np.tile(np.diag(prior), (nspec, 1, 1))
    right = np.empty((nspec, n))
    for a in range(n):
        right[:, a] = np.bincount(fiber, w * along[:, a] * residual, nspec)
        for b in range(n):
            normal[:, a, b] += np.bincount(fiber, w * along[:, a] * along[:, b], nspec)
    return np.asarray(np.linalg.solve(normal, right[:, :, None])[:, :, 0])
