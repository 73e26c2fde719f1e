"""Errors that all fibers share in one emission line: its wavelength in the table, unknown lines blended with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from algorithms.flexure.field import Field, Grid, common_error, fit_field

Array = NDArray[np.float64]

CLIP = 4.0  # sigma beyond which a line is dropped altogether
FINEST = 0.002  # line offsets below this are never a reason to drop a line [pixel]


def fit_lines_field(
    points: NDArray[np.void],
    line: NDArray[np.int64],
    blur: Array,
    grid: Grid,
    degrees: tuple[int, int],
    max_error: float,
    slope: float,
) -> Field:
    """Robust field through the offsets of emission lines, with an error per line besides that per point.

    Hundreds of fibers see a line with one and the same wrong wavelength, so their mean does not become exact. The
    error of a line is `blur` plus the scatter of the line means beyond the noise, which real blends show by
    themselves; lines far off are dropped.

    Parameters
    ----------
    points : (npoint,) POINT
    line : (npoint,) index of the line of each point
    blur : (nline,) error of the position of each line [pixel]
    grid, degrees, max_error, slope : as `fit_field`; raises as that
    """
    if len(points) == 0:
        return fit_field(points, grid, degrees, max_error, slope)
    field = fit_field(_with_line_error(points, line, blur), grid, degrees, max_error, slope)
    offset, error = _line_means(points, line, field, grid, len(blur))
    seen = np.isfinite(offset)
    noise = np.hypot(error, blur)
    common = common_error(offset[seen], noise[seen], tolerance=1.0 / np.sqrt(max(seen.sum(), 1)))
    dropped = seen & (np.abs(offset) > CLIP * np.sqrt(noise**2 + common**2 + FINEST**2))
    keep = ~dropped[line]
    if common == 0.0 and keep.all():
        return field
    again = fit_field(_with_line_error(points, line, np.hypot(blur, common))[keep], grid, degrees, max_error, slope)
    used = np.zeros(len(points), dtype=bool)
    used[keep] = again.used
    return Field(again.coef, again.error, again.rms, used)


def _with_line_error(points: NDArray[np.void], line: NDArray[np.int64], error: Array) -> NDArray[np.void]:
    """The points with errors such that each line as a whole weighs no more than 1 / error^2."""
    weight = 1.0 / points["error"] ** 2
    total = np.bincount(line, weight, len(error))
    square = np.bincount(line, weight**2, len(error))
    number = np.divide(total**2, square, out=np.zeros_like(total), where=square > 0)
    wider = points.copy()
    wider["error"] = np.sqrt(points["error"] ** 2 + (number * error**2)[line])
    return wider


def _line_means(
    points: NDArray[np.void], line: NDArray[np.int64], field: Field, grid: Grid, nline: int
) -> tuple[Array, Array]:
    """Mean residual of each line and its error [pixel]; NaN for a line without points."""
    weight = np.where(field.used, 1.0 / points["error"] ** 2, 0.0)
    residual = points["shift"] - field.at_points(grid, points)
    total = np.bincount(line, weight, nline)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.bincount(line, weight * residual, nline) / total, 1.0 / np.sqrt(total)
