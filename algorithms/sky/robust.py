"""What the sky fit may trust: samples without cosmic rays, fibers without target light, weights without own noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]


def median_by_wavelength(wave: Array, density: Array, good: NDArray[np.bool_], step: float) -> tuple[Array, Array]:
    """Median and its absolute deviation over all fibers' samples in wavelength bins of `step`.

    Parameters
    ----------
    wave, density : (nsky, ny) [Angstrom], [electron/Angstrom]
    good : (nsky, ny) samples that count
    step : width of a bin [Angstrom]

    Returns
    -------
    median, scatter : (nsky, ny) of the bin that a sample is in; scatter is 1.4826 times the median absolute deviation
    """
    low = float(wave.min())
    nbin = int((wave.max() - low) / step) + 1
    median, scatter = np.zeros(wave.shape), np.zeros(wave.shape)
    _median_by_bin(((wave - low) / step).astype(np.int64), density, good, nbin, median, scatter)
    return median, scatter


class TooFewSkyFibers(ValueError):
    """The sky cannot be told from targets."""


def fibers_of_sky_alone(
    residual: Array, model: Array, weight: Array, nsig: float, tolerance: float, min_fibers: int
) -> NDArray[np.bool_]:
    """Which fibers hold no other light: their mean residual, weighted like the sky, is that of the others.

    Parameters
    ----------
    residual, model, weight : (nsky, n) what is left of each sample, what was expected, and inverse variances
    nsig, tolerance : a fiber is out beyond `nsig` sigma of the fibers' scatter and beyond this fraction of the sky
    min_fibers : fewer make no sky

    Raises
    ------
    TooFewSkyFibers
    """
    norm = np.maximum((weight * model**2).sum(axis=1), 1e-300)
    excess, error = (weight * residual * model).sum(axis=1) / norm, np.sqrt(1.0 / norm)
    typical = np.median(excess)
    spread = 1.4826 * np.median(np.abs(excess - typical))
    keep = np.abs(excess - typical) <= np.maximum(nsig * np.hypot(spread, error), tolerance)
    if keep.sum() < min_fibers:
        raise TooFewSkyFibers(
            f"{keep.sum()} of {keep.size} sky fibers agree within {100 * tolerance:.0f} %, needed {min_fibers}"
        )
    return np.asarray(keep)


def expected_variance(variance: NDArray[np.floating[Any]], model: Array, half_window: int) -> Array:
    """Variance of each row with the model's counts in place of the noisy ones.

    A variance that was estimated from the counts themselves gives low fluctuations a high weight: a mean of counts
    comes out one electron low (spec preproc-and-extraction §5). Here the Poisson part is the model's, and the rest is
    the running mean of what the given variance has beyond it. Rows that are given more than 1.5 times that, since they
    lost pixels, keep what they are given.

    Parameters
    ----------
    variance : (nsky, ny) [electron^2], inf or nan where there is no information
    model : (nsky, ny) expected counts [electron]
    half_window : rows on either side

    Returns
    -------
    (nsky, ny) [electron^2], inf where there is no information
    """
    out = np.empty(variance.shape)
    _expected_variance(np.asarray(variance, dtype=float), model, half_window, out)
    return out


@njit(nogil=True, cache=True)
def _median_by_bin(index, density, good, nbin, median, scatter):  # type: ignore[no-untyped-def]
    nsky, ny = index.shape
    start = np.zeros(nbin + 1, np.int64)
    for f in range(nsky):
        for j in range(ny):
            if good[f, j]:
                start[index[f, j] + 1] += 1
    start = np.cumsum(start)
    fill = start.copy()
    values = np.empty(start[-1])
    for f in range(nsky):
        for j in range(ny):
            if good[f, j]:
                i = index[f, j]
                values[fill[i]] = density[f, j]
                fill[i] += 1
    center = np.zeros(nbin)
    width = np.zeros(nbin)
    for i in range(nbin):
        if start[i + 1] > start[i]:
            here = values[start[i] : start[i + 1]]
            center[i] = np.median(here)
            width[i] = 1.4826 * np.median(np.abs(here - center[i]))
    for f in range(nsky):
        for j in range(ny):
            median[f, j] = center[index[f, j]]
            scatter[f, j] = width[index[f, j]]


@njit(nogil=True, cache=True)
def _expected_variance(variance, model, half_window, out):  # type: ignore[no-untyped-def]
    nsky, ny = variance.shape
    total = np.zeros(ny + 1)
    count = np.zeros(ny + 1)
    for f in range(nsky):
        typical = np.inf
        for turn in range(2):  # the second time without the rows that lost pixels
            for j in range(ny):
                v = variance[f, j]
                use = v < np.inf and (turn == 0 or v < 1.5 * out[f, j])
                total[j + 1] = total[j] + (v - max(model[f, j], 0.0) if use else 0.0)
                count[j + 1] = count[j] + (1.0 if use else 0.0)
            for j in range(ny):
                first, last = max(j - half_window, 0), min(j + half_window + 1, ny)
                n = count[last] - count[first]
                typical = max(model[f, j], 0.0) + (total[last] - total[first]) / n if n > 0 else np.inf
                out[f, j] = max(typical, 1e-6)
        for j in range(ny):
            if not variance[f, j] < np.inf:
                out[f, j] = np.inf
            elif variance[f, j] > 1.5 * out[f, j]:
                out[f, j] = variance[f, j]
