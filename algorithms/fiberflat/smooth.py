"""Smooth throughput of every fiber from one lamp exposure, without resampling.

The counts of fiber f in row j are q = m(lambda) F_f(lambda) dlambda/drow: one lamp spectrum m seen by all fibers, and
one throughput F_f per fiber. Both are splines fitted in turn to the samples on their native wavelengths; the fibers'
different sub-pixel phases are what resolves m (spec preproc-and-extraction §11 resamples and so cannot).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from algorithms.fiberflat.throughput import Throughputs, median_fiber
from qlstream.numeric.banded import factorize, solve
from qlstream.numeric.bspline import Knots, add_sample, bridge_gaps, locate, value_at

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FittedFlat:
    """Throughputs relative to the median fiber, and the lamp as the median fiber sees it.

    Attributes
    ----------
    wave : (nwave,) float64 [Angstrom]
    fiberflat, variance : (nspec, nwave) float64; variance is inf where the fiber has no data
    lamp : (nwave,) float64 [electron/Angstrom]
    chi2pdf : per degree of freedom, of all samples used
    """

    wave: Array
    fiberflat: Array
    variance: Array
    lamp: Array
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
) -> FittedFlat:
    """Fit the lamp and every fiber's throughput in turn, rejecting outliers.

    Parameters
    ----------
    wave, dwave : (nspec, ny) float64, wavelength of each row and the width of its bin [Angstrom]
    flux, ivar : (nspec, ny) [electron per row] and its inverse variance, 0 = leave out
    live : (nspec,) fibers with light; the others get variance inf everywhere
    knot_step, lamp_knot_step : knots of the throughputs and of the lamp [Angstrom]
    niter : rounds of lamp and throughputs
    nsig, tolerance : what is an outlier, see `Throughputs.refit`

    Raises
    ------
    ValueError : no fiber is live
    """
    if not live.any():
        raise ValueError("fit_smooth_flat: no fiber has light")
    density = np.where((ivar[live] > 0)[:, ::8], flux[live, ::8] / dwave[live, ::8], np.nan)
    gray = np.ones(len(wave))
    gray[live] = np.nanmedian(density, axis=1)
    throughputs = Throughputs(wave, flux, ivar, live, knot_step, gray / np.median(gray[live]))
    lamp_knots = Knots.over(throughputs.low, throughputs.high, lamp_knot_step)
    expected = np.empty(wave.shape)
    for _ in range(niter):
        lamp = _fit_lamp(wave, dwave, flux, ivar, throughputs.good, throughputs.coef, throughputs.knots, lamp_knots)
        _expect(wave, dwave, lamp, lamp_knots, expected)
        throughputs.refit(expected, nsig, tolerance)
    grid = np.linspace(throughputs.low, throughputs.high, wave.shape[1])
    fiberflat, variance = throughputs.on_grid(grid)
    median = median_fiber(fiberflat, variance, int(live.sum()))
    freedom = max(throughputs.good.sum() - throughputs.freedom - lamp_knots.n, 1.0)
    return FittedFlat(
        grid,
        fiberflat / median,
        variance / median**2,
        lamp_knots.evaluate(lamp, grid) * median,
        throughputs.chi2 / freedom,
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
def _expect(wave, dwave, lamp, lamp_knots, expected):  # type: ignore[no-untyped-def]
    """Counts of fibers of throughput 1."""
    for f in range(wave.shape[0]):
        for j in range(wave.shape[1]):
            k, t = locate(wave[f, j], lamp_knots)
            expected[f, j] = value_at(lamp, k, t) * dwave[f, j]
