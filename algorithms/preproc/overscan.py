"""Level and noise of an amplifier, from the columns that were read without light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from algorithms.preproc.trail import Trail, trail_in_overscan
from qlstream.datamodel.amplifier import Amp, Section

CLIP = 5.0  # sigma; this clip biases a Gaussian scatter by 7e-6 only, so it needs no correction (spec preproc §1.1)
_HALF_SMOOTH = 3  # rows on each side that help to measure the level of a row
_HALF_MEDIAN = 3  # the step score is taken on a running median of 7 rows (spec preproc §1.2)
_NOISE_SAMPLE = 1 << 15  # pixels that tell the noise of an image: to 0.5 %
_HALF_LEVEL, _HALF_BRIGHTEST = 10, 50  # rows on each side that tell what a level, a brightest pixel usually is
_BAND = 300  # columns beside the overscan whose charge may spoil it
_GROWN = 2  # rows on each side of a spoiled one
_EDGE_ROWS = 50  # rows at each end where the level still settles; not scored


@dataclass(frozen=True)
class Overscan:
    """What the overscan columns of one amplifier tell.

    Attributes
    ----------
    level : median of the raw overscan rows, bias image included [ADU]
    rows : (nrow,) float32, level of each row less the median one [ADU]
    subtract : (nrow,) float32, what is to be subtracted from the bias-subtracted data, row by row [ADU]
    method : "AVERAGE" or "PER_ROW"
    noise : scatter of a pixel in the data section, noise of the bias image and of `subtract` included [ADU]
    step : largest minus smallest difference of successive smoothed rows [ADU]
    row_pattern : scatter of the row levels beyond what the noise implies [ADU]
    low_outliers : pixels more than 5 sigma below their level, per million
    """

    level: float
    rows: NDArray[np.float32]
    subtract: NDArray[np.float32]
    method: str
    noise: float
    step: float
    row_pattern: float
    low_outliers: float


@dataclass(frozen=True)
class OverscanRules:
    """How the level of an amplifier is taken from its overscan columns.

    Attributes
    ----------
    row_step : step score from which on rows are treated one by one [ADU]
    per_row : always (True) or never (False), whatever the step score; None leaves it to the score
    deposit : excess of a row's brightest data pixel beside the overscan that may spoil the level of the row [ADU]
    spoiled : by how much the level has to be off to count as spoiled [ADU]
    """

    row_step: float = 2.0
    per_row: bool | None = None
    deposit: float = 25000.0
    spoiled: float = 2.0


def measure_overscan(
    raw: NDArray[Any],
    bias: NDArray[np.float32] | None,
    amp: Amp,
    rules: OverscanRules | None = None,
    section: Section | None = None,
    trail: Trail | None = None,
) -> Overscan:
    """Level and noise of one amplifier (spec preproc §1.1, §1.2).

    One level serves the whole amplifier unless it steps between rows. Then each row gets its own, averaged with
    those of the 3 rows on either side that agree with it (sigma filter, Lee 1983, CVGIP 24, 255): steps stay
    sharp, while the noise that a row of 64 pixels would stamp on its data falls from 1/8 to about 1/20 of a pixel's.

    The level of a row beside a very bright charge deposit, if it is off, and of a row without a finite pixel is
    interpolated from other rows; 2 rows more on each side of it too.

    Parameters
    ----------
    raw : (ny_raw, nx_raw) integers [ADU]
    bias : (ny_raw, nx_raw) float32 [ADU], or None
    amp : where its overscan and data are
    section : overscan to use in place of the amplifier's own, for one level only: its rows need not be those of the
        data (GOODBIASSECx)
    trail : dark trail of the amplifier; what the data trail into the overscan is added to it first

    Raises
    ------
    ValueError : the overscan has fewer rows than the data, or `section` leaves the image
    """
    rules = rules or OverscanRules()
    sec, data = section or amp.biassec, amp.datasec
    if section is not None and (sec.y1 > raw.shape[0] or sec.x1 > raw.shape[1]):
        raise ValueError(
            f"GOODBIASSEC{amp.name} {sec} leaves the raw image {raw.shape} (rows, columns); "
            "correct the calibration tree"
        )
    if section is None and not (sec.y0 <= data.y0 and data.y1 <= sec.y1):
        raise ValueError(
            f"amplifier {amp.name}: BIASSEC {sec} must cover all rows of DATASEC {data}; the level is taken row by row"
        )
    rows = slice(data.y0, data.y1) if section is None else slice(sec.y0, sec.y1)
    block = raw[rows, sec.x0 : sec.x1].astype(np.float32)
    offset = 0.0
    if bias is not None:
        bias_block = bias[rows, sec.x0 : sec.x1]
        offset = float(np.nanmedian(bias_block[::4])) if np.isfinite(bias_block[::4]).any() else 0.0
        block -= bias_block
    if trail is not None and section is None:
        block += trail_in_overscan(raw, bias, amp, trail)
    medians, widths = _row_quartiles(block)
    width = float(np.nanmedian(widths)) if np.isfinite(widths).any() else np.nan
    if not np.isfinite(width):
        nothing = np.full(data.shape[0], np.nan, np.float32)
        return Overscan(np.nan, nothing, nothing, "AVERAGE", np.nan, np.nan, np.nan, np.nan)
    reach = CLIP * max(width, 0.3)  # digitisation alone scatters by 0.29 ADU
    levels = _clipped_row_means(block, medians, np.float32(reach))
    spoiled = _spoiled_rows(raw, amp, levels, medians, rules) if section is None else ~np.isfinite(medians)
    if spoiled.any() and not spoiled.all():
        at = np.arange(len(levels))
        levels = np.interp(at, at[~spoiled], levels[~spoiled]).astype(np.float32)
    else:
        spoiled[:] = False
    noise, _ = _scatter_about(block[~spoiled], levels[~spoiled], max(width, 0.3))
    level = float(np.median(levels))
    step = _step_score(levels)
    level_noise = noise / np.sqrt(block.shape[1])
    scatter = 1.4826 * float(np.median(np.abs(levels - level)))
    row_pattern = float(np.sqrt(max(scatter**2 - level_noise**2, 0.0)))
    per_row = section is None and (step >= rules.row_step if rules.per_row is None else rules.per_row)
    if not per_row:
        one = _clipped_mean(levels, level, CLIP * max(scatter, 1e-3))
        same = np.full(len(levels), one, np.float32)
        noise, low = _scatter_about(block[~spoiled], same[~spoiled], np.hypot(noise, row_pattern))
        subtract = np.full(data.shape[0], one, np.float32)
    else:
        subtract, rows_used = _smooth_within(levels, np.float32(3.0 * np.sqrt(2.0) * level_noise))
        noise, low = _scatter_about(block[~spoiled], subtract[~spoiled], noise)
        share = 1.0 / (block.shape[1] * rows_used)  # variance of the level: absent from its own scatter, twice so
        noise *= float(np.sqrt((1.0 + share) / (1.0 - share)))
    if bias is not None:
        # the difference has the noise of the bias image's overscan; the data have that of its data section
        both = noise**2 + pixel_noise(bias, data) ** 2 - pixel_noise(bias, sec) ** 2
        noise = float(np.sqrt(both)) if both > 0 else noise  # a bias whose overscan is noisier than all this is wrong
    return Overscan(
        level=level + offset,
        rows=levels - np.float32(level),
        subtract=subtract,
        method="PER_ROW" if per_row else "AVERAGE",
        noise=noise,
        step=step,
        row_pattern=row_pattern,
        low_outliers=1e6 * low / block.size,
    )


def _spoiled_rows(
    raw: NDArray[Any], amp: Amp, levels: NDArray[np.float32], medians: NDArray[np.float32], rules: OverscanRules
) -> NDArray[np.bool_]:
    """(nrow,) rows whose level tells of a charge deposit beside the overscan, or of nothing (spec preproc §1)."""
    spoiled = ~np.isfinite(medians)
    off = np.abs(levels - np.median(levels)) > rules.spoiled
    if off.any():  # of an amplifier that drifts or steps many rows are, of the usual one none
        off = np.abs(levels - running_median(levels, _HALF_LEVEL)) > rules.spoiled
    if off.any():
        data = amp.datasec
        band = slice(max(data.x1 - _BAND, data.x0), data.x1) if amp.reads_left else slice(data.x0, data.x0 + _BAND)
        brightest = raw[data.y0 : data.y1, band].max(axis=1).astype(np.float32)
        spoiled |= off & (brightest - running_median(brightest, _HALF_BRIGHTEST) > rules.deposit)
    return np.asarray(binary_dilation(spoiled, iterations=_GROWN)) if spoiled.any() else spoiled


def pixel_noise(image: NDArray[np.float32], section: Section) -> float:
    """Noise of a calibration image from mixed differences of 2 x 2 pixels: structure along rows or columns cancels."""
    rows = max(16, _NOISE_SAMPLE // (section.x1 - section.x0))
    step = max(2, (section.y1 - section.y0) // rows)
    columns = slice(section.x0, section.x1)
    lower, upper = (
        image[section.y0 : section.y1 - 1 : step, columns],
        image[section.y0 + 1 : section.y1 : step, columns],
    )
    mixed = np.diff(upper - lower, axis=1).ravel()
    mixed = np.abs(mixed[np.isfinite(mixed)])
    return 1.4826 * float(np.median(mixed)) / 2.0 if mixed.size else 0.0


def clipped_means(block: NDArray[np.float32], reach: float) -> NDArray[np.float32]:
    """(nrow,) float32, mean of each row within `reach` of its median."""
    medians, _ = _row_quartiles(block)
    return np.asarray(_clipped_row_means(block, medians, np.float32(reach)))


def _step_score(levels: NDArray[np.float32]) -> float:
    edge = min(_EDGE_ROWS, len(levels) // 5)
    inside = running_median(levels, _HALF_MEDIAN)[edge : len(levels) - edge]
    step = np.diff(inside)
    return float(step.max() - step.min()) if step.size else 0.0


def _clipped_mean(values: NDArray[np.float32], center: float, reach: float) -> float:
    kept = values[np.abs(values - center) <= reach]
    return float(kept.mean(dtype=np.float64)) if kept.size else center


@njit(nogil=True, cache=True)
def _sort(values, n):  # type: ignore[no-untyped-def]
    """Insertion sort: the fastest for a few dozen values."""
    for i in range(1, n):
        v = values[i]
        j = i - 1
        while j >= 0 and values[j] > v:
            values[j + 1] = values[j]
            j -= 1
        values[j + 1] = v


@njit(nogil=True, cache=True)
def _row_quartiles(block):  # type: ignore[no-untyped-def]
    """Median and Gaussian width from the quartiles, of the finite pixels of each row; NaN for rows with none."""
    nrow, ncol = block.shape
    medians, widths = np.empty(nrow, np.float32), np.empty(nrow, np.float32)
    sample = np.empty(ncol, np.float32)
    for j in range(nrow):
        n = 0
        for i in range(ncol):
            if np.isfinite(block[j, i]):
                sample[n] = block[j, i]
                n += 1
        if n == 0:
            medians[j] = widths[j] = np.nan
            continue
        _sort(sample, n)
        medians[j] = 0.5 * (sample[(n - 1) // 2] + sample[n // 2])
        widths[j] = (sample[(3 * (n - 1) + 2) // 4] - sample[(n - 1 + 1) // 4]) / 1.349
    return medians, widths


@njit(nogil=True, cache=True)
def _clipped_row_means(block, medians, reach):  # type: ignore[no-untyped-def]
    """Mean of each row within `reach` of its median; a row without finite pixels gets the median of the rows."""
    nrow, ncol = block.shape
    levels = np.empty(nrow, np.float32)
    typical = np.float32(np.nanmedian(medians))
    for j in range(nrow):
        total, n = 0.0, 0
        for i in range(ncol):
            if abs(block[j, i] - medians[j]) <= reach:
                total += block[j, i]
                n += 1
        levels[j] = total / n if n > 0 else (medians[j] if np.isfinite(medians[j]) else typical)
    return levels


@njit(nogil=True, cache=True)
def _scatter_about(block, levels, start):  # type: ignore[no-untyped-def]
    """Scatter about the row levels, clipped three times at 5 sigma from `start`, and the count below -5 sigma."""
    nrow, ncol = block.shape
    noise = 1.0 * start
    for _ in range(3):
        total, n = 0.0, 0
        reach = np.float32(CLIP * noise)
        for j in range(nrow):
            row = np.float32(0.0)
            for i in range(ncol):
                d = block[j, i] - levels[j]
                if abs(d) <= reach:
                    row += d * d
                    n += 1
            total += float(row)
        if n < 5:
            return 1.0 * start, 0
        noise = (total / n) ** 0.5
    low = 0
    for j in range(nrow):
        for i in range(ncol):
            if block[j, i] - levels[j] < -CLIP * noise:
                low += 1
    return noise, low


@njit(nogil=True, cache=True)
def running_median(levels, half):  # type: ignore[no-untyped-def]
    """Median of the values within `half` places on each side, (n,) float32; fewer at the ends."""
    n = len(levels)
    out = np.empty(n, np.float32)
    sample = np.empty(2 * half + 1, np.float32)
    for j in range(n):
        first, last = max(0, j - half), min(n, j + half + 1)
        k = last - first
        sample[:k] = levels[first:last]
        _sort(sample, k)
        out[j] = 0.5 * (sample[(k - 1) // 2] + sample[k // 2])
    return out


@njit(nogil=True, cache=True)
def _smooth_within(levels, reach):  # type: ignore[no-untyped-def]
    """Mean of the rows j-3..j+3 whose level is within `reach` of row j, and how many these are on average."""
    n = len(levels)
    out = np.empty(n, np.float32)
    used = 0
    for j in range(n):
        total, k = 0.0, 0
        for m in range(max(0, j - _HALF_SMOOTH), min(n, j + _HALF_SMOOTH + 1)):
            if abs(levels[m] - levels[j]) <= reach:
                total += levels[m]
                k += 1
        out[j] = total / k
        used += k
    return out, used / n
