"""One scale for the fibers of all petals, out of flats of several lamps (spec offline-reduction §6.2).

The flat of one camera is relative to the median fiber of its petal, under one lamp that does not light the focal plane
evenly. With the lamp's spectrum in each petal, every exposure e tells F_ef = n_e T_f (1 + g_e(x_f, y_f)) of fiber f at
each wavelength: T_f is the flat that is wanted, n_e the brightness of the lamp and g_e its slopes against the mean of
all lamps. These are fitted in turn. The reference divides each exposure by its fit at the centre of the field and takes
the mean, so that a petal that one lamp lacks comes out with the slope of the others, and the petals' own differences
tilt what is fitted; the mean of lamps of different places is as even in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from qlstream.datamodel.fiberflat import FiberFlat
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.masks import FiberMask, SpecMask
from qlstream.numeric.bspline import Knots

Array = NDArray[np.float64]

_SAME_WAVE = 1e-3  # [Angstrom]
_SCALE = 400.0  # of positions in the fit [mm]
_CLIP = 4.0  # fibers that changed between exposures [sigma]
_ROUNDS = 20
_ENOUGH = 20  # fibers with a position tell slopes
_LEAST_IVAR = 1e-8
_WINDOW = 9  # of the running median that spikes stand out of [bin]
_SPIKE, _NSIG = 0.1, 3.0  # a spike exceeds this and so many sigma
_MAX_VARIANCE = 0.05**2
_LONGEST = 10  # run of bad bins that is bridged [bin]
_MAX_MASKED = 0.25  # share of a fiber's bins; beyond it the fiber is bad


@dataclass
class _Petal:
    """What is known of one camera: its fibers, the levels of each exposure, and sums over exposures."""

    first: FiberFlat
    place: Array
    levels: dict[int, Array] = field(default_factory=dict)  # exposure -> (nspec, nchunk)
    chi2: list[float] = field(default_factory=list)
    total: Array = field(init=False)
    variance: Array = field(init=False)
    weight: Array = field(init=False)
    masks: NDArray[np.uint32] = field(init=False)

    def __post_init__(self) -> None:
        shape = self.first.fiberflat.shape
        self.total, self.variance, self.weight = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self.masks = np.zeros(shape, np.uint32)


@dataclass(frozen=True)
class _Lamps:
    """What each exposure's lamp is to the fibers.

    Attributes
    ----------
    centers : (nchunk,) wavelengths [Angstrom]
    level : (nexp, nchunk) brightness
    slopes : (nexp, nterm, nchunk) against the mean lamp
    """

    centers: Array
    level: Array
    slopes: Array

    def light(self, exposure: int, basis: Array, wave: Array) -> Array:
        """(nspec, nwave) of fibers whose slope terms are `basis` (nspec, nterm)."""
        per_chunk = self.level[exposure] * (1.0 + basis @ self.slopes[exposure])
        return np.array([np.interp(wave, self.centers, row) for row in per_chunk])


def autocalib_fiberflat(
    exposures: Iterable[Sequence[FiberFlat]],
    weights: Sequence[float] | None = None,
    positions: Fibermap | None = None,
    knot_step: float = 22.0,
) -> list[FiberFlat]:
    """Flats of all petals of an arm on one scale.

    Parameters
    ----------
    exposures : of each, the flats of its petals, one per camera, in any order; petals may be missing. They are gone
        through twice, so that they may be read when they are asked for
    weights : of the exposures, e.g. one over the number of those of the same lamp; default 1
    positions : what tells where the fibers are in the focal plane, see `Fibermap.places`; default the flats' own
        fibermaps. Without positions lamps have no slopes
    knot_step : of the ratios of the petals' lamp spectra, which are noisier than the flats, and of the lamps' slopes
        [Angstrom]

    Returns
    -------
    One flat per camera, in the order of their names; at every wavelength the median over petals of the petals' median
    fiber is 1. Short runs of bad bins are bridged, with twice the variance of their neighbours; fibers with more than a
    quarter of bad bins get FIBERSTATUS BADFLAT.

    Raises
    ------
    ValueError : no flats, cameras of several arms, a camera twice in an exposure, or other fibers or wavelengths than
        the exposure before
    """
    petals: dict[str, _Petal] = {}
    spectra: list[Array] = []
    for number, flats in enumerate(exposures):
        _check(petals, flats)
        common = np.mean([flat.meanspec for flat in flats], axis=0)
        spectra.append(common)
        for flat in flats:
            known = flat.fibermap if positions is None else positions
            place = np.full((flat.nspec, 2), np.nan) if known is None else known.places(flat.fibers)
            petal = petals.setdefault(_camera(flat), _Petal(flat, place))
            petal.levels[number] = _levels(flat, _smooth_ratio(flat, common, knot_step), knot_step)
            petal.masks |= flat.mask
            petal.chi2 += [] if flat.chi2pdf is None else [flat.chi2pdf]
    if not petals:
        raise ValueError("autocalib_fiberflat: no flats given")
    names = sorted(petals)
    weight = np.ones(len(spectra)) if weights is None else np.asarray(weights, dtype=float)
    basis = _slope_terms([petals[name].place for name in names])
    lamps = _fit_lamps([petals[name] for name in names], basis, weight, knot_step)
    terms = dict(zip(names, basis, strict=True))
    for number, flats in enumerate(exposures):
        for flat in flats:
            ratio = _smooth_ratio(flat, spectra[number], knot_step)
            name = _camera(flat)
            _add(petals[name], flat, ratio, lamps.light(number, terms[name], flat.wave), weight[number])
    merged = [_mean(petals[name]) for name in names]
    norm = _typical(merged)
    lamp = np.average(spectra, axis=0, weights=weight) * norm
    return [_finished(flat, norm, lamp, petals[name]) for name, flat in zip(names, merged, strict=True)]


def _camera(flat: FiberFlat) -> str:
    return str(flat.meta.get("CAMERA", "")).strip().lower()


def _check(petals: dict[str, _Petal], flats: Sequence[FiberFlat]) -> None:
    cameras = [_camera(flat) for flat in flats]
    if len({*cameras}) != len(cameras) or len({c[:1] for c in (*cameras, *petals)}) > 1:
        raise ValueError(f"autocalib_fiberflat: cameras {', '.join(cameras)}; give each petal of one arm once")
    wave = next(iter(petals.values())).first.wave if petals else flats[0].wave
    for flat, camera in zip(flats, cameras, strict=True):
        if flat.wave.shape != wave.shape or np.abs(flat.wave - wave).max() > _SAME_WAVE:
            raise ValueError(f"autocalib_fiberflat: the flats of {camera} stand on other wavelengths; use one grid")
        if camera in petals and not np.array_equal(petals[camera].first.fibers, flat.fibers):
            raise ValueError(f"autocalib_fiberflat: the flats of {camera} are of different fibers")


def _good(flat: FiberFlat) -> NDArray[np.bool_]:
    return np.asarray((flat.ivar > _LEAST_IVAR) & (flat.mask == 0))


def _smooth_ratio(flat: FiberFlat, common: Array, knot_step: float) -> Array:
    """(nwave,) the lamp in this petal over that in all; 0 where there is no light."""
    lit = (flat.meanspec > 0) & (common > 0)
    ratio = np.divide(flat.meanspec, common, out=np.zeros_like(common), where=lit)
    knots = _knots(flat.wave, knot_step)
    coef, _ = knots.fit(flat.wave, ratio, np.where(lit, common, 0.0))
    return np.where(lit, np.maximum(knots.evaluate(coef, flat.wave), 0.0), 0.0)


def _knots(wave: Array, knot_step: float) -> Knots:
    return Knots.over(float(wave[0]), float(wave[-1]), knot_step)


def _chunks(wave: Array, step: float) -> list[slice]:
    edges = np.linspace(0, wave.size, max(int((wave[-1] - wave[0]) / step), 1) + 1).astype(int)
    return [slice(a, b) for a, b in pairwise(edges)]


def _levels(flat: FiberFlat, ratio: Array, step: float) -> Array:
    """(nspec, nchunk) medians of the petal's flat on the common scale; nan for fibers that count for nothing there."""
    good = _good(flat) & (ratio > 0)
    if flat.fibermap is not None:
        good &= flat.fibermap.is_usable("flat")[:, None]
    values = np.where(good, flat.fiberflat * ratio, np.nan)
    columns = []
    for chunk in _chunks(flat.wave, step):
        part = values[:, chunk]
        enough = good[:, chunk].mean(axis=1) > 0.5
        column = np.full(len(values), np.nan)
        column[enough] = np.nanmedian(part[enough], axis=1)
        columns.append(np.where(column > 0, column, np.nan))
    return np.stack(columns, axis=1)


