"""The sky of one camera from its sky fibers, and its subtraction with an honest error."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from algorithms.sky.deviations import measure_changes
from algorithms.sky.linevariance import add_line_variance, learn_line_errors
from algorithms.sky.model import MARGIN, SkySpectrum, fit_sky
from algorithms.sky.robust import TooFewSkyFibers, expected_variance, fibers_of_sky_alone, median_by_wavelength
from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.qframe import QFrame
from qlstream.numeric.bspline import Knots

Array = NDArray[np.float64]
_BADSKY = np.uint32(SpecMask.BADSKY)
_LEAST = 0.1  # a sample that all but determines the model by itself keeps this share of its variance
_BIN = 1.0  # width of the wavelength bins of the first guess [row]
_HALF_WINDOW = 40  # of the running mean of the read-noise variance [row]


@dataclass(frozen=True)
class FittedSky:
    """What the sky fibers say.

    Attributes
    ----------
    spectrum : the common sky
    fibers : (nused,) indices of the fibers that made it
    rejected : (nrejected,) indices of sky fibers that hold other light
    leverage : (nused, ny) float64, by how much of its noise each sample moved the model; 0 if it was not used
    outliers : (nused, ny) bool, samples that deviate so much that they are no sky
    """

    spectrum: SkySpectrum
    fibers: NDArray[np.int64]
    rejected: NDArray[np.int64]
    leverage: Array
    outliers: NDArray[np.bool_]


def fit_sky_fibers(
    qframe: QFrame,
    candidates: NDArray[np.int64],
    knot_step: float,
    niter: int,
    nsig: float,
    tolerance: float,
    fiber_tolerance: float,
    min_fibers: int,
) -> FittedSky:
    """Fit the common sky to the fibers `candidates`, without cosmic rays and without fibers that hold other light.

    Parameters
    ----------
    qframe : flat-fielded counts per row
    candidates : indices of usable sky fibers
    knot_step : of the sky spectrum [row]
    niter : fits; outliers and weights are judged anew between them
    nsig, tolerance : a sample is an outlier beyond `nsig` sigma, where sigma includes this fraction of the sky
    fiber_tolerance : a fiber is one beyond `nsig` sigma of the fibers' scatter and this fraction of the sky
    min_fibers : fewer are none

    Raises
    ------
    TooFewSkyFibers
    """
    candidates = candidates[(qframe.ivar[candidates] > 0).any(axis=1)]
    if candidates.size < min_fibers:
        raise TooFewSkyFibers(f"{candidates.size} usable sky fibers with light, needed {min_fibers}")
    wave, ysigma = qframe.wave[candidates], line_spread(qframe)[candidates]
    ivar = qframe.ivar[candidates].astype(float)
    good = ivar > 0
    counts = np.where(good, qframe.flux[candidates], 0.0).astype(float)
    with np.errstate(divide="ignore"):
        variance = np.where(good, 1.0 / ivar, np.inf)

    dwave = np.gradient(wave, axis=1)
    row = float(np.median(dwave))
    median, scatter = median_by_wavelength(wave, counts / dwave, good, _BIN * row)
    median, scatter = median * dwave, scatter * dwave
    total = variance + scatter**2  # in a line the bin's samples differ by more than noise: they count less
    good &= np.abs(counts - median) <= nsig * np.sqrt(total)
    weight = np.where(good, 1.0 / total, 0.0)
    keep = fibers_of_sky_alone(counts - median, median, weight, nsig, fiber_tolerance, min_fibers)
    wave, dwave, counts, variance = (a[keep] for a in (wave, dwave, counts, variance))
    ysigma, good = ysigma[keep], good[keep]

    knots = Knots.over(float(wave[good].min()), float(wave[good].max()), knot_step * row, margin=MARGIN)
    reference = float(np.quantile(((ysigma**2 + 1 / 12) * dwave**2)[good], 0.01))
    outliers, weight = ~good, np.where(good, 1.0 / variance, 0.0)
    spectrum = fit_sky(wave, ysigma, counts, weight, knots, reference)
    for _ in range(niter - 1):
        model = spectrum.counts(wave, ysigma).astype(float)
        expected = expected_variance(variance, model, _HALF_WINDOW)
        outliers = np.abs(counts - model) > nsig * np.sqrt(expected + (tolerance * model) ** 2)
        good = np.isfinite(variance) & np.isfinite(model) & ~outliers
        weight = np.where(good, 1.0 / expected, 0.0)
        spectrum = fit_sky(wave, ysigma, counts, weight, knots, reference)
    leverage = spectrum.leverage(wave, ysigma, weight)
    return FittedSky(spectrum, candidates[keep], candidates[~keep], leverage, outliers & np.isfinite(variance))


def line_spread(qframe: QFrame) -> NDArray[np.float32]:
    """(nspec, ny) float32, the frame's ysigma, or zeros if it has none: then all fibers count as equally sharp."""
    return np.zeros(qframe.flux.shape, np.float32) if qframe.ysigma is None else qframe.ysigma


