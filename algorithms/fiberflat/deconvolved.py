"""Fiber flat on a common wavelength grid: the lamp before the resolution, and every fiber's throughput.

D_f = F_f R_f M: fibers of other resolution see other lines and edges of the same lamp, so M is found through the
resolution matrices, the throughputs F_f from what it makes each fiber count, and so on in turn (spec
preproc-and-extraction §11.3; there with dense systems, splines of fixed knots and no rejection while iterating).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from algorithms.fiberflat.smooth import FittedFlat
from algorithms.fiberflat.throughput import Throughputs, median_fiber
from qlstream.numeric.deconvolution import NormalEquations

Array = NDArray[np.float64]


def fit_deconvolved_flat(
    wave: Array,
    flux: Array,
    ivar: Array,
    live: NDArray[np.bool_],
    bands_of: Callable[[int], Array],
    knot_step: float,
    max_iterations: int,
    accuracy: float,
    nsig: float,
    tolerance: float,
    smooth: bool = True,
) -> FittedFlat:
    """Fit lamp and throughputs in turn until the throughputs stay.

    Parameters
    ----------
    wave : (n,) [Angstrom]
    flux, ivar : (nspec, n) [electron/Angstrom] and its inverse variance, 0 = leave out
    live : (nspec,) fibers with light; the others get variance inf everywhere
    bands_of : fiber index -> (ndiag, n) bands of its resolution matrix
    knot_step : of the throughputs [Angstrom]
    max_iterations, accuracy : until no throughput changes by more than this fraction
    nsig, tolerance : what is an outlier, see `Throughputs.refit`
    smooth : False gives each bin its own ratio to the lamp, with its noise; the smooth throughput fills the gaps

    Raises
    ------
    ValueError : no fiber is live
    """
    if not live.any():
        raise ValueError("fit_deconvolved_flat: no fiber has light")
    fibers = np.flatnonzero(live)
    usable = (ivar > 0) & live[:, None]
    gray = np.ones(len(flux))
    gray[live] = np.nanmedian(np.where(usable[live], flux[live], np.nan)[:, ::8], axis=1)
    throughputs = Throughputs(wave[None], flux, ivar, live, knot_step, gray / np.median(gray[live]))
    value = np.repeat(throughputs.coef[:, :1], wave.size, axis=1)
    expected, seen = np.zeros(flux.shape), np.zeros(wave.size)
    for _ in range(max_iterations):
        normal = NormalEquations(bands_of(int(fibers[0])).shape[0], wave.size)
        for f in fibers:
            normal.add(bands_of(int(f)), value[f], flux[f], np.where(throughputs.good[f], ivar[f], 0.0))
        common = normal.solve()
        seen[:] = 0.0
        for f in fibers:
            expected[f] = common.seen_through(bands_of(int(f)))
            seen += expected[f]
        throughputs.refit(expected, nsig, tolerance)
        before = value
        value, variance = throughputs.on_grid(wave)
        median = median_fiber(value, variance, fibers.size)
        value /= median
        if np.abs(value - before)[throughputs.good].max() < accuracy:
            break
    variance /= median**2
    lamp = seen / fibers.size * median
    freedom = max(throughputs.good.sum() - throughputs.freedom - common.known.sum(), 1.0)
    chi2pdf = throughputs.chi2 / freedom
    if not smooth:
        good = throughputs.good & (expected > 0)
        light = np.where(good, expected * median, 1.0)
        value = np.where(good, flux / light, value)
        variance = np.where(good, 1.0 / np.where(good, ivar * light**2, 1.0), variance)
        median = median_fiber(value, variance, fibers.size)
        value, variance, lamp = value / median, variance / median**2, lamp * median
    return FittedFlat(wave, value, variance, lamp, chi2pdf)
