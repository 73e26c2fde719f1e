"""Widths of single arc lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.datamodel.qframe import QFrame
from qlstream.datamodel.traces import XYTraceSet
from qlstream.lines import LINE, is_isolated
from qlstream.numeric.gaussfit import fit_lines

Array = NDArray[np.float64]

CLEAR = 3.0  # rows closer to a neighbour than this hold its light [sigma]
NEEDED = 2.3  # rows that a width needs on either side of its line [sigma]
BLOCKS = 8  # of the wavelength range, so that the lines are spread over it
FEWEST = 7  # samples that a width needs
OFF_CENTER = 1.0  # a line further from its place is another one [pixel]
WIDTH_RANGE = (0.5, 2.5)  # widths in units of the expected ones that are believed
WORST = 0.2  # relative error above which a width says nothing


@dataclass(frozen=True)
class Lines:
    """Lines to be measured.

    Attributes
    ----------
    table : (nline,) structured array: wave [Angstrom], name, strength
    low, high : (nline,) where the rows that hold no neighbour's light begin and end, from the line [pixel]
    """

    table: NDArray[np.void]
    low: Array
    high: Array

    @property
    def wave(self) -> Array:
        return np.ascontiguousarray(self.table["wave"], dtype=float)


@dataclass(frozen=True)
class MeasuredWidths:
    """(nspec, nline) float64 sigma and its error [pixel]; NaN where a line could not be measured."""

    sigma: Array
    error: Array


def lonely_lines(
    table: NDArray[np.void], traces: XYTraceSet, sigma: float, half: int, contamination: float, most: int
) -> Lines:
    """The lines of `table` whose core no neighbour blends with at the resolution of this camera.

    Of those the strongest, evenly from all parts of the wavelength range.

    Parameters
    ----------
    table : as `qlstream.lines.arc_lines` gives it
    sigma : typical width of a line [pixel]
    half : rows on each side that are fitted, unless a neighbour is in the way
    contamination : neighbours fainter than this fraction of a line are tolerated
    most : how many
    """
    table = table[(table["wave"] > traces.wavemin) & (table["wave"] < traces.wavemax)]
    if not len(table):
        return Lines(table, np.zeros(0), np.zeros(0))
    alone = table[is_isolated(table, (NEEDED + CLEAR) * sigma * _row_width(traces, table["wave"]), contamination)]
    chosen = np.sort(alone[_spread_out(alone, traces, most)], order="wave")
    return _with_clear_rows(chosen, table, traces, sigma, half, contamination)


def _row_width(traces: XYTraceSet, wave: Array) -> Array:
    """(n,) [Angstrom/pixel] of the median fiber."""
    return np.asarray(np.median(1.0 / traces.dy_dwave(wave), axis=0))


def _with_clear_rows(
    lines: NDArray[np.void],
    table: NDArray[np.void],
    traces: XYTraceSet,
    sigma: float,
    half: int,
    contamination: float,
) -> Lines:
    """How far from each of `lines` no line of `table` disturbs, but never less than a width needs."""
    low, high = np.full(len(lines), -float(half)), np.full(len(lines), float(half))
    for k, width in enumerate(_row_width(traces, lines["wave"])):
        distance = (table["wave"] - lines["wave"][k]) / width
        bright = (table["strength"] > contamination * lines["strength"][k]) & (np.abs(distance) > 1e-3)
        below, above = distance[bright & (distance < 0)], distance[bright & (distance > 0)]
        low[k] = max(low[k], (below + CLEAR * sigma).max(initial=-np.inf))
        high[k] = min(high[k], (above - CLEAR * sigma).min(initial=np.inf))
    return Lines(lines, np.minimum(low, -NEEDED * sigma), np.maximum(high, NEEDED * sigma))


def _spread_out(lines: NDArray[np.void], traces: XYTraceSet, most: int) -> NDArray[np.int64]:
    """The strongest lines of each block of the wavelength range."""
    block = (BLOCKS * (lines["wave"] - traces.wavemin) / (traces.wavemax - traces.wavemin)).astype(int)
    order = np.argsort(-lines["strength"])
    rank = np.empty(len(lines), np.int64)
    for b in range(BLOCKS):
        mine = order[block[order] == b]
        rank[mine] = np.arange(len(mine))
    return np.lexsort((-lines["strength"], rank))[:most]


def chosen_lines(
    table: NDArray[np.void],
    waves: tuple[float, ...],
    traces: XYTraceSet,
    sigma: float,
    half: int,
    contamination: float,
) -> Lines:
    """The lines at `waves` [Angstrom] within the domain of the traces, whether `table` has them or not."""
    wanted = np.array([w for w in sorted(waves) if traces.wavemin < w < traces.wavemax])
    lines = np.zeros(len(wanted), LINE)
    if len(wanted):
        nearest = table[np.abs(table["wave"][:, None] - wanted).argmin(axis=0)]
        known = np.abs(nearest["wave"] - wanted) < 1.0
        lines["name"] = np.where(known, nearest["name"], "?")
        lines["strength"] = np.where(known, nearest["strength"], 0.0)
        lines["wave"] = np.where(known, nearest["wave"], wanted)
    return _with_clear_rows(lines, table, traces, sigma, half, contamination)


def wing_shape(psf: GaussHermitePSF, wave: Array) -> Array | None:
    """(nspec, n, k) Hermite terms of the line spread of a PSF, summed over columns, for `fit_lines`.

    Summed across the dispersion only the terms GH-0-j are left. None if the PSF has none.
    """
    names = [f"GH-0-{j}" for j in range(psf.ghdegy + 1)]
    if len(names) < 2 or any(name not in psf.coef for name in names):
        return None
    terms = np.stack([psf.parameter(name, wave) for name in names], axis=2)
    if not (terms[:, :, 0] > 0).all():
        return None
    return np.asarray(terms / terms[:, :, :1])


def measure_widths(
    qframe: QFrame,
    traces: XYTraceSet,
    lines: Lines,
    expected: Array,
    shape: Array | None,
    half: int,
    min_snr: float,
) -> MeasuredWidths:
    """Core width of each line in each fiber, by `fit_lines` on +-`half` rows.

    Unlike the seed's (spec preproc-and-extraction §10.1) the fits have a background and a free flux, are weighted, and
    know the wings of the PSF. Rows with any mask bit do not count.

    Parameters
    ----------
    qframe : the arc, in counts per row
    expected : (nspec, nline) widths to start from [pixel]
    shape : (nspec, nline, k) as `wing_shape`, or None
    min_snr : of the flux of a line that counts
    """
    y = traces.y_vs_wave(lines.wave)
    row = np.rint(y).astype(np.int64)
    index = row[:, :, None] + np.arange(-half, half + 1)
    away = index - y[:, :, None]
    ny = qframe.flux.shape[1]
    use = (index >= 0) & (index < ny) & (away >= lines.low[:, None]) & (away <= lines.high[:, None])
    index = np.clip(index, 0, ny - 1)
    fiber = np.arange(traces.nspec)[:, None, None]
    use &= qframe.mask[fiber, index] == 0
    ivar = np.where(use, qframe.ivar[fiber, index], 0.0).astype(np.float64)
    flux = np.where(ivar > 0, qframe.flux[fiber, index], 0.0).astype(np.float64)
    n, m = y.size, 2 * half + 1
    fits = fit_lines(
        flux.reshape(n, m),
        ivar.reshape(n, m),
        (y - row + half).ravel(),
        expected.ravel().copy(),
        None if shape is None else shape.reshape(n, -1),
    )
    flux_fitted, center, sigma, _ = fits.parameters.T
    flux_error, _, error, _ = fits.errors.T
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = sigma / expected.ravel()
        good = fits.good & (flux_fitted > min_snr * flux_error) & (error < WORST * sigma)
        good &= (np.abs(center - (y - row + half).ravel()) < OFF_CENTER) & (fits.dof + 4 >= FEWEST)
        good &= (ratio > WIDTH_RANGE[0]) & (ratio < WIDTH_RANGE[1])
        good &= (ivar.reshape(n, m)[:, half - 1 : half + 2] > 0).all(axis=1)
    return MeasuredWidths(
        np.where(good, sigma, np.nan).reshape(y.shape), np.where(good, error, np.nan).reshape(y.shape)
    )
