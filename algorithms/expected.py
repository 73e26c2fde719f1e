"""Signal of every row of a spectrum and noise of its background, without the noise of the row itself."""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, exp, pi, sqrt

import numpy as np
from numba import njit
from numpy.typing import NDArray

from qlstream.datamodel.qframe import QFrame
from qlstream.numeric.medians import medians_of

Array = NDArray[np.float64]
Pixels = NDArray[np.float32]

HALF_WINDOW = 20  # rows on either side that make the running means
_SAMPLE = 16  # every so-many-th row tells the typical readout variance of a fiber; so many fibers that of a camera
_LINE = 3.0  # rows where the sky exceeds so many times its median are in lines
_LOST = 3.0  # rows with so many times the variance that is expected lost pixels: they tell nothing of the others
_WIDER = 5  # times the window of the signal: what sky and target do not explain varies slowly
_LEAST = 0.25  # part of the typical readout variance and sky that every row has
_INF = np.float32(np.inf)
_ROWS = 400  # rows that a median of scaled spectra is taken over
_BRIGHT = 0.5  # a target with more light than this part of the background's variance is bright


@dataclass(frozen=True)
class ExpectedRows:
    """What each row of sky-subtracted spectra is expected to hold: light of the target, and noise of all else.

    The variance of the background is that of the sky model in the row, plus a running mean of what the given variance
    has beyond sky and target: readout, and the error of the sky model. So it does not follow the noise of
    the row, which a variance estimated from the counts does (spec preproc-and-extraction §5). Rows in bright sky lines
    and rows between them have running means of their own. Bright targets take what is beyond the sky from the faint
    ones and the sky fibers: a percent of flat-field error in their light is more than all of it.

    Attributes
    ----------
    flux : (nspec, ny) float32, the counts as they are [electron]
    signal : (nspec, ny) float32, mean of the target's counts over the rows about it [electron]
    background : (nspec, ny) float32, variance of a row by sky and readout alone [electron^2]; 0 without information
    per_count : (nspec,) float32, variance that a count of the target brings [electron]: 1, but for the fiber flat
    """

    flux: Pixels
    signal: Pixels
    background: Pixels
    per_count: Pixels

    @property
    def rows(self) -> NDArray[np.int64]:
        """(nspec,) number of rows with information."""
        return np.count_nonzero(self.background, axis=1)

    def median_snr(self) -> Array:
        """(nspec,) median S/N per row; NaN for a fiber without any information.

        What the median of flux sqrt(ivar) is if noise were Gaussian. The median itself is 0.01 to 0.02 too low, which
        is 5 % of a faint target's S/N, since few photons scatter skewly.
        """
        return self.scaled_snr(np.ones(len(self.flux)))

    def scaled_snr(self, scale: Array) -> Array:
        """(nspec,) the median S/N per row of targets `scale` times as bright, seen through the same noise.

        It is the median of signal / sigma plus unit Gaussian noise: where S/N differs from row to row, noise draws
        the median towards the mean. NaN where `scale` is not finite or the fiber has no information.
        """
        return _scaled_snr(self.signal, self.background, self.per_count, np.asarray(scale, dtype=float))


