"""Positive definite systems by Cholesky, and least-squares splines, by the names that users of the seed know.

For dense matrices. Where a matrix is a band, as those of spectra are, `qlstream.numeric.banded` takes a thousandth of
the time; for uniform knots and covariances, see `qlstream.numeric.bspline`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import LSQUnivariateSpline
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dpotri

Array = NDArray[np.float64]

_RETRY = 1.5  # times the resolution asked for, if that leaves knots without data


def cholesky_solve(a: ArrayLike, b: ArrayLike, overwrite: bool = False, lower: bool = False) -> Array:
    """x of A x = b.

    Parameters
    ----------
    a : (n, n) symmetric positive definite; only one triangle is looked at
    b : (n,) or (n, m)
    overwrite : allow `a` to be overwritten by its factor, which saves a copy of a float64 Fortran-ordered matrix
    lower : look at the lower triangle instead of the upper one

    Raises
    ------
    numpy.linalg.LinAlgError : `a` is not positive definite
    ValueError : shapes do not fit, or a value is not finite
    """
    return np.asarray(cho_solve(_factor("cholesky_solve", a, overwrite, lower), np.asarray(b, dtype=np.float64)))


def cholesky_invert(a: ArrayLike, overwrite: bool = False, lower: bool = False) -> Array:
    """(n, n) inverse of a symmetric positive definite matrix, both its triangles; as `cholesky_solve`."""
    return _inverse(*_factor("cholesky_invert", a, overwrite, lower))


def cholesky_solve_and_invert(
    a: ArrayLike, b: ArrayLike, overwrite: bool = False, lower: bool = False
) -> tuple[Array, Array]:
    """Both x of A x = b and the inverse of A, the covariance of x in a fit; as `cholesky_solve`, with one factor."""
    factor, is_lower = _factor("cholesky_solve_and_invert", a, overwrite, lower)
    x = np.asarray(cho_solve((factor, is_lower), np.asarray(b, dtype=np.float64)))
    return x, _inverse(factor, is_lower)


def spline_fit(
    output_wave: ArrayLike,
    input_wave: ArrayLike,
    input_flux: ArrayLike,
    required_resolution: float,
    input_ivar: ArrayLike | None = None,
    order: int = 3,
    max_resolution: float | None = None,
) -> Array:
    """Least-squares spline of a spectrum, at other wavelengths (spec offline-reduction §6).

    Over a range of n = int(range / resolution) knots, these stand range / (n + 1) apart, half of that from the first
    sample on; knots with no sample within `required_resolution` are left out.

    Parameters
    ----------
    output_wave : (nout,); beyond the samples the last polynomial goes on
    input_wave, input_flux : (nin,), wavelengths increase
    required_resolution : distance of the knots, at most a little more than this [as wavelengths]
    input_ivar : (nin,) inverse variances; samples with 0 do not count, whatever their flux. Default all alike
    order : of the polynomials
    max_resolution : tried once if the fit fails because too few samples stand between its knots; default 1.5 times
        the one required

    Returns
    -------
    (nout,) float64

    Raises
    ------
    ValueError : shapes differ, the resolution is not positive, or there are too few samples even for `max_resolution`
    """
    x, y = np.asarray(input_wave, dtype=np.float64), np.asarray(input_flux, dtype=np.float64)
    weight = np.ones(x.shape) if input_ivar is None else np.asarray(input_ivar, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or weight.shape != x.shape:
        raise ValueError(f"spline_fit: wave {x.shape}, flux {y.shape}, ivar {weight.shape} must be of one shape (n,)")
    if not required_resolution > 0:
        raise ValueError(f"spline_fit: required_resolution = {required_resolution} must be positive")
    told = weight > 0
    x, y, weight = x[told], y[told], np.sqrt(weight[told])
    if x.size <= order:
        raise ValueError(f"spline_fit: {x.size} samples with information, needed {order + 1} for order {order}")
    coarse = _RETRY * required_resolution if max_resolution is None else max_resolution
    for resolution in (required_resolution, coarse):
        try:
            spline = LSQUnivariateSpline(x, y, _knots(x, resolution), w=weight, k=order)
        except ValueError as error:
            failure = error
            continue
        return np.asarray(spline(np.asarray(output_wave, dtype=np.float64)))
    raise ValueError(
        f"spline_fit: {x.size} samples from {x[0]:g} to {x[-1]:g} carry no spline with knots every "
        f"{required_resolution:g} or {coarse:g}: {failure}"
    )


def _knots(x: Array, resolution: float) -> Array:
    """Interior knots; each with a sample within `resolution`."""
    n = int((x[-1] - x[0]) / resolution)
    step = (x[-1] - x[0]) / (n + 1)
    knots = x[0] + step * (0.5 + np.arange(n))
    after = np.clip(np.searchsorted(x, knots), 1, x.size - 1)
    nearest = np.minimum(np.abs(knots - x[after - 1]), np.abs(knots - x[after]))
    return np.asarray(knots[nearest <= resolution])


def _factor(who: str, a: ArrayLike, overwrite: bool, lower: bool) -> tuple[Array, bool]:
    matrix = np.asarray(a, dtype=np.float64)
    try:
        factor, is_lower = cho_factor(matrix, lower=lower, overwrite_a=overwrite)
    except np.linalg.LinAlgError as error:
        raise np.linalg.LinAlgError(f"{who}: the matrix {matrix.shape} is not positive definite ({error})") from None
    return factor, bool(is_lower)


def _inverse(factor: Array, lower: bool) -> Array:
    inverse, _ = dpotri(factor, lower=lower)
    half = np.tril(inverse, -1) if lower else np.triu(inverse, 1)
    return np.asarray(half + half.T + np.diag(np.diag(inverse)))
