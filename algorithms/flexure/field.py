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


def fit_field(
    points: NDArray[np.void], grid: Grid, degrees: tuple[int, int], max_error: float, slope: float, clip: float = 4.0
) -> Field:
    """Robust least-squares field; the degrees are lowered until the error at every corner is at most `max_error`.

    Weights are 1 / (error^2 + floor^2) with the floor that makes the robust scatter of the pulls 1. Outliers (a
    cosmic ray, an emission line of a galaxy) first count little (Cauchy weights), then nothing (`clip` sigma). Where
    measurements are few or faint, a Gaussian prior keeps the field as stiff as a spectrograph is.

    Parameters
    ----------
    points : (npoint,) POINT
    degrees : across fibers, along wavelength
    max_error : [pixel]
    slope : prior size of the linear terms [pixel]; half of it for each order more, none for the constant

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
            order = np.add.outer(np.arange(m + 1), np.arange(n + 1)).ravel()
            prior = np.where(order > 0, (slope * 0.5 ** (order - 1.0)) ** -2, 0.0)
            found = _fit(design, points["shift"], points["error"], prior, corners, clip, (m + 1, n + 1))
            if found.error <= max_error:
                return found
        if m == n == 0:
            told = f"is uncertain by {found.error:.2g} pixel" if found else f"rests on {len(points)} measurements"
            raise TooUncertain(f"even a constant {told}")
        m, n = (m, n - 1) if n >= m else (m - 1, n)


def common_error(residual: Array, error: Array, tolerance: float) -> float:
    """The error that, beside `error`, explains the robust scatter of the residuals; 0 if that is within `tolerance`.

    Parameters
    ----------
    residual, error : (n,) [pixel]
    tolerance : relative excess of the scatter that is no reason for more error
    """
    size = np.abs(residual[:: max(1, len(residual) // 4000)])  # a sample is enough for one number
    error = error[:: max(1, len(error) // 4000)]
    if not size.size or 1.4826 * np.median(size / error) <= 1.0 + tolerance:
        return 0.0
    low, high = 0.0, 2.0 * float(size.max())
    for _ in range(20):
        middle = 0.5 * (low + high)
        explained = 1.4826 * np.median(size / np.hypot(error, middle)) <= 1.0
        low, high = (low, middle) if explained else (middle, high)
    return high


def _vander(u: Array, degree: int) -> Array:
    return np.asarray(legvander(u, degree), dtype=float)


def _fit(
    design: Array, value: Array, error: Array, prior: Array, corners: Array, clip: float, shape: tuple[int, int]
) -> Field:
    total = error
    soft = np.ones_like(value)
    used = np.ones(len(value), dtype=bool)
    for step in range(8):
        w = soft / total**2
        normal = design.T @ (design * w[:, None]) + np.diag(prior)
        covariance = np.linalg.pinv(normal, hermitian=True)
        coef = covariance @ (design.T @ (w * value))
        residual = value - design @ coef
        if step < 3:
            pull = np.abs(residual) / total
            soft = 1.0 / (1.0 + (pull / (2.0 * max(1.4826 * float(np.median(pull)), 1.0))) ** 2)
            continue
        total = np.hypot(error, common_error(residual[used], error[used], 0.02))
        keep = np.abs(residual) < clip * total
        if step > 3 and np.array_equal(keep, used):
            break
        used, soft = keep, keep.astype(float)
    rank = np.linalg.matrix_rank(normal, hermitian=True)
    worst = np.sqrt(np.einsum("ci,ij,cj->c", corners, covariance, corners).max()) if rank == len(normal) else np.inf
    rms = 1.4826 * float(np.median(np.abs(residual[used]))) if used.any() else np.nan
    return Field(coef.reshape(shape), float(worst), rms, used)
