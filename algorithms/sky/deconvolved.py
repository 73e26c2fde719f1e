"""The sky of a frame: one spectrum through the resolution matrix of every fiber.

D_f = R_f s: the common spectrum s is fitted to the sky fibers by banded least squares, outliers are found and the
weights freed of the samples' own noise between the fits, and every fiber sees s through its own resolution, with the
variance that the fit gives it there (spec offline-reduction §7.1; there with dense systems and one variance for all
fibers). Without resolution matrices this is the weighted mean of the sky fibers. `variation` has skies that differ over
the focal plane.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from algorithms.sky.robust import TooFewSkyFibers, expected_variance, fibers_of_sky_alone
from algorithms.sky.variation import Variation

Array = NDArray[np.float64]

_HALF_WINDOW = 40  # of the running mean of the read-noise variance [bin]
_ENOUGH = 10  # sky fibers with a value make a sky; of fewer than 20, half of them


@dataclass(frozen=True)
class DeconvolvedSky:
    """What the sky fibers say.

    Attributes
    ----------
    flux, variance : (nspec, n) the sky as every fiber sees it [electron/Angstrom]; 0 and inf where too few fibers tell
    fibers : (nused,) indices of the fibers that made it
    rejected : indices of sky fibers that hold other light
    outliers : (nused, n) bool, samples that deviate so much that they are no sky
    """

    flux: Array
    variance: Array
    fibers: NDArray[np.int64]
    rejected: NDArray[np.int64]
    outliers: NDArray[np.bool_]


def fit_deconvolved_sky(
    flux: Array,
    ivar: Array,
    width: Array,
    variation: Variation,
    candidates: NDArray[np.int64],
    max_iterations: int,
    nsig: float,
    tolerance: float,
    fiber_tolerance: float,
    min_fibers: int,
) -> DeconvolvedSky:
    """Fit the common sky to the fibers `candidates`, without cosmic rays and without fibers that hold other light.

    Parameters
    ----------
    flux, ivar : (nspec, n) flat-fielded [electron/Angstrom] and its inverse variance, 0 = leave out
    width : (n,) of the bins [Angstrom]
    variation : what the sky may be in different fibers
    candidates : indices of usable sky fibers
    max_iterations : fits, at most; they end when the outliers stay the same
    nsig, tolerance : a sample is an outlier beyond `nsig` sigma, where sigma includes this fraction of the sky
    fiber_tolerance : a fiber is one beyond `nsig` sigma of the fibers' scatter and this fraction of the sky
    min_fibers : fewer are none

    Raises
    ------
    TooFewSkyFibers
    """
    candidates = candidates[(ivar[candidates] > 0).any(axis=1)]
    if candidates.size < min_fibers:
        raise TooFewSkyFibers(f"{candidates.size} usable sky fibers with light, needed {min_fibers}")
    data, weight = flux[candidates], ivar[candidates]
    told = weight > 0
    variance = np.where(told, 1.0 / np.where(told, weight, 1.0), np.inf)
    median, scatter = _median(np.where(told, data, np.nan))
    total = variance + scatter**2  # in a line, fibers of other resolution differ by more than noise
    good = told & (np.abs(data - median) <= nsig * np.sqrt(total))
    excess = np.where(good, data - median, 0.0)
    keep = fibers_of_sky_alone(
        excess, np.broadcast_to(median, data.shape), np.where(good, 1.0 / total, 0.0), nsig, fiber_tolerance, min_fibers
    )
    fibers, rejected = candidates[keep], candidates[~keep]
    data, variance = data[keep], variance[keep]
    told, good = told[keep], good[keep]
    expected = variance
    for turn in range(max_iterations):
        common = variation.fit(data, np.where(good, 1.0 / expected, 0.0), fibers)
        model = np.array([common.seen_by(int(f)) for f in fibers])
        expected = expected_variance(variance * width**2, model * width, _HALF_WINDOW) / width**2
        residual = np.where(told, data - model, 0.0)
        _, scatter = _median(np.where(told, residual, np.nan))  # more than noise where the resolution is not known
        deviation = residual**2 / (np.maximum(expected, scatter**2) + (tolerance * model) ** 2)
        if turn == 0:  # an outlier pulls the fit and so spoils the other fibers: only the worst of each wavelength goes
            worst = (deviation > nsig**2) & (deviation == deviation.max(axis=0))
            before, good = good, good & ~worst
        else:
            before, good = good, told & (deviation <= nsig**2)
        if turn > 1 and (good == before).all():
            break
    enough = _dilated_count(good) >= min(_ENOUGH, max(1, len(fibers) // 2))
    sky, error = np.zeros(flux.shape), np.full(flux.shape, np.inf)
    for f in range(len(flux)):
        through = common.variance_by(f)
        known = enough & (through < np.inf)
        sky[f, known] = common.seen_by(f)[known]
        error[f, known] = through[known]
    return DeconvolvedSky(sky, error, fibers, rejected, told & ~good)


def _median(values: Array) -> tuple[Array, Array]:
    """(n,) median over the fibers and 1.4826 times the median absolute deviation; 0 where no fiber tells."""
    some = np.isfinite(values).any(axis=0)
    median, scatter = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    median[some] = np.nanmedian(values[:, some], axis=0)
    scatter[some] = 1.4826 * np.nanmedian(np.abs(values[:, some] - median[some]), axis=0)
    return median, scatter


def _dilated_count(good: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n,) fibers with a value in a bin or beside it: a single masked bin is bridged by the resolution."""
    near = good.copy()
    near[:, 1:] |= good[:, :-1]
    near[:, :-1] |= good[:, 1:]
    return near.sum(axis=0)
