"""Cosmic rays of single exposures: what the others of the same target do not show (spec offline-reduction §11)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.stats import chi2, norm

from algorithms.coadd.rows import Rows
from qlstream.datamodel.masks import SpecMask
from qlstream.datamodel.spectra import Band

_COSMIC = np.uint32(SpecMask.COSMIC)
_LEAST = 3  # exposures that it takes to tell which one is hit
_VARIABLE = 2.0  # times the median chi2 that noise has: the object, or its calibration, changes between exposures


def mask_cosmics(band: Band, rows: Rows, used: NDArray[np.bool_], nsig: float) -> Band:
    """`band` with COSMIC set where one of three or more exposures steps up or down alone.

    Looked at is the step from each bin to the next, in which continua cancel. Where the chi2 of the steps of a
    target's exposures about their weighted mean has less than the probability of `nsig` sigma of noise for its degrees
    of freedom, both bins of the exposure that deviates most are masked, and the rest is looked at again. A target whose
    exposures differ everywhere by more than noise (median chi2 twice what noise has) is variable: its limit is the
    median of its own chi2 plus `nsig` times what its 84th percentile has beyond that.

    Parameters
    ----------
    used : (nrow,) rows that take part
    """
    mask = band.mask.copy()
    most = int(np.max(np.diff(rows.start), initial=0))
    if most < _LEAST:
        return band
    freedom = np.maximum(np.arange(most + 1) - 1.0, 1.0)  # by number of exposures
    limits = chi2.isf(2 * norm.sf(nsig), freedom)
    medians = chi2.median(freedom)
    _mark(band.flux, band.ivar, mask, rows.order, rows.start, used, nsig, limits, medians, _COSMIC)
    return replace(band, mask=mask)


@njit(nogil=True, cache=True)
def _mark(flux, ivar, mask, order, start, used, nsig, limits, medians, bit):  # type: ignore[no-untyped-def]
    nstep = flux.shape[1] - 1
    square, number, worst = np.empty(nstep), np.empty(nstep, np.int64), np.empty(nstep, np.int64)
    for t in range(start.size - 1):
        rows = order[start[t] : start[t + 1]]
        rows = rows[used[rows]]
        beyond = -1.0  # limit of a variable object; negative: not known yet
        for _ in range(rows.size - _LEAST + 1):  # a bin may be hit in more than one exposure
            for j in range(nstep):
                square[j], number[j], worst[j] = _deviation(flux, ivar, mask, rows, j)
            if beyond < 0:
                beyond = _variable_limit(square, number, nsig, medians)
            found = False
            for j in range(nstep):
                if number[j] >= _LEAST and square[j] > max(limits[number[j]], beyond):
                    found = True
                    mask[worst[j], j] |= bit
                    mask[worst[j], j + 1] |= bit
            if not found:
                break


@njit(nogil=True, cache=True)
def _deviation(flux, ivar, mask, rows, j):  # type: ignore[no-untyped-def]
    """Chi2 of the steps j to j + 1, how many exposures have one, and the row that deviates most."""
    total, mean, n = 0.0, 0.0, 0
    for e in rows:
        if mask[e, j] == 0 and mask[e, j + 1] == 0 and ivar[e, j] > 0 and ivar[e, j + 1] > 0:
            w = 1.0 / (1.0 / ivar[e, j] + 1.0 / ivar[e, j + 1])
            total += w
            mean += w * (flux[e, j + 1] - flux[e, j])
            n += 1
    if n < _LEAST:
        return 0.0, n, -1
    mean /= total
    square, most, worst = 0.0, -1.0, -1
    for e in rows:
        if mask[e, j] == 0 and mask[e, j + 1] == 0 and ivar[e, j] > 0 and ivar[e, j + 1] > 0:
            w = 1.0 / (1.0 / ivar[e, j] + 1.0 / ivar[e, j + 1])
            one = w * (flux[e, j + 1] - flux[e, j] - mean) ** 2
            square += one
            if one > most:
                most, worst = one, e
    return square, n, worst


@njit(nogil=True, cache=True)
def _variable_limit(square, number, nsig, medians):  # type: ignore[no-untyped-def]
    """The chi2 that a variable target's steps must exceed; 0 for one that does not vary."""
    known = square[number >= _LEAST]
    if known.size == 0:
        return 0.0
    middle = np.median(known)
    if middle <= _VARIABLE * medians[number.max()]:
        return 0.0
    return middle + nsig * (np.quantile(known, 0.84) - middle)
