"""Which model spectrum a standard star has, from its lines alone (spec offline-reduction §8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from algorithms.stars.continuum import bridged, running_median
from algorithms.stars.downhill import downhill
from algorithms.stars.response import Counts, total_chi2
from algorithms.stars.surface import surface_around
from algorithms.stars.windows import Window, of_the_star
from qlstream.datamodel.stars import StarTemplates
from qlstream.numeric.bspline import Knots

Array = NDArray[np.float64]

_CANONICAL = (6000.0, 4.0, -1.5)  # K, cm/s2, dex: most standard stars are like this
_RANGE = np.array([1000.0, 1.0, 1.0])  # steps of its parameters that weigh the same
_FEWEST = 100  # bins
_OUTLIER = 5.0  # [sigma] of a bin that is no starlight
_ROUNDS = 6  # surfaces on which the parameters are refined
_COARSE = 10  # steps of the redshift that a first scan takes at once


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
    coef : (ntemplate,) weights of the templates, summing to 1; some are negative
    redshift, redshift_error : [-]
    chi2dof : of the fit
    teff, logg, feh : parameters
    errors : (3,) of teff, logg and feh; 0 where the grid has a single value
    """

    coef: Array
    redshift: float
    redshift_error: float
    chi2dof: float
    teff: float
    logg: float
    feh: float
    errors: Array


@dataclass(frozen=True)
class MatchLimits:
    """How a star is matched.

    Attributes
    ----------
    z_max, z_step : range and step of the search for its redshift
    template_error : what the templates are off, as a fraction of the continuum
    knot_step : distance of the knots of the response [Angstrom]
    left_out : windows in which the response is not smooth, or the template wrong [Angstrom]
    """

    z_max: float = 0.005
    z_step: float = 2e-5
    template_error: float = 0.02
    knot_step: float = 150.0
    left_out: Sequence[Window] = ()


def match_star(parts: Sequence[StarSpectrum], templates: StarTemplates, limits: MatchLimits) -> StarMatch:
    """Find redshift and parameters whose template fits the counts best, each through a response of its own.

    The redshift is that of the template most like a canonical star; at it all templates are compared; from the best of
    them the parameters go downhill on the surface through the templates around it, and the redshift is taken again.
    Templates should have the same level, since their mixture is one of light. An arm with fewer good bins than its
    response has knots takes no part.

    Raises
    ------
    ValueError : fewer than 100 good bins
    """
    counts = [c for part in parts if np.count_nonzero((c := _prepared(part, limits)).weight) > c.knots.n]
    if sum(int((c.weight > 0).sum()) for c in counts) < _FEWEST:
        raise ValueError(f"this star has fewer than {_FEWEST} good bins")
    parameters = np.stack([templates.teff, templates.logg, templates.feh], axis=1)
    canonical = int(np.argmin((((parameters - _CANONICAL) / _RANGE) ** 2).sum(axis=1)))
    steps = round(limits.z_max / limits.z_step)
    redshift, _ = _redshift(counts, templates, np.eye(len(templates))[canonical], 0.0, steps, limits.z_step)
    every = np.arange(len(templates))
    seen = [c.seen(templates, every, redshift) for c in counts]
    best = int(np.argmin(total_chi2(counts, seen)))
    counts = [_without_outliers(c, models[best]) for c, models in zip(counts, seen, strict=True)]
    at, coef, errors, _ = _refined(counts, templates, parameters, best, redshift)
    redshift, redshift_error = _redshift(counts, templates, coef, redshift, 2 * _COARSE, limits.z_step)
    at, coef, errors, chi2 = _refined(counts, templates, parameters, _nearest(parameters, at), redshift)
    freedom = sum(int((c.weight > 0).sum()) - c.knots.n for c in counts) - 1 - int((errors > 0).sum())
    teff, logg, feh = map(float, at)
    return StarMatch(coef, redshift, redshift_error, chi2 / max(freedom, 1), teff, logg, feh, errors)


