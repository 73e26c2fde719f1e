"""Which model spectrum a standard star has, from its lines alone (spec offline-reduction §8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from algorithms.stars.continuum import MEDIAN_WIDTH, bridged, running_median
from qlstream.datamodel.stars import StarTemplates
from qlstream.numeric.deconvolution import spread

Array = NDArray[np.float64]

LIGHT = 299792.458  # km/s
_SKY = (4047.5, 4359.3, 5462.3, 5578.9, 5891.3, 5897.3, 6301.8, 6365.4, 7823.3, 7855.2)  # of poor subtraction
_TELLURIC = ((6270.0, 6330.0), (6860.0, 6965.0), (7160.0, 7340.0), (7580.0, 7720.0), (8120.0, 9900.0))
_CALCIUM = (3934.78, 3969.59)  # interstellar lines mix in
_HALF = 6.0  # [Angstrom] that a listed line takes out on either side


@dataclass(frozen=True)
class StarSpectrum:
    """One star in one arm: flat-fielded and sky-subtracted, not calibrated.

    Attributes
    ----------
    wave : (nwave,) [Angstrom]
    flux, ivar : (nwave,)
    bands : (ndiag, nwave) of its resolution matrix
    """

    wave: Array
    flux: Array
    ivar: Array
    bands: Array


@dataclass(frozen=True)
class StarMatch:
    """The model of a star.

    Attributes
    ----------
    coef : (ntemplate,) weights of the templates, summing to 1
    redshift : [-]
    chi2dof : of the lines
    teff, logg, feh : weighted means of the templates' parameters
    """

    coef: Array
    redshift: float
    chi2dof: float
    teff: float
    logg: float
    feh: float


@dataclass(frozen=True)
class MatchLimits:
    """How a star is matched.

    Attributes
    ----------
    z_max, z_step : range and step of the search for its redshift
    template_error : what the templates are off, as a fraction of the continuum
    neighbours : so many of the best templates are mixed
    """

    z_max: float = 0.005
    z_step: float = 2e-5
    template_error: float = 0.02
    neighbours: int = 6


def match_star(parts: Sequence[StarSpectrum], templates: StarTemplates, limits: MatchLimits) -> StarMatch:
    """Compare the line spectrum of a star with all templates, at its redshift, and mix the best.

    Data and templates are divided by their running medians, so neither calibration nor colour matters much. The
    redshift is that of the template that fits best at rest; a mixture of the best ones, with weights that are not
    negative, then stands for what lies between the grid points. A median knows no curvature in its window: so the ratio
    of data and first mixture, smoothed, is put on the templates, and the mixture found once more.

    Raises
    ------
    ValueError : no good bins
    """
    observed = [_normalised(part, limits.template_error) for part in parts]
    if sum(int((w > 0).sum()) for _, w in observed) < 100:
        raise ValueError("this star has fewer than 100 good bins")
    chi2 = _chi2(parts, observed, templates, np.arange(len(templates)), 0.0)
    best = int(np.argmin(chi2))
    redshift = _redshift(parts, observed, templates, best, limits)
    flat = [np.ones(part.wave.size) for part in parts]
    order, coef, _ = _mixture(parts, observed, templates, redshift, flat, limits.neighbours)
    curves = [_response(part, templates, order, coef, redshift) for part in parts]
    order, coef, final = _mixture(parts, observed, templates, redshift, curves, limits.neighbours)
    all_coef = np.zeros(len(templates))
    all_coef[order] = coef
    mean = [float(all_coef @ values) for values in (templates.teff, templates.logg, templates.feh)]
    return StarMatch(all_coef, redshift, final, *mean)


def _mixture(
    parts: Sequence[StarSpectrum],
    observed: Sequence[tuple[Array, Array]],
    templates: StarTemplates,
    redshift: float,
    curves: Sequence[Array],
    neighbours: int,
) -> tuple[NDArray[np.int64], Array, float]:
    """The best templates, their weights, which sum to 1, and chi2 per degree of freedom of their mixture."""
    every = np.arange(len(templates))
    models = [_models(part, templates, every, redshift, curve) for part, curve in zip(parts, curves, strict=True)]
    chi2 = np.zeros(len(templates))
    for model, (ratio, weight) in zip(models, observed, strict=True):
        chi2 += ((model - ratio) ** 2 * weight).sum(axis=1)
    order = np.argsort(chi2)[:neighbours]
    chosen = np.concatenate([model[order] for model in models], axis=1)
    data = np.concatenate([ratio for ratio, _ in observed])
    weight = np.concatenate([w for _, w in observed])
    root = np.sqrt(weight)
    coef, _ = nnls((chosen * root).T, data * root)
    total = coef.sum()
    coef = coef / total if total > 0 else np.eye(1, len(order))[0]
    freedom = max(int((weight > 0).sum()) - 2, 1)
    return order, coef, float((weight * (data - coef @ chosen) ** 2).sum() / freedom)


def _response(
    part: StarSpectrum, templates: StarTemplates, order: NDArray[np.int64], coef: Array, redshift: float
) -> Array:
    """(nwave,) what the instrument makes of the mixture, smoothed over twice the width of the running median."""
    model = coef @ _seen(part, templates, order, redshift)
    good = (part.ivar > 0) & (model > 0)
    ratio = bridged(part.flux / np.where(model > 0, model, 1.0), good)
    level = float(np.median(np.abs(ratio)))
    smooth = running_median(part.wave, ratio, 2 * MEDIAN_WIDTH)
    return np.asarray(np.maximum(smooth / level, 0.05) if level > 0 else np.ones(part.wave.size))


def model_spectrum(templates: StarTemplates, coef: Array, redshift: float, wave: Array) -> Array:
    """(nwave,) the mixture at `wave`, redshifted; linear between the templates' own wavelengths."""
    used = np.flatnonzero(coef)
    rest = coef[used] @ templates.flux[used].astype(np.float64)
    return np.asarray(np.interp(wave, templates.wave * (1.0 + redshift), rest))


