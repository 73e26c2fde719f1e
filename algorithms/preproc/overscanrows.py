"""Overscan rows: what the columns of an amplifier hold without light, beyond the level of its overscan columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import savgol_coeffs, savgol_filter

from algorithms.preproc.overscan import CLIP, Overscan, clipped_means
from qlstream.datamodel.amplifier import Amp

WINDOW, ORDER = 15, 5  # columns and degree of the smoothing (Savitzky and Golay 1964, Anal. Chem. 36, 1627)


def measure_overscan_rows(
    raw: NDArray[Any], bias: NDArray[np.float32] | None, amp: Amp, overscan: Overscan, smooth: bool
) -> tuple[NDArray[np.float32], float]:
    """What is to be subtracted from each column of an amplifier, and the variance of that (spec preproc §1.3).

    Parameters
    ----------
    raw : (ny_raw, nx_raw) integers [ADU]
    bias : (ny_raw, nx_raw) float32 [ADU], or None
    overscan : what its overscan columns tell; where that goes row by row, the corner of both overscans does
    smooth : a level for each column, smoothed along the row; else one for all

    Returns
    -------
    columns : (ncolumn,) float32 [ADU]
    variance : of each of them [ADU^2]

    Raises
    ------
    ValueError : the amplifier has no overscan rows, or they have other columns than the data
    """
    sec, data, over = amp.orsec, amp.datasec, amp.biassec
    if sec is None:
        raise ValueError(f"amplifier {amp.name} has no overscan rows: the header has no ORSEC{amp.name}")
    if (sec.x0, sec.x1) != (data.x0, data.x1):
        raise ValueError(f"ORSEC{amp.name} {sec} must have the columns of DATASEC{amp.name} {data}")
    block = raw[sec.slices].astype(np.float32)
    corner = raw[sec.y0 : sec.y1, over.x0 : over.x1].astype(np.float32)
    if bias is not None:
        block -= bias[sec.slices]
        corner -= bias[sec.y0 : sec.y1, over.x0 : over.x1]
    if overscan.method == "PER_ROW":
        block -= np.nanmedian(corner, axis=1, keepdims=True)
    else:
        block -= overscan.subtract[0]
    reach = CLIP * max(overscan.noise, 0.3)
    levels = clipped_means(np.ascontiguousarray(block.T), reach)
    share = overscan.noise**2 / len(block)  # variance of a column's level
    if smooth and len(levels) > WINDOW:
        kept = float(np.sum(savgol_coeffs(WINDOW, ORDER) ** 2))
        return savgol_filter(levels, WINDOW, ORDER).astype(np.float32), share * kept
    return np.full(len(levels), np.median(levels), np.float32), share / len(levels)
