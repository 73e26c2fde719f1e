"""Gaussian integrated over pixels plus a constant, fitted to many short profiles at once."""

from __future__ import annotations

from math import erf, exp, sqrt

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]

_ROOT2 = sqrt(2.0)
_ROOT2PI = sqrt(2.0 * np.pi)


def fit_gaussians(profiles: Array, ivar: Array, center: Array, sigma: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Least-squares flux, center, sigma and constant of each profile, by Levenberg-Marquardt.

    The model of sample k is flux / 2 [erf((k + 1/2 - center) / (sqrt2 sigma)) - erf((k - 1/2 - center) / (sqrt2
    sigma))] + constant, so that sigma is that of the light, not of the light smeared by the pixel.

    Parameters
    ----------
    profiles, ivar : (n, m) float64; ivar = 0 takes a sample out
    center, sigma : (n,) start values [sample]

    Returns
    -------
    parameters : (n, 4) float64: flux, center, sigma, constant
    good : (n,) bool; False where fewer than 5 samples count, or the fit ran away

    Raises
    ------
    ValueError : the shapes do not fit
    """
    if profiles.shape != ivar.shape or center.shape != sigma.shape or len(profiles) != len(center):
        raise ValueError(
            f"fit_gaussians: profiles {profiles.shape}, ivar {ivar.shape}, center {center.shape}, sigma {sigma.shape} "
            "do not fit; give (n, m), (n, m), (n,), (n,)"
        )
    parameters = np.zeros((len(profiles), 4))
    good = np.zeros(len(profiles), dtype=np.bool_)
    _fit_all(profiles, ivar, center, sigma, parameters, good)
    return parameters, good


@njit(nogil=True, cache=True)
def _chi2(y: Array, w: Array, p: Array) -> float:
    total = 0.0
    scale = _ROOT2 * p[2]
    low = erf((-0.5 - p[1]) / scale)
    for k in range(y.size):
        high = erf((k + 0.5 - p[1]) / scale)
        r = y[k] - 0.5 * p[0] * (high - low) - p[3]
        total += w[k] * r * r
        low = high
    return total


@njit(nogil=True, cache=True)
def _normal_equations(y: Array, w: Array, p: Array, normal: Array, right: Array) -> None:
    normal[:] = 0.0
    right[:] = 0.0
    g = np.empty(4)
    s = p[2]
    t = -0.5 - p[1]
    low = erf(t / (_ROOT2 * s))
    low_density = exp(-0.5 * (t / s) ** 2) / (_ROOT2PI * s)
    for k in range(y.size):
        t_high = k + 0.5 - p[1]
        high = erf(t_high / (_ROOT2 * s))
        high_density = exp(-0.5 * (t_high / s) ** 2) / (_ROOT2PI * s)
        g[0] = 0.5 * (high - low)
        g[1] = -p[0] * (high_density - low_density)
        g[2] = -p[0] * (t_high * high_density - t * low_density) / s
        g[3] = 1.0
        r = y[k] - p[0] * g[0] - p[3]
        for a in range(4):
            right[a] += w[k] * g[a] * r
            for b in range(4):
                normal[a, b] += w[k] * g[a] * g[b]
        low, low_density, t = high, high_density, t_high


@njit(nogil=True, cache=True)
def _fit_all(
    profiles: Array, ivar: Array, center: Array, sigma: Array, parameters: Array, good: NDArray[np.bool_]
) -> None:
    normal, right, damped, p, trial = np.empty((4, 4)), np.empty(4), np.empty((4, 4)), np.empty(4), np.empty(4)
    m = profiles.shape[1]
    for n in range(profiles.shape[0]):
        y, w = profiles[n], ivar[n]
        count, lowest, total = 0, np.inf, 0.0
        for k in range(m):
            if w[k] > 0:
                count += 1
                lowest = min(lowest, y[k])
                total += y[k]
        if count < 5:
            continue
        p[0], p[1], p[2], p[3] = max(total - count * lowest, 1.0), center[n], sigma[n], lowest
        value, damping, converged = _chi2(y, w, p), 1e-3, False
        for _ in range(40):
            _normal_equations(y, w, p, normal, right)
            damped[:] = normal
            for a in range(4):
                damped[a, a] += damping * normal[a, a] + 1e-12
            step = np.linalg.solve(damped, right)
            for a in range(4):
                trial[a] = p[a] + step[a]
            trial[2] = min(max(trial[2], 0.3 * p[2]), 3.0 * p[2])
            new = _chi2(y, w, trial)
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
        good[n] = converged and 0.0 < p[1] < m - 1 and 0.2 < p[2] < 0.5 * m and p[0] > 0