def _slope_terms(places: Sequence[Array]) -> list[Array]:
    """Per petal (nspec, 3) of x, y and x^2 + y^2, less their means; without enough positions 0."""
    x, y = np.concatenate(places).T / _SCALE
    terms = np.stack([x, y, x**2 + y**2], axis=1)
    told = np.isfinite(terms).all(axis=1)
    if told.sum() < _ENOUGH or np.linalg.cond(terms[told] - terms[told].mean(axis=0)) > 1e4:
        terms[:] = 0.0
    else:
        terms = np.where(told[:, None], terms - terms[told].mean(axis=0), 0.0)
    return np.split(terms, np.cumsum([len(p) for p in places])[:-1])


def _fit_lamps(petals: Sequence[_Petal], basis: Sequence[Array], weight: Array, step: float) -> _Lamps:
    wave = petals[0].first.wave
    chunks = _chunks(wave, step)
    levels = np.full((weight.size, sum(p.first.nspec for p in petals), len(chunks)), np.nan)
    at = 0
    for petal in petals:
        here = slice(at, at + petal.first.nspec)
        at = here.stop
        for number, level in petal.levels.items():
            levels[number, here] = level
    terms = np.concatenate(basis)
    brightness, slopes = np.ones((weight.size, len(chunks))), np.zeros((weight.size, terms.shape[1], len(chunks)))
    for c in range(len(chunks)):
        brightness[:, c], slopes[:, :, c] = _fit_chunk(levels[:, :, c], terms, weight)
    return _Lamps(np.array([wave[c].mean() for c in chunks]), brightness, slopes)


