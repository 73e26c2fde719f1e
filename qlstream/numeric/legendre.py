"""Legendre series of many fibers at once: evaluation, derivative and least-squares fit.

Traces, widths and PSF parameters of the data format are Legendre series in
u = 2 (wave - wavemin) / (wavemax - wavemin) - 1 (spec datamodel §3).
"""

from __future__ import annotations

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def reduced(value: ArrayLike, vmin: float, vmax: float) -> Array:
    """Map [vmin, vmax] to [-1, 1]; values outside map outside."""
    return 2.0 * (np.asarray(value, dtype=float) - vmin) / (vmax - vmin) - 1.0


def evaluate(coef: Array, u: ArrayLike) -> Array:
    """Series of each row at `u`.

    Parameters
    ----------
    coef : (nspec, ncoef) float64
    u : (n,) shared by all rows, or (nspec, n), reduced coordinate

    Returns
    -------
    (nspec, n) float64
    """
    u = np.asarray(u, dtype=float)
    if u.ndim <= 1:
        return np.asarray(coef @ legendre.legvander(np.atleast_1d(u), coef.shape[1] - 1).T)
    if u.shape[0] != coef.shape[0]:
        raise ValueError(f"legendre.evaluate: coef {coef.shape} and u {u.shape} differ in their number of rows")
    return np.einsum("fk,fnk->fn", coef, legendre.legvander(u, coef.shape[1] - 1))


def derivative(coef: Array) -> Array:
    """Coefficients of d(series)/du, shape (nspec, ncoef - 1); a constant gives one zero column."""
    if coef.shape[1] == 1:
        return np.zeros_like(coef)
    return np.asarray(legendre.legder(coef, axis=1))


def fit(u: Array, values: Array, degree: int, weights: Array | None = None) -> Array:
    """Least-squares series of degree `degree` for every row.

    Parameters
    ----------
    u : (n,) or (nspec, n) reduced coordinate
    values : (nspec, n)
    weights : same shape as values, multiplies the squared residuals (an inverse variance), default 1

    Returns
    -------
    (nspec, degree + 1) float64
    """
    values = np.atleast_2d(values)
    if u.ndim == 1 and weights is None:
        return np.asarray(legendre.legfit(u, values.T, degree).T)
    u = np.broadcast_to(u, values.shape)
    root = np.ones_like(values) if weights is None else np.sqrt(np.broadcast_to(weights, values.shape))
    out = np.empty((values.shape[0], degree + 1))
    for i in range(values.shape[0]):
        design = legendre.legvander(u[i], degree) * root[i][:, None]
        out[i] = np.linalg.lstsq(design, values[i] * root[i], rcond=None)[0]
    return out


def on_domain(coef: Array, old: tuple[float, float], new: tuple[float, float]) -> Array:
    """The same polynomials (nspec, ncoef) as series over another domain (vmin, vmax): exact, the degree is the same."""
    if old == new:
        return coef
    degree = coef.shape[1] - 1
    u = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))  # Chebyshev nodes: well conditioned
    values = new[0] + (u + 1) * (new[1] - new[0]) / 2
    return fit(u, evaluate(coef, reduced(values, *old)), degree)