def _normalised(part: StarSpectrum, template_error: float) -> tuple[Array, Array]:
    """Flux over its running median, and weights; 0 where something else than the star decides."""
    good = part.ivar > 0
    continuum = running_median(part.wave, bridged(part.flux, good))
    good &= continuum > 0.05 * np.median(continuum)
    safe = np.where(good, continuum, 1.0)
    ratio = np.where(good, part.flux / safe, 1.0)
    variance = 1.0 / np.where(good, part.ivar * safe**2, 1.0) + template_error**2
    good &= ~_spoiled(part.wave)
    good &= ratio < 1.0 + 3.0 * np.sqrt(variance) + 0.2  # cosmic rays: stars of these types have no emission
    return ratio, np.where(good, 1.0 / variance, 0.0)


def _spoiled(wave: Array) -> NDArray[np.bool_]:
    bad = np.zeros(wave.size, dtype=bool)
    for line in (*_SKY, *_CALCIUM):
        bad |= np.abs(wave - line) < _HALF
    for low, high in _TELLURIC:
        bad |= (wave > low) & (wave < high)
    bad[:10] = bad[-10:] = True
    return bad


def _seen(part: StarSpectrum, templates: StarTemplates, chosen: NDArray[np.int64], redshift: float) -> Array:
    """(n, nwave) templates through the resolution of the spectrum."""
    shifted = templates.wave * (1.0 + redshift)
    on_grid = np.stack([np.interp(part.wave, shifted, templates.flux[k]) for k in chosen])
    seen = np.stack([spread(part.bands, row) for row in on_grid])
    seen /= np.maximum(spread(part.bands, np.ones(part.wave.size)), 0.1)  # the ends of the grid lose light
    return np.asarray(seen)


def _models(
    part: StarSpectrum,
    templates: StarTemplates,
    chosen: NDArray[np.int64],
    redshift: float,
    curve: Array | float = 1.0,
) -> Array:
    """(n, nwave) templates as they are seen through a response `curve`, over their running medians."""
    seen = _seen(part, templates, chosen, redshift) * curve
    return np.asarray(seen / running_median(part.wave, seen))


def _chi2(
    parts: Sequence[StarSpectrum],
    observed: Sequence[tuple[Array, Array]],
    templates: StarTemplates,
    chosen: NDArray[np.int64],
    redshift: float,
) -> Array:
    total = np.zeros(len(chosen))
    for part, (ratio, weight) in zip(parts, observed, strict=True):
        total += ((_models(part, templates, chosen, redshift) - ratio) ** 2 * weight).sum(axis=1)
    return total


def _redshift(
    parts: Sequence[StarSpectrum],
    observed: Sequence[tuple[Array, Array]],
    templates: StarTemplates,
    best: int,
    limits: MatchLimits,
) -> float:
    """Where chi2 of one template is least: a coarse scan, then a fine one with a parabola."""
    one = np.array([best])

    def scan(values: Array) -> Array:
        return np.array([_chi2(parts, observed, templates, one, float(z))[0] for z in values])

    coarse = np.linspace(-limits.z_max, limits.z_max, 2 * int(limits.z_max / (10 * limits.z_step)) + 1)
    centre = float(coarse[np.argmin(scan(coarse))])
    fine = centre + limits.z_step * np.arange(-10, 11, 2.0)
    chi2 = scan(fine)
    at = int(np.clip(np.argmin(chi2), 1, len(fine) - 2))
    low, mid, high = chi2[at - 1 : at + 2]
    bend = low - 2 * mid + high
    shift = 0.5 * (low - high) / bend if bend > 0 else 0.0
    return float(fine[at] + np.clip(shift, -1, 1) * 2 * limits.z_step)
