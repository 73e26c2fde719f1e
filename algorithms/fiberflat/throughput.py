"""Throughput of every fiber, smooth in wavelength, from what it counts of a light that is known.

A throughput varies slowly with wavelength: that is what beats the noise of a single bin. How slowly, the camera's own
fibers tell: each throughput is a cubic B-spline whose penalty on the second differences of the coefficients is the
inverse of their mean square over all fibers, found by expectation maximization (P-splines of Eilers & Marx 1996 as a
mixed model). Structure narrower than about two knots (fringes, single pixels) is none of a fiber's and left to the
pixel flat.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from qlstream.numeric.banded import factorize, inverse_band, solve
from qlstream.numeric.bspline import Knots, add_sample, bridge_gaps, locate, stiffen, value_at, variance_at

Array = NDArray[np.float64]
_REJECTIONS = 20  # rounds of outlier rejection of one fiber, at most
_LEARNING = 6  # rounds of expectation maximization
_COVERED = 0.9  # share of the fibers whose median is the median of all


class Throughputs:
    """The throughputs as they stand between two rounds of a fit, in which light and throughputs are found in turn.

    Parameters
    ----------
    wave : (nspec, n) or, if all fibers share it, (1, n) [Angstrom]
    flux, ivar : (nspec, n) counts and their inverse variance, 0 = leave out
    live : (nspec,) fibers with light; the others get variance inf everywhere
    knot_step : of the throughputs [Angstrom]
    gray : (nspec,) to start with

    Attributes
    ----------
    coef : (nspec, knots.n) of the splines
    good : (nspec, n) bool, samples that the last round used
    chi2, freedom : of the last round, and the degrees of freedom that it took
    """

    def __init__(
        self,
        wave: Array,
        flux: NDArray[np.floating[Any]],
        ivar: NDArray[np.floating[Any]],
        live: NDArray[np.bool_],
        knot_step: float,
        gray: Array,
    ) -> None:
        seen = wave[live] if len(wave) == len(live) else wave
        self.low, self.high = float(seen.min()), float(seen.max())
        self.knots = Knots.over(self.low, self.high, knot_step)
        self._wave, self._flux, self._ivar, self._live = wave, flux, ivar, live
        nspec, n = len(live), self.knots.n
        self.good = (ivar > 0) & live[:, None]
        self.coef = np.repeat(gray[:, None], n, axis=1)
        self._covariance = np.full((nspec, n, 4), np.inf)
        self._normal, self._rhs = np.zeros((nspec, n, 4)), np.zeros((nspec, n))
        self._penalty = 0.0
        self.chi2 = self.freedom = 0.0

    def refit(self, expected: Array, nsig: float, tolerance: float) -> None:
        """Fit all throughputs, given what a fiber of throughput 1 counts, with outliers and penalty found anew.

        Parameters
        ----------
        expected : (nspec, n) counts
        nsig : a sample is left out beyond this many sigma ...
        tolerance : ... where sigma includes this fraction of the counts, so that no real structure is clipped
        """
        self.good[:] = (self._ivar > 0) & self._live[:, None]
        self.chi2 = _gather(self._wave, expected, self._flux, self._ivar, self._live, self.knots, self._penalty, nsig,
                            tolerance, self.good, self._normal, self._rhs)  # fmt: skip
        self._penalty, self.freedom = _learn(
            self._normal, self._rhs, self._live, self._penalty, self.coef, self._covariance
        )

    def on_grid(self, grid: Array) -> tuple[Array, Array]:
        """(nspec, ngrid) throughputs and their variance, which is inf where a fiber has no data."""
        n = self.good.shape[1]
        fiber = np.arange(len(self.good)) if len(self._wave) > 1 else 0
        some = self.good.any(axis=1)
        begin = np.where(some, self._wave[fiber, self.good.argmax(axis=1)], np.inf)
        end = np.where(some, self._wave[fiber, n - 1 - self.good[:, ::-1].argmax(axis=1)], -np.inf)
        return _sample(grid, begin, end, self.coef, self._covariance, self.knots)


def median_fiber(value: Array, variance: Array, nlive: int) -> Array:
    """(ngrid,) median of `value` over the fibers of finite variance, without steps where some of them end.

    Where fewer than nine in ten of the `nlive` fibers have data, the typical fiber keeps its last ratio to it: so the
    norm does not jump where the fibers of one side of the CCD run out.
    """
    return _median_fiber(value, variance, int(_COVERED * nlive))


@njit(nogil=True, cache=True)
def _gather(  # type: ignore[no-untyped-def]
    wave, expected, flux, ivar, live, knots, penalty, nsig, tolerance, good, normal, rhs
):
    """Normal equations of each live fiber's throughput, without its outliers, which `good` loses; returns chi2."""
    ny = flux.shape[1]
    first = np.empty(ny, np.int64)
    fraction = np.empty(ny)
    deviation = np.empty(ny)  # squared [sigma^2], softened by the tolerance
    factor = np.empty((knots.n, 4))
    solution = np.empty(knots.n)
    total = 0.0
    for f in range(flux.shape[0]):
        if not live[f]:
            continue
        a, b = normal[f], rhs[f]
        a[:] = 0.0
        b[:] = 0.0
        for j in range(ny):
            first[j], fraction[j] = locate(wave[f if len(wave) > 1 else 0, j], knots)
            if good[f, j]:
                add_sample(a, b, first[j], fraction[j], expected[f, j], flux[f, j], ivar[f, j])
        chi2 = 0.0
        for _ in range(_REJECTIONS):
            factor[:] = a
            solution[:] = b
            bridge_gaps(factor)
            stiffen(factor, penalty)
            factorize(factor)
            solve(factor, solution)
            chi2 = 0.0
            worst = 0.0
            for j in range(ny):
                deviation[j] = 0.0
                if good[f, j]:
                    model = expected[f, j] * value_at(solution, first[j], fraction[j])
                    z2 = ivar[f, j] * (flux[f, j] - model) ** 2
                    chi2 += z2
                    deviation[j] = z2 / (1.0 + ivar[f, j] * (tolerance * model) ** 2)
                    worst = max(worst, deviation[j])
            if worst <= nsig * nsig:
                break
            for j in range(ny):  # an outlier pulls the fit and so spoils its neighbours: only the worst go at once
                if deviation[j] > max(nsig * nsig, 0.25 * worst):
                    good[f, j] = False
                    add_sample(a, b, first[j], fraction[j], expected[f, j], flux[f, j], -ivar[f, j])
        total += chi2
    return total


