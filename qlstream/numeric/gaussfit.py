"""A line integrated over pixels plus a constant, fitted to many short profiles at once."""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, exp, sqrt

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]

NPAR = 4  # flux, center, sigma, constant
_ROOT2 = sqrt(2.0)
_ROOT2PI = sqrt(2.0 * np.pi)


@dataclass(frozen=True)
class LineFits:
    """What `fit_lines` found in n profiles.

    Attributes
    ----------
    parameters : (n, 4) float64: flux, center, sigma, constant
    errors : (n, 4) float64, standard errors by the inverse variances; infinite where `good` is False
    chi2 : (n,) float64
    dof : (n,) int64, samples less parameters
    good : (n,) bool; False where fewer than 5 samples count, or the fit ran away
    """

    parameters: Array
    errors: Array
    chi2: Array
    dof: NDArray[np.int64]
    good: NDArray[np.bool_]


def fit_lines(profiles: Array, ivar: Array, center: Array, sigma: Array, hermite: Array | None = None) -> LineFits:
    """Least-squares flux, center, sigma and constant of each profile, by Levenberg-Marquardt.

    The model of sample k is flux [F((k + 1/2 - center) / sigma) - F((k - 1/2 - center) / sigma)] + constant, F the
    integral of f(t) = g(t) sum_j h_j He_j(t), g the unit Gaussian and He_j the probabilists' Hermite polynomials. So
    sigma is that of the light, not of the light smeared by the pixel, and where the wings of a PSF are known (its
    GH-0-j), it is the PSF's core width and not that of the Gaussian nearest to it.

    Parameters
    ----------
    profiles, ivar : (n, m) float64; ivar = 0 takes a sample out
    center, sigma : (n,) start values [sample]
    hermite : (n, k) float64, h_0 ... h_(k-1); None for plain Gaussians

    Raises
    ------
    ValueError : the shapes do not fit
    """
    if profiles.shape != ivar.shape or center.shape != sigma.shape or len(profiles) != len(center):
        raise ValueError(
            f"fit_lines: profiles {profiles.shape}, ivar {ivar.shape}, center {center.shape}, sigma {sigma.shape} "
            "do not fit; give (n, m), (n, m), (n,), (n,)"
        )
    n = len(profiles)
    shape = np.ones((n, 1)) if hermite is None else np.ascontiguousarray(hermite, dtype=np.float64)
    if shape.ndim != 2 or len(shape) != n or shape.shape[1] == 0:
        raise ValueError(f"fit_lines: hermite {shape.shape} must be ({n}, 1 or more), one row per profile")
    fits = LineFits(
        np.zeros((n, NPAR)), np.full((n, NPAR), np.inf), np.zeros(n), np.zeros(n, np.int64), np.zeros(n, np.bool_)
    )
    _fit_all(profiles, ivar, center, sigma, shape, fits.parameters, fits.errors, fits.chi2, fits.dof, fits.good)
    return fits


def fit_gaussians(profiles: Array, ivar: Array, center: Array, sigma: Array) -> tuple[Array, NDArray[np.bool_]]:
    """(parameters, good) of `fit_lines` for plain Gaussians; raises as that."""
    fits = fit_lines(profiles, ivar, center, sigma)
    return fits.parameters, fits.good


@njit(nogil=True, cache=True)
def _profile(t: float, h: Array) -> tuple[float, float]:
    """F and f at t sigmas; F without its constant of one half."""
    gauss = exp(-0.5 * t * t) / _ROOT2PI
    integral = 0.5 * h[0] * erf(t / _ROOT2)
    value = h[0]
    before, polynomial = 1.0, t  # He_(j-1), He_j
    for j in range(1, h.size):
        integral -= gauss * h[j] * before
        value += h[j] * polynomial
        before, polynomial = polynomial, t * polynomial - j * before
    return integral, gauss * value


@njit(nogil=True, cache=True)
def _chi2(y: Array, w: Array, h: Array, p: Array) -> float:
    total = 0.0
    low = _profile((-0.5 - p[1]) / p[2], h)[0]
    for k in range(y.size):
        high = _profile((k + 0.5 - p[1]) / p[2], h)[0]
        r = y[k] - p[0] * (high - low) - p[3]
        total += w[k] * r * r
        low = high
    return total


