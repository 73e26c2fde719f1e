"""Uniform cubic B-splines: basis, evaluation, and weighted least squares from scattered samples.

A spline on `n` coefficients with knots every `step` is sum_k c_k B((x - start)/step - k), where
B is the cardinal cubic B-spline centred on 0 (de Boor, A Practical Guide to Splines, ch. IX). At x between
knots i and i + 1 the four basis functions i - 1 ... i + 2 are not zero; so the spline is defined on
[start + step, start + (n - 2) step], which `Knots.over` makes the range that was asked for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from qlstream.numeric.banded import factorize, inverse_band, solve

Array = NDArray[np.float64]


class Knots(NamedTuple):
    """Where the coefficients of a uniform cubic spline sit; kernels take it as it is.

    Attributes
    ----------
    start : position of coefficient 0
    step : distance of neighbouring coefficients
    n : number of coefficients
    """

    start: float
    step: float
    n: int

    @classmethod
    def over(cls, low: float, high: float, step: float, margin: int = 0) -> Knots:
        """Knots that cover [low, high] in whole intervals of at most `step`, and `margin` more on both sides.

        Raises
        ------
        ValueError : high <= low or step <= 0
        """
        if not (high > low and step > 0):
            raise ValueError(f"Knots.over: need low < high and step > 0, got [{low}, {high}] and {step}")
        intervals = int(np.ceil((high - low) / step))
        step = (high - low) / intervals
        return cls(low - (1 + margin) * step, step, intervals + 3 + 2 * margin)

    @property
    def positions(self) -> Array:
        """(n,) centre of each basis function."""
        return np.asarray(self.start + self.step * np.arange(self.n))

    def evaluate(self, coef: Array, x: ArrayLike) -> Array:
        """The spline at `x`, any shape; beyond the ends the last polynomial goes on."""
        x = np.asarray(x, dtype=float)
        return _evaluate(np.ascontiguousarray(coef, float), self, x.ravel()).reshape(x.shape)

    def fit(self, x: ArrayLike, value: ArrayLike, weight: ArrayLike) -> tuple[Array, Array]:
        """Weighted least-squares spline through scattered samples; gaps are bridged straight.

        Parameters
        ----------
        x, value, weight : same shape; weight = inverse variance, 0 leaves a sample out

        Returns
        -------
        coef : (n,)
        covariance : (n, 4) lower band of the coefficients' covariance, [k, d] belongs to k and k + d
        """
        normal, rhs = np.zeros((self.n, 4)), np.zeros(self.n)
        x, value, weight = (np.ravel(np.asarray(a, dtype=float)) for a in (x, value, weight))
        _accumulate(normal, rhs, self, x, value, weight)
        bridge_gaps(normal)
        factorize(normal)
        solve(normal, rhs)
        return rhs, inverse_band(normal)


@njit(nogil=True, cache=True, inline="always")
def cubic_basis(t: float) -> tuple[float, float, float, float]:
    """The four cubic basis functions at the fraction t in [0, 1] between two knots."""
    s = 1.0 - t
    t2 = t * t
    s2 = s * s
    return s2 * s / 6.0, 2.0 / 3.0 - t2 + 0.5 * t2 * t, 2.0 / 3.0 - s2 + 0.5 * s2 * s, t2 * t / 6.0


@njit(nogil=True, cache=True, inline="always")
def locate(x: float, knots: Knots) -> tuple[int, float]:
    """(k, t): the first of the four coefficients that count at x, and the fraction of the interval."""
    u = (x - knots.start) / knots.step
    i = min(max(int(np.floor(u)), 1), knots.n - 3)
    return i - 1, u - i


@njit(nogil=True, cache=True, inline="always")
def value_at(coef: Array, k: int, t: float) -> float:
    """The spline at the place that `locate` found."""
    b0, b1, b2, b3 = cubic_basis(t)
    return b0 * coef[k] + b1 * coef[k + 1] + b2 * coef[k + 2] + b3 * coef[k + 3]


@njit(nogil=True, cache=True, inline="always")
def variance_at(covariance: Array, k: int, t: float) -> float:
    """The variance of the spline there, from the lower band (n, >= 4) of the covariance of its coefficients."""
    b0, b1, b2, b3 = cubic_basis(t)
    c = covariance
    return (
        b0 * (b0 * c[k, 0] + 2.0 * (b1 * c[k, 1] + b2 * c[k, 2] + b3 * c[k, 3]))
        + b1 * (b1 * c[k + 1, 0] + 2.0 * (b2 * c[k + 1, 1] + b3 * c[k + 1, 2]))
        + b2 * (b2 * c[k + 2, 0] + 2.0 * b3 * c[k + 2, 1])
        + b3 * b3 * c[k + 3, 0]
    )


@njit(nogil=True, cache=True)
def _evaluate(coef: Array, knots: Knots, x: Array) -> Array:
    out = np.empty(x.size)
    for j in range(x.size):
        k, t = locate(x[j], knots)
        out[j] = value_at(coef, k, t)
    return out


@njit(nogil=True, cache=True)
def add_sample(normal: Array, rhs: Array, k: int, t: float, scale: float, value: float, weight: float) -> None:
    """Add one sample `value = scale * spline` to the normal equations."""
    basis = cubic_basis(t)
    ws = weight * scale
    for a in range(4):
        rhs[k + a] += ws * basis[a] * value
        wsa = ws * scale * basis[a]
        for b in range(a, 4):
            normal[k + a, b - a] += wsa * basis[b]


@njit(nogil=True, cache=True)
def _accumulate(normal: Array, rhs: Array, knots: Knots, x: Array, value: Array, weight: Array) -> None:
    for j in range(x.size):
        if weight[j] > 0:
            k, t = locate(x[j], knots)
            add_sample(normal, rhs, k, t, 1.0, value[j], weight[j])


@njit(nogil=True, cache=True)
def stiffen(normal: Array, penalty: float) -> None:
    """Add `penalty` times the squared second differences of the coefficients (P-splines, Eilers & Marx 1996)."""
    for k in range(1, normal.shape[0] - 1):
        normal[k - 1, 0] += penalty
        normal[k, 0] += 4.0 * penalty
        normal[k + 1, 0] += penalty
        normal[k - 1, 1] -= 2.0 * penalty
        normal[k, 1] -= 2.0 * penalty
        normal[k - 1, 2] += penalty


@njit(nogil=True, cache=True)
def bridge_gaps(normal: Array) -> None:
    """A penalty so small that it only decides where there are no data: there the spline goes straight on."""
    stiffen(normal, 1e-6 * normal[:, 0].mean() + 1e-300)