def subtract_sky(qframe: QFrame, fitted: FittedSky, line_level: float, nsig: float) -> QFrame:
    """`qframe` less the sky of every fiber, with the model's variance in its ivar.

    In a sample that made the model, model and noise are correlated: what remains has the variance of the sample times
    one minus its leverage; in all others, the sum of both. Bright lines leave more than that: how much, the sky fibers
    tell (`learn_line_errors`), and it is added for all. Where there is no model, the flux stays, ivar is 0 and the
    mask says BADSKY. Samples of sky fibers that the fit rejected get ivar 0 and COSMIC: for them alone the truth is
    known.

    Parameters
    ----------
    line_level, nsig : rows above this many continua of sky correct the model of their own fiber, see `measure_changes`
    """
    ysigma = line_spread(qframe)
    sky, variance = fitted.spectrum.counts(qframe.wave, ysigma), fitted.spectrum.variance(qframe.wave, ysigma)
    used = fitted.leverage > 0
    given = qframe.ivar[fitted.fibers]
    variance[fitted.fibers] = np.where(used, -fitted.leverage / np.where(used, given, 1.0), variance[fitted.fibers])
    level = line_level * float(np.median(fitted.spectrum.coef))
    changes = measure_changes(qframe.wave, qframe.flux, qframe.ivar, sky, level, fitted.fibers, nsig)
    changes.apply(qframe.wave, sky, variance)
    noise = np.where(used & ~fitted.outliers, variance[fitted.fibers] + 1.0 / np.where(given > 0, given, 1.0), 0.0)
    mine = sky[fitted.fibers]
    is_line = mine > level * np.gradient(qframe.wave[fitted.fibers], axis=1)
    errors = learn_line_errors(qframe.flux[fitted.fibers] - mine, noise, mine, is_line)
    add_line_variance(qframe.wave, sky, level, *errors, variance)
    flux, ivar, mask = np.empty_like(qframe.flux), np.empty_like(qframe.ivar), np.empty_like(qframe.mask)
    _subtract(qframe.flux, qframe.ivar, qframe.mask, sky, variance, flux, ivar, mask)
    row, at = np.nonzero(fitted.outliers)
    ivar[fitted.fibers[row], at] = 0.0
    mask[fitted.fibers[row], at] |= np.uint32(SpecMask.COSMIC)
    return replace(qframe, flux=flux, ivar=ivar, mask=mask, sky=sky)


@njit(nogil=True, cache=True)
def _subtract(flux, ivar, mask, sky, variance, flux_out, ivar_out, mask_out):  # type: ignore[no-untyped-def]
    for f in range(flux.shape[0]):
        for j in range(flux.shape[1]):
            flux_out[f, j] = flux[f, j]
            ivar_out[f, j] = 0.0
            mask_out[f, j] = mask[f, j]
            if np.isnan(sky[f, j]):
                sky[f, j] = 0.0
                mask_out[f, j] |= _BADSKY
                continue
            flux_out[f, j] -= sky[f, j]
            if ivar[f, j] > 0:
                given = 1.0 / ivar[f, j]
                ivar_out[f, j] = 1.0 / max(given + variance[f, j], _LEAST * given)