@njit(nogil=True, cache=True)
def _learn(normal, rhs, live, penalty, coef, covariance):  # type: ignore[no-untyped-def]
    """Solve all live fibers with the penalty that their own second differences imply.

    Returns that penalty, and the degrees of freedom that the fit with the penalty given had used.
    """
    n = rhs.shape[1]
    freedom = 0.0
    for turn in range(_LEARNING):
        square = 0.0
        unknown = 0.0
        for f in range(rhs.shape[0]):
            if live[f]:
                factor = normal[f].copy()
                coef[f] = rhs[f]
                bridge_gaps(factor)
                stiffen(factor, penalty)
                factorize(factor)
                solve(factor, coef[f])
                c = inverse_band(factor)
                covariance[f] = c
                for k in range(1, n - 1):
                    bend = coef[f, k - 1] - 2.0 * coef[f, k] + coef[f, k + 1]
                    square += bend * bend
                    unknown += c[k - 1, 0] + 4.0 * c[k, 0] + c[k + 1, 0]
                    unknown += 2.0 * c[k - 1, 2] - 4.0 * (c[k - 1, 1] + c[k, 1])
        if turn == 0:
            freedom = live.sum() * n - penalty * unknown
        penalty = live.sum() * (n - 2) / (square + unknown)
    return penalty, freedom


@njit(nogil=True, cache=True)
def _sample(grid, begin, end, coef, covariance, knots):  # type: ignore[no-untyped-def]
    nspec = coef.shape[0]
    value = np.ones((nspec, grid.size))
    variance = np.full((nspec, grid.size), np.inf)
    for f in range(nspec):
        c, v = coef[f], covariance[f]
        for i in range(grid.size):
            if begin[f] <= grid[i] <= end[f]:
                k, t = locate(grid[i], knots)
                value[f, i] = value_at(c, k, t)
                variance[f, i] = variance_at(v, k, t)
    return value, variance


@njit(nogil=True, cache=True)
def _median_fiber(value, variance, enough):  # type: ignore[no-untyped-def]
    nspec, nwave = value.shape
    covered = np.zeros(nwave, np.int64)
    for f in range(nspec):
        for i in range(nwave):
            covered[i] += variance[f, i] < np.inf
    full = np.flatnonzero(covered >= min(enough, covered.max()))
    have = np.empty(nspec)
    out = np.ones(nwave)
    for i in range(nwave):
        edge = min(max(i, full[0]), full[-1])
        n = 0
        for f in range(nspec):
            if variance[f, i] < np.inf and variance[f, edge] < np.inf:
                have[n] = value[f, i] if i == edge else value[f, i] / value[f, edge]
                n += 1
        if n > 0:
            out[i] = np.median(have[:n])
    for i in range(nwave):
        if i < full[0] or i > full[-1]:
            out[i] *= out[full[0] if i < full[0] else full[-1]]
    return out
