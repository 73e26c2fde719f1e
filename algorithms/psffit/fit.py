"""The Gauss-Hermite PSF of a camera from the lines of an arc, bundle by bundle (spec offline-reduction §2).

Each round measures place, widths and shape of all spots by linear fits (`moments`), makes smooth fields of them
(`field`), and moves the PSF there (`moved`); fluxes of overlapping spots are solved together. A few rounds suffice,
since every step is the linear one of the full problem.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from algorithms.extract.spectroperfect.spots import Spots
from algorithms.extract.spectroperfect.system import normal_equations, project
from algorithms.psffit.arclines import ArcLines
from algorithms.psffit.combine import join_bundles
from algorithms.psffit.moments import Moments, measure_moments
from algorithms.psffit.moved import Measured, Stiffness, move_psf
from algorithms.psffit.tails import Tail, move_tail, tail_images, with_tail
from qlstream.datamodel.psf import GaussHermitePSF

Array = NDArray[np.float64]
Float = NDArray[np.float32]

_LEAST_LINES, _LEAST_SPOTS = 4, 4  # lines of a bundle, and spots per fiber, with which a fit makes sense

_PASSES = 3  # over all bundles, until the tail of each is right in the next one

FITTED, TOO_FEW, NO_BETTER = 0, 1, 2  # states of a bundle


@dataclass(frozen=True)
class FitLimits:
    """What is fitted, and when it ends.

    Attributes
    ----------
    gh_degree : of the Hermite terms, i + j <= gh_degree
    stiffness : degrees of all that varies
    min_snr : significance of a spot that counts
    tail_index : of the tail whose amplitude is fitted; None for no tail
    psf_error : relative error of the PSF that is expected to remain, in the variance of the pixels
    rounds : at most
    tolerance : end when no trace moves by more [pixel]
    """

    gh_degree: int = 6
    stiffness: Stiffness = field(default_factory=Stiffness)
    tail_index: float | None = None
    min_snr: float = 15.0
    psf_error: float = 0.0
    rounds: int = 10
    tolerance: float = 5e-4


@dataclass(frozen=True)
class FittedPSF:
    """A fitted PSF, and how well it describes the arc.

    Attributes
    ----------
    psf : of all fibers; a bundle that could not be fitted keeps the PSF it started from
    rchi2 : (nbundle,) mean chi2 of the pixels under the measured spots; nan where nothing could be fitted
    nspots : (nbundle,) int64 spots that were measured
    status : (nbundle,) int64 FITTED, TOO_FEW spots, or NO_BETTER than the start
    tails : of each bundle, None where none was fitted
    """

    psf: GaussHermitePSF
    rchi2: Array
    nspots: NDArray[np.int64]
    status: NDArray[np.int64]
    tails: tuple[Tail | None, ...]


@dataclass(frozen=True)
class _Pixels:
    """The columns of one bundle.

    Attributes
    ----------
    data, ivar : (ny, n) [electron], [electron^-2]
    noise : (ny, n) variance of a pixel without light, or None if ivar is to be believed
    columns : which of the CCD
    """

    data: Float
    ivar: Float
    noise: Float | None
    columns: slice

    def weights(self, model: Float, background: np.float32, psf_error: float) -> Float:
        """Inverse variance of the pixels if the model is right; weights from the data's own counts are biased low."""
        usable = self.ivar > 0
        dark = 1.0 / np.where(usable, self.ivar, 1.0) if self.noise is None else self.noise + model + background
        variance = dark + (psf_error * model) ** 2
        return np.divide(1.0, variance, out=np.zeros(model.shape, np.float32), where=usable, dtype=np.float32)