def model_spectrum(templates: StarTemplates, coef: Array, redshift: float, wave: Array) -> Array:
    """(nwave,) the mixture at `wave`, redshifted; linear between the templates' own wavelengths."""
    used = np.flatnonzero(coef)
    rest = coef[used] @ templates.flux[used].astype(np.float64)
    return np.asarray(np.interp(wave, templates.wave * (1.0 + redshift), rest))


def _prepared(part: StarSpectrum, limits: MatchLimits) -> Counts:
    """Weights of the bins: 0 where something else than the star decides."""
    good = part.ivar > 0
    continuum = running_median(part.wave, bridged(part.flux, good))
    good &= of_the_star(part.wave, limits.left_out) & (continuum > 0.05 * np.median(continuum))
    variance = 1.0 / np.where(good, part.ivar, 1.0) + (limits.template_error * continuum) ** 2
    # stars of these types have no emission: what stands out is a cosmic ray
    good &= part.flux < 1.2 * continuum + 3.0 * np.sqrt(variance)
    weight = np.where(good, 1.0 / variance, 0.0)
    # with as many bins beside the good ones as light comes from
    used = np.flatnonzero(np.convolve(good, np.ones(2 * len(part.bands) + 1), mode="same") > 0.5)
    kept = slice(used[0], used[-1] + 1) if used.size else slice(0, part.wave.size)
    wave = part.wave[kept]
    knots = Knots.over(float(wave[0]), float(wave[-1]), limits.knot_step)
    bands = np.ascontiguousarray(part.bands[:, kept], dtype=np.float64)
    return Counts(wave, np.where(good, part.flux, 0.0)[kept], weight[kept], bands, knots)


def _without_outliers(counts: Counts, model: Array) -> Counts:
    residual = (counts.flux - counts.response(model) * model) * np.sqrt(counts.weight)
    weight = np.where(np.abs(residual) < _OUTLIER, counts.weight, 0.0)
    return replace(counts, weight=weight)


def _nearest(parameters: Array, at: Array) -> int:
    return int(np.argmin((((parameters - at) / _RANGE) ** 2).sum(axis=1)))


def _redshift(
    counts: Sequence[Counts], templates: StarTemplates, coef: Array, around: float, steps: int, step: float
) -> tuple[float, float]:
    """Redshift within so many steps at which chi2 of a mixture is least, by a parabola, and its error."""
    used = np.flatnonzero(coef)
    mixture = (coef[used] @ templates.flux[used])[None].astype(np.float32)
    one = StarTemplates(templates.wave, mixture, *np.zeros((3, 1)))

    def scan(values: Array) -> Array:
        return np.array([total_chi2(counts, [c.seen(one, np.zeros(1, int), z) for c in counts])[0] for z in values])

    coarse = around + step * np.arange(-steps, steps + 1.0, _COARSE)
    centre = coarse[np.argmin(scan(coarse))]
    fine = centre + step * np.arange(-_COARSE, _COARSE + 1.0)
    chi2 = scan(fine)
    # a parabola through all that are nearly as good: from step to step the interpolated template roughens chi2
    near = chi2 < max(chi2.min() + 4.0, np.sort(chi2)[4])
    bend, slope, _ = np.polyfit((fine - centre)[near] / step, chi2[near], 2)
    if bend <= 0:
        return float(fine[np.argmin(chi2)]), np.inf
    vertex = np.clip(-0.5 * slope / bend, -_COARSE, _COARSE)
    return float(centre + vertex * step), float(step / np.sqrt(bend))


def _refined(
    counts: Sequence[Counts], templates: StarTemplates, parameters: Array, best: int, redshift: float
) -> tuple[Array, Array, Array, float]:
    """Parameters, weights of the templates, errors of the parameters, chi2; downhill from template `best`."""
    at, extent = parameters[best], 0.5 * np.ptp(parameters, axis=0)
    for _ in range(_ROUNDS):
        surface = surface_around(parameters, best)
        seen = [c.seen(templates, surface.members, redshift) for c in counts]
        at, errors, chi2 = downhill(counts, surface, seen, at, extent)
        if (nearest := _nearest(parameters, at)) == best:
            break
        best = nearest
    coef = np.zeros(len(templates))
    coef[surface.members] = surface.mixture(at)
    return at, coef, errors, chi2