@njit(nogil=True, cache=True)
def _normal_equations(y: Array, w: Array, h: Array, p: Array, normal: Array, right: Array) -> None:
    normal[:] = 0.0
    right[:] = 0.0
    g = np.empty(NPAR)
    t = (-0.5 - p[1]) / p[2]
    low, low_density = _profile(t, h)
    for k in range(y.size):
        t_high = (k + 0.5 - p[1]) / p[2]
        high, high_density = _profile(t_high, h)
        g[0] = high - low
        g[1] = -p[0] * (high_density - low_density) / p[2]
        g[2] = -p[0] * (t_high * high_density - t * low_density) / p[2]
        g[3] = 1.0
        r = y[k] - p[0] * g[0] - p[3]
        for a in range(NPAR):
            right[a] += w[k] * g[a] * r
            for b in range(a + 1):
                normal[a, b] += w[k] * g[a] * g[b]
        low, low_density, t = high, high_density, t_high


@njit(nogil=True, cache=True)
def _solve(normal: Array, damping: float, right: Array, factor: Array, step: Array) -> bool:
    """Solve (normal + damping its diagonal) step = right by Cholesky; False if it is not positive definite."""
    for a in range(NPAR):
        for b in range(a + 1):
            total = normal[a, b]
            if a == b:
                total += damping * total + 1e-12
            for c in range(b):
                total -= factor[a, c] * factor[b, c]
            if a > b:
                factor[a, b] = total / factor[b, b]
            elif total > 0:
                factor[a, a] = sqrt(total)
            else:
                return False
    for a in range(NPAR):
        total = right[a]
        for c in range(a):
            total -= factor[a, c] * step[c]
        step[a] = total / factor[a, a]
    for a in range(NPAR - 1, -1, -1):
        total = step[a]
        for c in range(a + 1, NPAR):
            total -= factor[c, a] * step[c]
        step[a] = total / factor[a, a]
    return True


@njit(nogil=True, cache=True)
def _fit_all(
    profiles: Array,
    ivar: Array,
    center: Array,
    sigma: Array,
    shape: Array,
    parameters: Array,
    errors: Array,
    chi2: Array,
    dof: NDArray[np.int64],
    good: NDArray[np.bool_],
) -> None:
    normal, factor = np.empty((NPAR, NPAR)), np.empty((NPAR, NPAR))
    right, step, p, trial = np.empty(NPAR), np.empty(NPAR), np.empty(NPAR), np.empty(NPAR)
    m = profiles.shape[1]
    for n in range(profiles.shape[0]):
        y, w, h = profiles[n], ivar[n], shape[n]
        count, lowest, total = 0, np.inf, 0.0
        for k in range(m):
            if w[k] > 0:
                count += 1
                lowest = min(lowest, y[k])
                total += y[k]
        if count < 5:
            continue
        p[0], p[1], p[2], p[3] = max(total - count * lowest, 1.0), center[n], sigma[n], lowest
        value, damping, converged = _chi2(y, w, h, p), 1e-3, False
        for _ in range(40):
            _normal_equations(y, w, h, p, normal, right)
            if not _solve(normal, damping, right, factor, step):
                break
            for a in range(NPAR):
                trial[a] = p[a] + step[a]
            trial[2] = min(max(trial[2], 0.3 * p[2]), 3.0 * p[2])
            new = _chi2(y, w, h, trial)
            if new <= value:
                converged = value - new < 1e-7 * (value + 1e-12)
                p[:] = trial
                value, damping = new, max(damping * 0.2, 1e-9)
                if converged:
                    break
            else:
                damping *= 10.0
                if damping > 1e8:
                    converged = True  # no step helps any more
                    break
        parameters[n] = p
        chi2[n], dof[n] = value, count - NPAR
        good[n] = converged and 0.0 < p[1] < m - 1 and 0.2 < p[2] < 0.5 * m and p[0] > 0
        if not good[n]:
            continue
        _normal_equations(y, w, h, p, normal, right)
        for a in range(NPAR):
            right[:] = 0.0
            right[a] = 1.0
            if not _solve(normal, 0.0, right, factor, step):
                good[n] = False
                break
            errors[n, a] = sqrt(step[a])