def _fit_chunk(levels: Array, terms: Array, weight: Array) -> tuple[Array, Array]:
    """(nexp,) brightness and (nexp, nterm) slopes of the lamps from (nexp, nfiber) levels; their means are 1 and 0."""
    told = np.isfinite(levels)
    nexp = len(levels)
    brightness, slopes = np.ones(nexp), np.zeros((nexp, terms.shape[1]))
    usable = np.flatnonzero(told.sum(axis=1) > 2 * (1 + terms.shape[1]))
    if usable.size < 2:
        return brightness, slopes
    with_slope = bool(terms.any())
    design = np.column_stack([np.ones(len(terms)), terms]) if with_slope else np.ones((len(terms), 1))
    share = weight[:, None] * told
    for _ in range(_ROUNDS):
        light = brightness[:, None] * (1.0 + slopes @ terms.T)
        flat = np.where(told, levels / light, 0.0)
        total = share.sum(axis=0)
        mean = (share * flat).sum(axis=0) / np.where(total > 0, total, 1.0)
        before = brightness.copy(), slopes.copy()
        for e in usable:
            here = np.flatnonzero(told[e] & (mean > 0))
            ratio = levels[e, here] / mean[here]
            off = np.abs(ratio / light[e, here] - 1.0)
            keep = off <= _CLIP * 1.4826 * np.median(off) + 1e-9
            fit = np.linalg.lstsq(design[here][keep], ratio[keep], rcond=None)[0]
            brightness[e] = fit[0]
            if with_slope:
                slopes[e] = fit[1:] / fit[0]
        part = weight[usable] / weight[usable].sum()
        slopes[usable] -= part @ slopes[usable]
        brightness[usable] /= part @ brightness[usable]
        if np.abs(brightness - before[0]).max() < 1e-7 and np.abs(slopes - before[1]).max() < 1e-7:
            break
    return brightness, slopes


