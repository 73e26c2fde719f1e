"""Smooth throughput of every fiber from one lamp exposure, without resampling.

The counts of fiber f in row j are q = m(lambda) F_f(lambda) dlambda/drow: one lamp spectrum m seen by all fibers, and
one throughput F_f per fiber. Both are cubic B-splines fitted in turn to the samples on their native wavelengths; the
fibers' different sub-pixel phases are what resolves m (spec preproc-and-extraction §11 resamples and so cannot).

A throughput varies slowly with wavelength: that is what beats the noise of a single row. How slowly, the camera's own
fibers tell: the penalty on the second differences of the coefficients is the inverse of their mean square over all
fibers, found by expectation maximization (P-splines of Eilers & Marx 1996 as a mixed model). Structure narrower than
about two knots (fringes, single pixels) is none of a fiber's and left to the pixel flat.
"""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class SmoothFlat:
    """Throughputs relative to the median fiber, and the lamp as the median fiber sees it.

    Attributes
    ----------
    wave : (nwave,) float64 [Angstrom]
    fiberflat, variance : (nspec, nwave) float64; variance is inf where the fiber has no data
    lamp : (nwave,) float64 [flux unit/Angstrom]
    good : (nspec, ny) bool, samples that were used
    chi2pdf : per degree of freedom, of all samples used
    """

    wave: Array
    fiberflat: Array
    variance: Array
    lamp: Array
    good: NDArray[np.bool_]
    chi2pdf: float


def fit_smooth_flat(
    wave: Array,
    dwave: Array,
    flux: NDArray[np.floating[Any]],
    ivar: NDArray[np.floating[Any]],
    live: NDArray[np.bool_],
    knot_step: float,
    lamp_knot_step: float,
    niter: int = 2,
    nsig: float = 5.0,
    tolerance: float = 0.01,
) -> SmoothFlat:
    """Fit the lamp and every fiber's throughput in turn, rejecting outliers.

    Parameters
    ----------
    wave, dwave : (nspec, ny) float64, wavelength of each row and the width of its bin [Angstrom]
    flux, ivar : (nspec, ny) [electron per row] and its inverse variance, 0 = leave out
    live : (nspec,) fibers with light; the others get variance inf everywhere
    knot_step, lamp_knot_step : knots of the throughputs and of the lamp [Angstrom]
    niter : rounds of lamp and throughputs
    nsig : a row is left out beyond this many sigma ...
    tolerance : ... where sigma includes this fraction of the flux, so that no real structure is clipped

    Raises
    ------
    ValueError : no fiber is live
    """
    if not live.any():
        raise ValueError("fit_smooth_flat: no fiber has light")
    low, high = float(wave[live].min()), float(wave[live].max())
    knots, lamp_knots = Knots.over(low, high, knot_step), Knots.over(low, high, lamp_knot_step)
    good = (ivar > 0) & live[:, None]
    density = np.where(good[live, ::8], flux[live, ::8] / dwave[live, ::8], np.nan)
    gray = np.ones(len(wave))
    gray[live] = np.nanmedian(density, axis=1)
    coef = np.repeat(gray[:, None] / np.median(gray[live]), knots.n, axis=1)
    covariance = np.full((len(wave), knots.n, 4), np.inf)
    normal = np.zeros((len(wave), knots.n, 4))
    rhs = np.zeros((len(wave), knots.n))
    penalty = 0.0
    for _ in range(niter):
        lamp = _fit_lamp(wave, dwave, flux, ivar, good, coef, knots, lamp_knots)
        good[:] = (ivar > 0) & live[:, None]
        chi2 = _gather(wave, dwave, flux, ivar, live, lamp, lamp_knots, knots, penalty, nsig, tolerance, good, normal,
                       rhs)  # fmt: skip
        penalty, freedom = _learn(normal, rhs, live, penalty, coef, covariance)
    grid = np.linspace(low, high, wave.shape[1])
    fiber, some = np.arange(len(wave)), good.any(axis=1)
    begin = np.where(some, wave[fiber, good.argmax(axis=1)], np.inf)
    end = np.where(some, wave[fiber, wave.shape[1] - 1 - good[:, ::-1].argmax(axis=1)], -np.inf)
    fiberflat, variance = _sample(grid, begin, end, coef, covariance, knots)
    median = _median_fiber(fiberflat, variance, int(_COVERED * live.sum()))
    chi2pdf = chi2 / max(good.sum() - freedom - lamp_knots.n, 1.0)
    return SmoothFlat(
        grid, fiberflat / median, variance / median**2, lamp_knots.evaluate(lamp, grid) * median, good, chi2pdf
    )


@njit(nogil=True, cache=True)
def _fit_lamp(wave, dwave, flux, ivar, good, coef, knots, lamp_knots):  # type: ignore[no-untyped-def]
    """Coefficients of the lamp's density, given the throughputs."""
    normal = np.zeros((lamp_knots.n, 4))
    lamp = np.zeros(lamp_knots.n)
    for f in range(wave.shape[0]):
        throughput = coef[f]
        for j in range(wave.shape[1]):
            if good[f, j]:
                k, t = locate(wave[f, j], knots)
                scale = value_at(throughput, k, t) * dwave[f, j]
                k, t = locate(wave[f, j], lamp_knots)
                add_sample(normal, lamp, k, t, scale, flux[f, j], ivar[f, j])
    bridge_gaps(normal)
    factorize(normal)
    solve(normal, lamp)
    return lamp


@njit(nogil=True, cache=True)
def _gather(  # type: ignore[no-untyped-def]
    wave, dwave, flux, ivar, live, lamp, lamp_knots, knots, penalty, nsig, tolerance, good, normal, rhs
):
    """Normal equations of each live fiber's throughput, without its outliers, which `good` loses; returns chi2."""
    ny = wave.shape[1]
    expected = np.empty(ny)  # counts of a fiber of throughput 1
    first = np.empty(ny, np.int64)
    fraction = np.empty(ny)
    deviation = np.empty(ny)  # squared [sigma^2], softened by the tolerance
    factor = np.empty((knots.n, 4))
    solution = np.empty(knots.n)
    total = 0.0
    for f in range(wave.shape[0]):
        if not live[f]:
            continue
        a, b = normal[f], rhs[f]
        a[:] = 0.0
        b[:] = 0.0
        for j in range(ny):
            k, t = locate(wave[f, j], lamp_knots)
            expected[j] = value_at(lamp, k, t) * dwave[f, j]
            first[j], fraction[j] = locate(wave[f, j], knots)
            if good[f, j]:
                add_sample(a, b, first[j], fraction[j], expected[j], flux[f, j], ivar[f, j])
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
                    model = expected[j] * value_at(solution, first[j], fraction[j])
                    z2 = ivar[f, j] * (flux[f, j] - model) ** 2
                    chi2 += z2
                    deviation[j] = z2 / (1.0 + ivar[f, j] * (tolerance * model) ** 2)
                    worst = max(worst, deviation[j])
            if worst <= nsig * nsig:
                break
            for j in range(ny):  # an outlier pulls the fit and so spoils its neighbours: only the worst go at once
                if deviation[j] > max(nsig * nsig, 0.25 * worst):
                    good[f, j] = False
                    add_sample(a, b, first[j], fraction[j], expected[j], flux[f, j], -ivar[f, j])
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
    """(nwave,) median over fibers; where fewer than `enough` have data, the typical fiber keeps its last ratio to it.

    So the norm does not jump where the fibers of one side of the CCD run out of data.
    """
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
