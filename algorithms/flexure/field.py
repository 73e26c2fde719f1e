"""A shift of the spectra as a smooth function of fiber and wavelength, fitted to noisy measurements."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray

Array = NDArray[np.float64]

POINT = np.dtype([("fiber", "i4"), ("wave", "f8"), ("shift", "f8"), ("error", "f8"), ("used", "?")])


class TooUncertain(ValueError):
    """The measurements do not support even a constant shift."""


@dataclass(frozen=True)
class Grid:
    """Coordinates of the field: where each fiber and each wavelength lies, both from -1 to 1.

    Attributes
    ----------
    column : (nspec,) position of each fiber across the CCD
    wavemin, wavemax : [Angstrom], wavelengths that map to -1 and 1
    """

    column: Array
    wavemin: float
    wavemax: float

    def along(self, wave: Array) -> Array:
        return np.asarray(2.0 * (wave - self.wavemin) / (self.wavemax - self.wavemin) - 1.0)


@dataclass(frozen=True)
class Field:
    """sum_mn coef[m, n] P_m(column) P_n(wavelength) [pixel], P the Legendre polynomials.

    Attributes
    ----------
    coef : (degree across fibers + 1, degree along wavelength + 1) float64 [pixel]
    error : largest standard error of the field over the CCD [pixel]
    rms : robust scatter of the measurements about the field [pixel]
    used : (npoint,) bool, measurements that survived the clipping
    """

    coef: Array
    error: float = np.inf
    rms: float = np.nan
    used: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))

    @property
    def degrees(self) -> tuple[int, int]:
        return self.coef.shape[0] - 1, self.coef.shape[1] - 1

    def at(self, grid: Grid, wave: Array) -> Array:
        """(nspec, n) shift [pixel] of every fiber at `wave` (n,) [Angstrom]."""
        across = legvander(grid.column, self.degrees[0])
        along = legvander(grid.along(wave), self.degrees[1])
        return np.asarray(across @ self.coef @ along.T)

    def at_points(self, grid: Grid, points: NDArray[np.void]) -> Array:
        """(npoint,) shift [pixel] at the fiber and wavelength of each of the POINTs."""
        across = legvander(grid.column[points["fiber"]], self.degrees[0])
        along = legvander(grid.along(points["wave"]), self.degrees[1])
        return np.asarray(np.einsum("pm,mn,pn->p", across, self.coef, along, optimize=True))

    def plus(self, other: Field) -> Field:
        """The sum of both, with error, scatter and points of the other one."""
        total = np.zeros(np.maximum(self.coef.shape, other.coef.shape))
        for coef in (self.coef, other.coef):
            total[: coef.shape[0], : coef.shape[1]] += coef
        return Field(total, other.error, other.rms, other.used)


def fit_field(
    points: NDArray[np.void], grid: Grid, degrees: tuple[int, int], max_error: float, clip: float = 4.0
) -> Field:
    """Robust least-squares field; the degrees are lowered until the error at every corner is at most `max_error`.

    Weights are 1 / (error^2 + floor^2) with the floor that makes the robust scatter of the pulls 1. Outliers (a
    cosmic ray, an emission line of a galaxy) first count little (Cauchy weights), then nothing (`clip` sigma).

    Parameters
    ----------
    points : (npoint,) POINT
    degrees : across fibers, along wavelength
    max_error : [pixel]

    Raises
    ------
    TooUncertain : even a constant is more uncertain than that; the message says by how much
    """
    if len(points) == 0:
        raise TooUncertain("there is no measurement")
    across, along = _vander(grid.column[points["fiber"]], degrees[0]), _vander(grid.along(points["wave"]), degrees[1])
    edge = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    columns = np.quantile(grid.column, 0.5 * (edge + 1))
    m, n = degrees
    while True:
        ncoef = (m + 1) * (n + 1)
        found = None
        if len(points) > 3 * ncoef:
            design = (across[:, : m + 1, None] * along[:, None, : n + 1]).reshape(len(points), ncoef)
            corners = np.asarray(np.kron(_vander(columns, m), _vander(edge, n)), dtype=float)
            found = _fit(design, points["shift"], points["error"], corners, clip, (m + 1, n + 1))
            if found.error <= max_error:
                return found
        if m == n == 0:
            told = f"is uncertain by {found.error:.2g} pixel" if found else f"rests on {len(points)} measurements"
            raise TooUncertain(f"even a constant {told}")
        m, n = (m, n - 1) if n >= m else (m - 1, n)


def _vander(u: Array, degree: int) -> Array:
    return np.asarray(legvander(u, degree), dtype=float)


def _fit(design: Array, value: Array, error: Array, corners: Array, clip: float, shape: tuple[int, int]) -> Field:
    floor2 = 0.0
    weight = 1.0 / error**2
    soft = np.ones_like(weight)
    used = np.ones(len(value), dtype=bool)
    for step in range(8):
        w = weight * soft
        normal = design.T @ (design * w[:, None])
        covariance = np.linalg.pinv(normal, hermitian=True)
        coef = covariance @ (design.T @ (w * value))
        residual = value - design @ coef
        pull = np.abs(residual) * np.sqrt(weight)
        scale = 1.4826 * np.median(pull[used])
        if step < 3:
            soft = 1.0 / (1.0 + (pull / (2.0 * max(scale, 1.0))) ** 2)
            continue
        if scale > 1.02:
            floor2 += (scale**2 - 1.0) * float(np.median(1.0 / weight[used]))
            weight = 1.0 / (error**2 + floor2)
            pull = np.abs(residual) * np.sqrt(weight)
        keep = pull < clip
        if scale <= 1.02 and np.array_equal(keep, used) and step > 3:
            break
        used, soft = keep, keep.astype(float)
    rank = np.linalg.matrix_rank(normal, hermitian=True)
    worst = np.sqrt(np.einsum("ci,ij,cj->c", corners, covariance, corners).max()) if rank == len(normal) else np.inf
    rms = 1.4826 * float(np.median(np.abs(residual[used]))) if used.any() else np.nan
    return Field(coef.reshape(shape), float(worst), rms, used)
