"""The calibration that all stars of a frame have in common, and the scale of each star (spec offline-reduction §9).

Star f gives D_f = a_f R_f (m_f c) + noise: m_f is its model, R_f its resolution, a_f what is left of its own scale,
and c the common calibration before any resolution. c is a banded least squares with a prior of smoothness; the scales
are fitted in turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from algorithms.fluxcal.smoothness import add_stiffness, stands_out, stiffness
from algorithms.stars.continuum import bridged, running_median
from qlstream.calibration.served import MissingCalibration
from qlstream.numeric.deconvolution import CommonSpectrum, NormalEquations, spread

Array = NDArray[np.float64]

_RANGE = 0.2  # a star that keeps less of its scale than this is no star of this exposure
_MODEL_ERROR = 0.02  # of the flux: what a template may be off
_SAME = 0.05  # scales that differ by less are never outliers
_LEVEL = 200.0  # window in which the level of the vector is taken [Angstrom]


@dataclass(frozen=True)
class FitLimits:
    """Rejection of bins and stars.

    Attributes
    ----------
    nsig : bins that deviate by more [sigma], after 20 % of the flux was added to their error once
    nsig_scale : stars whose scale deviates by more from the others' [sigma]
    max_iterations : rounds
    bend : how far the response leaves its tangent within 50 Angstrom, as a fraction; see `smoothness`
    """

    nsig: float = 10.0
    nsig_scale: float = 3.0
    max_iterations: int = 20
    bend: float = 0.01


@dataclass(frozen=True)
class StarData:
    """The stars of a frame.

    Attributes
    ----------
    wave : (n,) [Angstrom]
    data, ivar : (nstar, n); ivar = 0 leaves a bin out
    bands : (nstar, ndiag, n) of their resolution matrices
    models : (nstar, n) [1e-17 erg/s/cm2/Angstrom]
    rough : (n,) where nothing is supposed of the vector
    """

    wave: Array
    data: Array
    ivar: Array
    bands: Array
    models: Array
    rough: NDArray[np.bool_]

    def seen(self, vector: Array) -> Array:
        """(nstar, n) what the stars show through a calibration vector (n,)."""
        return np.stack([spread(b, m * vector) for b, m in zip(self.bands, self.models, strict=True)])

    def snr(self) -> float:
        """Median S/N of a bin."""
        used = self.ivar > 0
        return float(np.median((self.data * np.sqrt(self.ivar))[used])) if used.any() else 0.0


@dataclass(frozen=True)
class CommonFit:
    """What the stars have in common.

    Attributes
    ----------
    common : the vector
    scales : (nstar,)
    kept : indices of the stars that made it
    share : (nstar,) by how much each did; sums to 1
    count : (n,) stars that tell a bin
    free : (n,) bins of which nothing was supposed
    """

    common: CommonSpectrum
    scales: Array
    kept: NDArray[np.int64]
    share: Array
    count: NDArray[np.int64]
    free: NDArray[np.bool_]


def fit_common(stars: StarData, limits: FitLimits) -> CommonFit:
    """Vector and scales, with bins and stars that stand out left out.

    Raises
    ------
    MissingCalibration : no star follows its model
    """
    start = _start(stars)
    seen = start * stars.seen(np.ones(stars.wave.size))
    scales = _scales(stars.data, stars.ivar, seen)
    weight = np.where(stars.ivar > 0, 1.0 / (_variance(stars.ivar) + (0.2 * stars.data) ** 2), 0.0)
    weight = np.where((stars.data - scales[:, None] * seen) ** 2 * weight > limits.nsig**2, 0.0, weight)
    kept = np.flatnonzero(scales > _RANGE)
    if not kept.size:
        raise MissingCalibration(f"none of {len(scales)} standard stars follows its model")
    scales /= 1.0 / (1.0 / scales[kept]).mean()
    level = np.maximum(running_median(stars.wave, start, _LEVEL), 0.02 * np.median(start))
    told = (stars.ivar > 0).any(axis=0)
    free = stars.rough & told
    common = _solve(stars, weight, scales, kept, stiffness(stars.wave, level, limits.bend, free))
    for _ in range(limits.max_iterations):
        # from here on the true errors decide
        predicted = stars.seen(common.model)
        variance = _variance(stars.ivar) + (_MODEL_ERROR * predicted) ** 2
        new = _scales(stars.data, np.where(weight > 0, 1.0 / variance, 0.0), predicted)
        new /= 1.0 / (1.0 / new[kept]).mean()
        residual = (stars.data - new[:, None] * predicted) / np.sqrt(variance)
        bad = (np.abs(residual) > limits.nsig) & (weight > 0)
        bad &= np.abs(residual) >= np.where(weight > 0, np.abs(residual), 0.0)[kept].max(axis=0)  # the worst of a bin
        weight = np.where(bad | (weight == 0), 0.0, 1.0 / variance)
        dropped = _outlier(new, kept, limits.nsig_scale)
        if dropped is not None:
            kept = kept[kept != dropped]
        released = stands_out(_together(residual[kept], weight[kept], predicted[kept])) & told & ~free
        free |= released
        settled = not bad.any() and dropped is None and not released.any() and np.abs(new - scales)[kept].max() < 1e-4
        scales = new
        common = _solve(stars, weight, scales, kept, stiffness(stars.wave, level, limits.bend, free))
        if settled:
            break
    says = (weight * (scales[:, None] * stars.seen(common.model)) ** 2).sum(axis=1)
    share = np.where(np.isin(np.arange(len(scales)), kept), says, 0.0)
    return CommonFit(common, scales, kept, share / share.sum(), (weight[kept] > 0).sum(axis=0), free)


def _start(stars: StarData) -> Array:
    """(n,) median over stars of data over model; 0 never, bins without stars are bridged."""
    seen = stars.seen(np.ones(stars.wave.size))
    good = (stars.ivar > 0) & (seen > 0)
    ratio = np.where(good, stars.data / np.where(good, seen, 1.0), np.nan)
    known = np.any(good, axis=0)
    out = np.zeros(stars.wave.size)
    out[known] = np.nanmedian(ratio[:, known], axis=0)
    return bridged(out, np.asarray(known))


def _variance(ivar: Array) -> Array:
    return np.asarray(1.0 / np.where(ivar > 0, ivar, 1.0))


def _scales(data: Array, weight: Array, predicted: Array) -> Array:
    total = (weight * predicted**2).sum(axis=1)
    return np.asarray(np.where(total > 0, (weight * data * predicted).sum(axis=1) / np.where(total > 0, total, 1), 0.0))


def _solve(stars: StarData, weight: Array, scales: Array, kept: NDArray[np.int64], stiff: Array) -> CommonSpectrum:
    equations = NormalEquations(stars.bands.shape[1], stars.wave.size)
    for k in kept:
        equations.add(stars.bands[k] * stars.models[k], float(scales[k]), stars.data[k], weight[k])
    add_stiffness(equations.normal, stiff)
    return equations.solve()


def _together(residual: Array, weight: Array, predicted: Array) -> Array:
    """(n,) residuals [sigma] of all stars as one, each star by how much it says of the vector; 0 without data."""
    say = np.where(weight > 0, np.sqrt(weight) * predicted, 0.0)
    norm = np.sqrt((say**2).sum(axis=0))
    return np.asarray(np.where(norm > 0, (say * residual).sum(axis=0) / np.where(norm > 0, norm, 1.0), 0.0))


def _outlier(scales: Array, kept: NDArray[np.int64], nsig: float) -> int | None:
    """The star whose scale deviates most, if it deviates too much; never one of the last two."""
    if len(kept) < 3:
        return None
    here = scales[kept]
    deviation = np.abs(here - np.median(here))
    far = deviation > max(nsig * 1.4826 * float(np.median(deviation)), _SAME)
    return int(kept[np.argmax(np.where(far, deviation, -1.0))]) if far.any() else None