def _add(petal: _Petal, flat: FiberFlat, ratio: Array, light: Array, weight: float) -> None:
    good = _good(flat) & (ratio > 0) & (light > 0)
    factor = np.where(good, ratio / np.where(light > 0, light, 1.0), 0.0)
    petal.total += weight * factor * np.where(good, flat.fiberflat, 0.0)
    petal.variance += (weight * factor) ** 2 / np.where(good, flat.ivar, 1.0)
    petal.weight += weight * good


def _mean(petal: _Petal) -> FiberFlat:
    """The mean flat of a petal; 1 with ivar 0 where no exposure tells."""
    have = petal.weight > 0
    safe = np.where(have, petal.weight, 1.0)
    value = np.where(have, petal.total / safe, 1.0)
    variance = petal.variance / safe**2
    ivar = np.divide(1.0, variance, out=np.zeros_like(variance), where=have & (variance > 0))
    return replace(petal.first, fiberflat=value, ivar=ivar)


def _typical(flats: Sequence[FiberFlat]) -> Array:
    """(nwave,) median over petals of their median fibers; 1 where no fiber tells."""
    medians = np.full((len(flats), flats[0].wave.size), np.nan)
    for n, flat in enumerate(flats):
        told = np.where(flat.ivar > 0, flat.fiberflat, np.nan)
        some = np.isfinite(told).any(axis=0)
        medians[n, some] = np.nanmedian(told[:, some], axis=0)
    out = np.ones(medians.shape[1])
    some = np.isfinite(medians).any(axis=0)
    out[some] = np.nanmedian(medians[:, some], axis=0)
    return out


def _finished(flat: FiberFlat, norm: Array, lamp: Array, petal: _Petal) -> FiberFlat:
    value, ivar = flat.fiberflat / norm, flat.ivar * norm**2
    variance = np.divide(1.0, ivar, out=np.full(ivar.shape, np.inf), where=ivar > _LEAST_IVAR)
    smooth = median_filter(value, size=(1, _WINDOW), mode="nearest")
    bad = ~(variance <= _MAX_VARIANCE) | (np.abs(value - smooth) > _SPIKE + _NSIG * np.sqrt(variance))
    _bridge(value, variance, bad)
    left = ~np.isfinite(variance)
    mask = np.where(left, petal.masks | SpecMask.BADFIBERFLAT, 0).astype(np.uint32)
    fibermap = flat.fibermap
    if fibermap is not None:
        fibermap = fibermap.flagged(np.where(bad.mean(axis=1) > _MAX_MASKED, int(FiberMask.BADFLAT), 0))
    return replace(
        flat,
        fiberflat=np.where(left, 1.0, value),
        ivar=np.where(left, 0.0, 1.0 / variance),
        mask=mask,
        meanspec=lamp,
        chi2pdf=float(np.mean(petal.chi2)) if petal.chi2 else None,
        fibermap=fibermap,
        meta={**flat.meta, "NFLATS": len(petal.levels)},
    )


def _bridge(value: Array, variance: Array, bad: NDArray[np.bool_]) -> None:
    """Interpolate short runs of bad bins in place; longer ones, and those at the ends, get variance inf."""
    for f in np.flatnonzero(bad.any(axis=1)):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], bad[f].astype(np.int8), [0]])))
        for first, stop in edges.reshape(-1, 2):
            if first == 0 or stop == bad.shape[1] or stop - first > _LONGEST:
                variance[f, first:stop] = np.inf
                continue
            part = (np.arange(first, stop) - first + 1) / (stop - first + 1)
            value[f, first:stop] = (1 - part) * value[f, first - 1] + part * value[f, stop]
            variance[f, first:stop] = 2.0 * max(variance[f, first - 1], variance[f, stop])