def expected_rows(qframe: QFrame) -> ExpectedRows:
    """The expected rows of sky-subtracted counts; they stay with the frame, since several metrics ask for them."""
    found = qframe.__dict__.get("expected_rows")  # as functools.cached_property keeps its values
    if found is None:
        sky = np.zeros((0, 0), np.float32) if qframe.sky is None else qframe.sky
        signal, background = np.empty_like(qframe.flux), np.empty_like(qframe.flux)
        _expected(qframe.flux, qframe.ivar, sky, min(HALF_WINDOW, qframe.flux.shape[1] // 20), signal, background)
        per_count = _take_from_faint(qframe.ivar, signal, background, sky)
        found = qframe.__dict__["expected_rows"] = ExpectedRows(qframe.flux, signal, background, per_count)
    return found


def _take_from_faint(ivar: Pixels, signal: Pixels, background: Pixels, sky: Pixels) -> Pixels:
    """Give bright targets the background that a faint one would have in their fiber, in place; returns `per_count`.

    Beyond the sky it is that of the median faint fiber in the same row, of those that have no line there. A fiber of
    throughput f against the others had its counts divided by f, so its variance is 1/f per count: that factor the
    bright target tells itself, between the sky lines.
    """
    every = slice(None, None, max(1, signal.shape[1] // _ROWS))
    some = background[:, every] > 0
    number = np.maximum(some.sum(axis=1), 1)
    light = np.where(some, signal[:, every], 0.0).sum(axis=1) / number
    noise = np.where(some, background[:, every], 0.0).sum(axis=1) / number
    bright = np.flatnonzero(light > _BRIGHT * noise)
    faint = np.flatnonzero(some.any(axis=1) & (light <= _BRIGHT * noise))
    per_count = np.ones(len(signal), np.float32)
    if not bright.size or not faint.size:
        return per_count
    sample = faint[:: max(1, faint.size // _SAMPLE)]
    of_sky = sky[sample] if sky.size else np.zeros((len(sample), 1), np.float32)
    level = float(_LINE * np.median(of_sky[:, :: every.step if sky.size else 1]))
    between = (background[sample] > 0) & (of_sky <= level)
    beyond = medians_of(_columns(background[sample] - of_sky, between))
    _give(bright, every.step, level, beyond, ivar, signal, background, sky, per_count)
    return per_count


@njit(nogil=True, cache=True)
def _give(bright, step, level, beyond, ivar, signal, background, sky, per_count):  # type: ignore[no-untyped-def]
    ny = signal.shape[1]
    for f in bright:
        given, counts = 0.0, 0.0
        for j in range(0, ny, step):
            light = sky[f, j] if sky.shape[0] > 0 else 0.0
            if background[f, j] > 0 and light <= level and beyond[j] == beyond[j]:
                variance, seen = 1.0 / ivar[f, j] - beyond[j], signal[f, j] + light
                if variance < _LOST * max(seen + beyond[j], 0.0):
                    given += variance
                    counts += seen
        if counts <= 0:
            continue
        factor = min(max(given / counts, 0.25), 4.0)
        per_count[f] = factor
        for j in range(ny):
            row = factor * factor * beyond[j] + (factor * sky[f, j] if sky.shape[0] > 0 else 0.0)
            if background[f, j] > 0 and row > 0:
                background[f, j] = row


@njit(nogil=True, cache=True)
def _expected(flux, ivar, sky, half_window, signal, background):  # type: ignore[no-untyped-def]
    nspec, ny = flux.shape
    variance, light, sample = np.empty(ny), np.zeros(ny), np.empty(ny)
    total, n = np.zeros(ny + 1), np.zeros(ny + 1)
    beyond, m = np.zeros((2, ny + 1)), np.zeros((2, ny + 1))  # rows between sky lines, rows in lines
    wide = _WIDER * half_window
    for f in range(nspec):
        k = 0
        for j in range(ny):
            variance[j] = 1.0 / ivar[f, j] if ivar[f, j] > 0 else -1.0
            if sky.shape[0] > 0:
                light[j] = sky[f, j]
        for step in (_SAMPLE, 1):
            if k == 0:
                for j in range(0, ny, step):
                    if variance[j] > 0:
                        sample[k] = variance[j] - flux[f, j] - light[j]
                        k += 1
        if k == 0:
            signal[f] = 0.0
            background[f] = 0.0
            continue
        typical = np.median(sample[:k])
        level = _LINE * np.median(light[::_SAMPLE])
        for j in range(ny):
            use = variance[j] > 0
            counts = flux[f, j] if use else 0.0
            total[j + 1] = total[j] + counts
            n[j + 1] = n[j] + (1.0 if use else 0.0)
            use = use and variance[j] < _LOST * max(typical + abs(counts) + light[j], 0.0)
            line = 1 if light[j] > level else 0
            for kind in range(2):
                mine = use and kind == line
                beyond[kind, j + 1] = beyond[kind, j] + (variance[j] - counts - light[j] if mine else 0.0)
                m[kind, j + 1] = m[kind, j] + (1.0 if mine else 0.0)
        for j in range(ny):
            signal[f, j] = 0.0
            background[f, j] = 0.0
            if variance[j] > 0:
                first, last = max(j - half_window, 0), min(j + half_window + 1, ny)
                signal[f, j] = (total[last] - total[first]) / (n[last] - n[first])
                first, last = max(j - wide, 0), min(j + wide + 1, ny)
                line = 1 if light[j] > level else 0
                have = m[line, last] - m[line, first]
                rest = (beyond[line, last] - beyond[line, first]) / have if have > 0 else typical
                floor = _LEAST * (max(typical, 0.0) + max(light[j], 0.0)) + 1e-6 * variance[j]
                background[f, j] = max(rest + light[j], floor)


@njit(nogil=True, cache=True)
def _columns(values: Pixels, counts: NDArray[np.bool_]) -> Pixels:
    """(ny, n) the columns of `values`, with -inf and +inf in turn where they do not count."""
    n, ny = values.shape
    out = np.empty((ny, n), np.float32)
    for j in range(ny):
        side = -_INF
        for f in range(n):
            if counts[f, j]:
                out[j, f] = values[f, j]
            else:
                out[j, f] = side
                side = -side
    return out


@njit(nogil=True, cache=True)
def _scaled_snr(signal: Pixels, background: Pixels, per_count: Pixels, scale: Array) -> Array:
    nspec, ny = signal.shape
    out = np.full(nspec, np.nan)
    x = np.empty(ny)
    step = max(1, ny // _ROWS)
    for f in range(nspec):
        if not np.isfinite(scale[f]):
            continue
        n, mean = 0, 0.0
        for j in range(step // 2, ny, step):
            if background[f, j] > 0:
                counts = scale[f] * signal[f, j]
                x[n] = counts / sqrt(background[f, j] + per_count[f] * max(counts, 0.0))
                mean += x[n]
                n += 1
        if n == 0:
            continue
        median = np.median(x[:n]) if abs(mean) > 3.0 * n else mean / n
        for _ in range(5):  # Newton: where half of the rows, smeared by unit noise, lie below
            below, density = 0.0, 0.0
            for k in range(n):
                d = median - x[k]
                below += erf(d / sqrt(2.0))
                density += exp(-0.5 * d * d)
            density *= sqrt(2.0 / pi)
            if density < 1e-3 * n:
                break
            change = below / density
            median -= change
            if abs(change) < 1e-4:
                break
        out[f] = median
    return out
