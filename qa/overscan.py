"""The overscan pixels themselves: how far they scatter, and whether as a Gaussian would."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.amplifier import Amp, Section

_FINE = 32  # bins per ADU
_REACH = 512  # pixels further from the level of their row count as if they were so far [ADU]
_ONE_SIGMA = 68.2689  # percent
_DIGITS = 1.0 / 12.0  # variance of digitisation [ADU^2]


@dataclass(frozen=True)
class OverscanPixels:
    """The overscan pixels of one amplifier about the levels of their rows.

    Attributes
    ----------
    count : pixels
    scatter : robust standard deviation, digitisation included [ADU]
    columns : scatter of the column means beyond what `scatter` implies [ADU]
    histogram : of the values less the level of their row, each spread over 1 ADU, in bins of 1/32 ADU
    scale : makes widths of the histogram those of the pixels
    """

    count: int
    scatter: float
    columns: float
    histogram: NDArray[np.float64]
    scale: float

    def width(self, percent: float) -> float:
        """Width of the range that holds the middle `percent` of the pixels [ADU]."""
        return self.scale * _width(self.histogram, percent)


def measure_pixels(raw: NDArray[Any], amp: Amp, section: Section | None = None) -> OverscanPixels:
    """Look at the raw overscan columns beside the rows of the data section; no bias image is subtracted.

    Percentiles of whole ADU would jump by 1 ADU, as much as half the noise. So each value is spread over the 1 ADU
    that it stands for, which adds the variance of digitisation a second time; this is taken off again. For noise above
    1.5 ADU widths are right within 2 %, whatever the fraction of an ADU of the level. A row's level takes one degree
    of freedom from its pixels.

    Parameters
    ----------
    raw : (ny_raw, nx_raw) integers [ADU]
    section : overscan to look at in place of the amplifier's own (GOODBIASSECx of the calibration tree)
    """
    section = section or replace(amp.biassec, y0=amp.datasec.y0, y1=amp.datasec.y1)
    block = raw[section.slices].astype(np.float32)
    nrow, ncolumn = block.shape
    levels = np.median(block, axis=1, keepdims=True)
    reach = 5.0 * 1.4826 * max(float(np.median(np.abs(block - levels))), 0.5)
    near = np.abs(block - levels) < reach
    residual = block - np.where(near, block, 0).sum(axis=1, keepdims=True) / np.maximum(
        near.sum(axis=1, keepdims=True), 1
    )
    histogram = _histogram(residual)
    spread = 0.5 * _width(histogram, _ONE_SIGMA)
    scatter = float(np.sqrt(max(spread**2 - _DIGITS, 0.0) * ncolumn / max(ncolumn - 1, 1)))
    means = np.where(near, residual, 0).sum(axis=0) / np.maximum(near.sum(axis=0), 1)
    columns = 1.4826 * float(np.median(np.abs(means - np.median(means))))
    columns = float(np.sqrt(max(columns**2 - scatter**2 / nrow, 0.0)))
    return OverscanPixels(block.size, scatter, columns, histogram, scatter / spread)


def _width(histogram: NDArray[np.float64], percent: float) -> float:
    below = np.concatenate([[0.0], np.cumsum(histogram)]) / histogram.sum()
    edges = np.arange(len(below)) / _FINE
    low, high = np.interp([0.5 - 0.005 * percent, 0.5 + 0.005 * percent], below, edges)
    return float(high - low)


def _histogram(residual: NDArray[np.float32]) -> NDArray[np.float64]:
    bins = 2 * _REACH * _FINE
    index = np.floor((np.clip(residual, -_REACH + 1, _REACH - 1) + _REACH) * _FINE).astype(np.int64)
    total = np.concatenate([[0], np.cumsum(np.bincount(index.ravel(), minlength=bins))])
    spread = np.zeros(bins)
    half = _FINE // 2
    spread[half : bins - half] = (total[2 * half : bins] - total[: bins - 2 * half]) / _FINE
    return spread
