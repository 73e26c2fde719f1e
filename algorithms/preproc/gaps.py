"""Light between the blocks of fibers, where there should be none: measured, and subtracted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from qlstream.datamodel.amplifier import Amp
from qlstream.datamodel.traces import XYTraceSet

_WING_REACH, _WING_SHARE = 30, 0.05  # columns on each side and share of its light that a fiber's wings may have
_WING_ROWS, _WING_STEP = 600, 4  # in the middle of the CCD, every fourth tells how bright the fibers of a gap are
_LINE_ROWS = 5.0  # on each side of a line that is bright enough to have wings itself
_NODES = 2  # per window, at which its median is taken


@dataclass(frozen=True)
class GapRules:
    """How light between blocks is measured.

    Attributes
    ----------
    half_width : columns on each side of the middle of a gap that are averaged
    margin : from the outermost traces to the middle of the gaps beyond them [pixel]
    window : rows whose median is the level
    contamination : light in a gap from the wings of the fibers beside it, beyond that of the typical gap, from which
        on the gap does not count [electron]
    lines : rows with these wavelengths are left out [Angstrom]
    """

    half_width: int = 2
    margin: float = 8.8
    window: int = 400
    contamination: float = 0.5
    lines: tuple[float, ...] = (5578.9,)


@dataclass(frozen=True)
class GapLight:
    """Light in the gaps of one amplifier.

    Attributes
    ----------
    amp : the amplifier
    x : (ngap, nrow) float32, middle of each gap that counts, for the rows of the amplifier [pixel]
    level : (ngap, nrow) float32 [electron]
    """

    amp: Amp
    x: NDArray[np.float32]
    level: NDArray[np.float32]

    @property
    def extremes(self) -> tuple[float, float]:
        """Lowest and highest level [electron]."""
        return float(self.level.min()), float(self.level.max())


@dataclass(frozen=True)
class Gaps:
    """The gaps of a camera: between neighbouring blocks, and beyond the first and the last.

    Attributes
    ----------
    x : (ngap, ny) float32, their middles [pixel]
    is_used : (ngap, ny), rows without the bright lines
    """

    x: NDArray[np.float32]
    is_used: NDArray[np.bool_]


def find_gaps(traces: XYTraceSet, fibers_per_bundle: int, ny: int, rules: GapRules) -> Gaps:
    """Middles of the gaps, from the traces of the first and the last fiber of each block.

    Raises
    ------
    ValueError : the traces are not those of whole blocks
    """
    if traces.nspec % fibers_per_bundle:
        raise ValueError(f"{traces.nspec} traces are no whole number of blocks of {fibers_per_bundle} fibers")
    first = np.arange(0, traces.nspec, fibers_per_bundle)
    rows = np.arange(ny, dtype=float)
    left, right = traces.select(first), traces.select(first + fibers_per_bundle - 1)
    low, high = left.x_vs_y(rows), right.x_vs_y(rows)
    x = np.vstack([low[:1] - rules.margin, 0.5 * (high[:-1] + low[1:]), high[-1:] + rules.margin]).astype(np.float32)
    is_used = np.ones(x.shape, bool)
    for wave in rules.lines:
        if traces.wavemin < wave < traces.wavemax:
            y_low, y_high = (t.y_vs_wave(np.array([wave])) for t in (left, right))
            middle = np.vstack([y_low[:1], 0.5 * (y_high[:-1] + y_low[1:]), y_high[-1:]])
            is_used &= np.abs(rows - middle) > _LINE_ROWS
    return Gaps(x, is_used)


def measure_gaps(
    pix: NDArray[np.float32], mask: NDArray[np.uint16], amps: Sequence[Amp], gaps: Gaps, rules: GapRules
) -> list[GapLight]:
    """Light in the gaps, amplifier by amplifier, since each has a level of its own (spec preproc §6b ii).

    The mean of the good pixels of a row, and the median of these over `window` rows at each fourth of a window,
    interpolated between. Gaps beside very bright fibers are left out; if all are, none is.

    Parameters
    ----------
    pix, mask : (ny, nx) [electron], CCDMask bits; any bit excludes a pixel

    Returns
    -------
    one for each amplifier that has a gap
    """
    wings = wing_light(pix, mask, gaps.x)
    clean = wings - np.median(wings) <= rules.contamination
    if not clean.any():
        clean[:] = True
    found = []
    for amp in amps:
        sec = amp.ccdsec
        x = gaps.x[:, sec.y0 : sec.y1]
        means = _means(pix, mask, sec.x0, sec.x1, sec.y0, x, rules.half_width)
        means[~gaps.is_used[:, sec.y0 : sec.y1]] = np.nan
        there = clean & (np.isfinite(means).mean(axis=1) >= 0.5)
        if not there.any():
            continue
        nrow = x.shape[1]
        count = max(2, int(np.ceil(_NODES * nrow / rules.window)))
        nodes = (np.arange(count) + 0.5) * nrow / count
        medians = _medians(means[there], nodes, 0.5 * rules.window)
        rows = np.arange(nrow)
        level = np.stack([_interpolated(rows, nodes, values) for values in medians])
        found.append(GapLight(amp, x[there], level.astype(np.float32)))
    return found


def subtract_gap_light(pix: NDArray[np.float32], light: Sequence[GapLight]) -> None:
    """Subtract, in place, the light of the gaps, interpolated linearly from gap to gap and held beyond them."""
    for part in light:
        section = part.amp.ccdsec
        _subtract(pix[section.slices], section.x0, part.x, part.level)


def gap_means(pix: NDArray[np.float32], mask: NDArray[np.uint16], gaps: Gaps, half_width: int) -> NDArray[np.float32]:
    """(ngap, ny) mean of the good pixels of each row of each gap; NaN where fewer than half are."""
    means = np.asarray(_means(pix, mask, 0, pix.shape[1], 0, gaps.x, half_width))
    means[~gaps.is_used] = np.nan
    return means


def wing_light(pix: NDArray[np.float32], mask: NDArray[np.uint16], x: NDArray[np.float32]) -> NDArray[np.float32]:
    """(ngap,) light that Lorentzian wings of the fibers around bring into each gap, on average in the middle rows.

    Of the fibers: the light that the middle of the gap has too is no reason to mistrust it.
    """
    ny = len(pix)
    distance = np.arange(-_WING_REACH, _WING_REACH + 1, dtype=np.float32)
    wing = 1.0 / (1.0 + distance**2)
    wing *= _WING_SHARE / wing.sum()
    first = max((ny - _WING_ROWS) // 2, 0)
    return np.asarray(_wing_light(pix, mask, x, wing.astype(np.float32), first, min(first + _WING_ROWS, ny)))


def _interpolated(
    rows: NDArray[np.int64], nodes: NDArray[np.float64], values: NDArray[np.float32]
) -> NDArray[np.float64]:
    known = np.isfinite(values)
    return np.interp(rows, nodes[known], values[known]) if known.any() else np.zeros(len(rows))


@njit(nogil=True, cache=True)
def _means(pix, mask, x0, x1, y0, x, half_width):  # type: ignore[no-untyped-def]
    """Means of the pixels of columns x0 ... x1-1 and rows y0 ... within half_width of `x`, (ngap, nrow)."""
    ngap, nrow = x.shape
    means = np.full((ngap, nrow), np.nan, np.float32)
    for j in range(nrow):
        for k in range(ngap):
            middle = int(np.floor(x[k, j] + 0.5))
            total, n = np.float32(0.0), 0
            for i in range(max(middle - half_width, x0), min(middle + half_width + 1, x1)):
                if mask[y0 + j, i] == 0:
                    total += pix[y0 + j, i]
                    n += 1
            if n > half_width:
                means[k, j] = total / n
    return means


@njit(nogil=True, cache=True)
def _medians(means, nodes, reach):  # type: ignore[no-untyped-def]
    """Median of the finite values within `reach` of each node; NaN where a tenth of them or fewer are finite."""
    ngap, nrow = means.shape
    out = np.full((ngap, len(nodes)), np.nan, np.float32)
    sample = np.empty(nrow, np.float32)
    for k in range(ngap):
        for m in range(len(nodes)):
            first, last = max(int(nodes[m] - reach), 0), min(int(nodes[m] + reach) + 1, nrow)
            n = 0
            for j in range(first, last):
                if np.isfinite(means[k, j]):
                    sample[n] = means[k, j]
                    n += 1
            if 10 * n > last - first:
                out[k, m] = np.median(sample[:n])
    return out


@njit(nogil=True, cache=True)
def _wing_light(pix, mask, x, wing, first, last):  # type: ignore[no-untyped-def]
    ngap, nx, reach = len(x), pix.shape[1], len(wing) // 2
    out = np.empty(ngap, np.float32)
    for k in range(ngap):
        total, weight, own, n = 0.0, 0.0, 0.0, 0
        for j in range(first, last, _WING_STEP):
            middle = int(np.floor(x[k, j] + 0.5))
            for i in range(max(middle - reach, 0), min(middle + reach + 1, nx)):
                if mask[j, i] == 0:
                    total += wing[i - middle + reach] * pix[j, i]
                    weight += wing[i - middle + reach]
                    if abs(i - middle) <= 1:
                        own += pix[j, i]
                        n += 1
        out[k] = (total - weight * own / max(n, 1)) / ((last - first - 1) // _WING_STEP + 1)
    return out


@njit(nogil=True, cache=True, error_model="numpy")
def _subtract(pix, x0, x, level):  # type: ignore[no-untyped-def]
    ngap, nrow = x.shape
    nx = pix.shape[1]
    for j in range(nrow):
        row = pix[j]
        k = 0
        for i in range(nx):
            at = np.float32(x0 + i)
            while k < ngap and x[k, j] <= at:
                k += 1
            if k == 0:
                row[i] -= level[0, j]
            elif k == ngap:
                row[i] -= level[ngap - 1, j]
            else:
                share = (at - x[k - 1, j]) / (x[k, j] - x[k - 1, j])
                row[i] -= level[k - 1, j] + share * (level[k, j] - level[k - 1, j])