def fit_psf(
    pix: Float,
    ivar: Float,
    start: GaussHermitePSF,
    lines: ArcLines,
    bundles: NDArray[np.int64],
    limits: FitLimits,
    noise: Float | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> FittedPSF:
    """Fit the PSF of every bundle.

    Parameters
    ----------
    pix, ivar : (ny, nx) preprocessed arc [electron]; ivar 0 takes a pixel out
    start : a PSF whose traces are right to about a pixel
    lines : all lines whose light is there, and which of them are measured
    bundles : first fiber of each bundle and, last, the number of fibers
    noise : (ny, nx) variance of a pixel without light [electron^2]: the weights are then those of the model's light.
        Without it `ivar` is taken as it is
    """
    slices = [slice(int(a), int(b)) for a, b in pairwise(bundles)]
    starts = [start.select(part) for part in slices]
    found = [_Bundle(part) for part in starts]
    for _ in range(1 if limits.tail_index is None else _PASSES):
        # tails reach into the next bundle: its light is known from the pass before
        light = np.zeros_like(pix)
        for part, bundle in zip(starts, found, strict=True):
            if bundle.model is not None:
                light[:, _columns(part, pix.shape[1])] += bundle.model
        for n, part in enumerate(starts):
            before = found[n]
            columns = _columns(part, pix.shape[1])
            others = light[:, columns] if before.model is None else light[:, columns] - before.model
            pixels = _Pixels(
                pix[:, columns] - others, ivar[:, columns], None if noise is None else noise[:, columns], columns
            )
            found[n] = _fit_bundle(pixels, part, before.psf, lines, limits)
            progress(n + 1)
    return FittedPSF(
        join_bundles([b.psf for b in found]),
        np.array([b.rchi2 for b in found]),
        np.array([b.nspots for b in found]),
        np.array([b.status for b in found]),
        tuple(b.tail for b in found),
    )


@dataclass(frozen=True)
class _Bundle:
    """The state of a bundle: as in FittedPSF, and the image of its lines in its columns."""

    psf: GaussHermitePSF
    rchi2: float = float("nan")
    nspots: int = 0
    status: int = TOO_FEW
    tail: Tail | None = None
    model: Float | None = None


def _fit_bundle(
    pixels: _Pixels, start: GaussHermitePSF, psf: GaussHermitePSF, lines: ArcLines, limits: FitLimits
) -> _Bundle:
    first, tail, settled = pixels.columns.start, None, True
    if limits.tail_index is not None:
        psf = with_tail(psf, limits.tail_index)
    weight, background = pixels.ivar, np.float32(0.0)
    for n in range(limits.rounds):
        spots, flux, residual, model = _model(psf, lines, pixels.data - background, weight, first)
        place = _moments(psf, lines, spots, flux, residual, weight, 2, first)
        expected, good = place.smooth_flux(lines.alone)
        place = place.in_units_of(expected)
        good &= (place.snr > limits.min_snr) & _inside(spots, pixels.data.shape)
        nspots = int(good.sum())
        if nspots < _LEAST_SPOTS * psf.nspec or np.count_nonzero(good.any(axis=1)) < _LEAST_LINES:
            return _Bundle(start, nspots=nspots)
        background += np.float32(np.median(place.background[good]))
        weight = pixels.weights(model, max(background, np.float32(0.0)), limits.psf_error)
        shape = None
        if n > 0 and (limits.gh_degree > 2 or limits.tail_index is not None):  # places come first
            slopes, shared = None, 1.0
            if limits.tail_index is not None:
                slopes, shared = tail_images(psf, lines, spots, flux, pixels.data.shape)
            shape = _moments(psf, lines, spots, flux, residual, weight, limits.gh_degree, first, slopes)
            shape = shape.in_units_of(expected)
            if slopes is not None:
                psf, tail, settled = move_tail(psf, lines.wave, shape, good, shared)
        measured = Measured(lines.wave, lines.blur, good, place, shape)
        psf, moved = move_psf(psf, start, measured, limits.stiffness)
        if moved < limits.tolerance and n > 1 and settled:
            break
    data = pixels.data - background
    rchi2 = [_rchi2(p, lines, data, weight, good, first) for p in (start, psf)]
    status = FITTED if rchi2[1] <= rchi2[0] else NO_BETTER
    psf, tail = (psf, tail) if status == FITTED else (start, None)
    model = _model(psf, lines, data, weight, first)[3]
    return _Bundle(psf, min(rchi2), nspots, status, tail, model)


def _columns(psf: GaussHermitePSF, nx: int) -> slice:
    """Columns that the spots of a bundle reach, and some more should its traces move."""
    wave = np.linspace(psf.traces.wavemin, psf.traces.wavemax, 20)
    x, reach = psf.traces.x_vs_wave(wave), psf.hsizex + 4
    return slice(int(np.clip(np.floor(x.min()) - reach, 0, nx)), int(np.clip(np.ceil(x.max()) + reach + 1, 0, nx)))


def _model(
    psf: GaussHermitePSF, lines: ArcLines, data: Float, weight: Float, first: int
) -> tuple[Spots, Array, Float, Float]:
    """Spots in columns from `first` on, their fluxes, what they leave of the data, and their image."""
    whole = lines.spots(psf)
    spots = Spots(whole.image, whole.row, whole.column - first)
    flux = np.maximum(normal_equations(spots, data, weight).solve(), 0.0)
    model = np.zeros(data.shape, np.float32)
    project(spots.image, spots.row, spots.column, flux, model)
    return spots, flux, data - model, np.maximum(model, np.float32(0.0))


def _moments(
    psf: GaussHermitePSF,
    lines: ArcLines,
    spots: Spots,
    flux: Array,
    residual: Float,
    weight: Float,
    degree: int,
    first: int,
    extra: Array | None = None,
) -> Moments:
    x, y = psf.traces.x_vs_wave(lines.wave) - first, psf.traces.y_vs_wave(lines.wave)
    widths = psf.parameter("GHSIGX", lines.wave), psf.parameter("GHSIGY", lines.wave)
    return measure_moments(spots, x, y, *widths, flux, residual, weight, degree, True, lines.alone, extra)


def _inside(spots: Spots, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    return np.asarray((spots.row >= 0) & (spots.row + spots.image.shape[2] <= shape[0]))


def _rchi2(
    psf: GaussHermitePSF, lines: ArcLines, data: Float, weight: Float, good: NDArray[np.bool_], first: int
) -> float:
    """Mean chi2 of the pixels under the good spots, each with its own background."""
    spots, flux, residual, _ = _model(psf, lines, data, weight, first)
    background = _moments(psf, lines, spots, flux, residual, weight, 0, first).background
    total, number = 0.0, 0
    height, width = spots.image.shape[2:]
    for k, f in zip(*np.nonzero(good), strict=True):
        rows = slice(max(spots.row[k, f], 0), spots.row[k, f] + height)
        columns = slice(max(spots.column[k, f], 0), spots.column[k, f] + width)
        square = (residual[rows, columns] - background[k, f]) ** 2 * weight[rows, columns]
        total += float(square.sum(dtype=float))
        number += int((weight[rows, columns] > 0).sum())
    return total / max(number, 1)
