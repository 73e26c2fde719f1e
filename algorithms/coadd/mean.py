"""The weighted mean of the exposures of each target, and of their resolutions."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from algorithms.coadd.rows import Rows
from qlstream.datamodel.spectra import Band


def mean_of_exposures(band: Band, rows: Rows, used: NDArray[np.bool_], scale: NDArray[np.float64]) -> Band:
    """One spectrum per target: iv = sum iv_e, F = sum iv_e F_e / iv, R = sum iv_e R_e / iv (spec §11).

    Bins with a mask do not count. Where all exposures are masked, their mean is kept to look at, with the bits that all
    have, and ivar 0; so is that of a target of which no exposure takes part.

    Parameters
    ----------
    used : (nrow,) rows that take part
    scale : (nrow,) factor on the flux of each row
    """
    ntarget, nwave = len(rows), len(band.wave)
    flux, ivar, mask = np.zeros((ntarget, nwave)), np.zeros((ntarget, nwave)), np.zeros((ntarget, nwave), np.uint32)
    has_resolution = band.resolution is not None
    given = band.resolution if band.resolution is not None else np.zeros((len(band.flux), 1, 1), np.float32)
    resolution = np.zeros((ntarget, given.shape[1], nwave if has_resolution else 1), np.float32)
    _mean(
        band.flux, band.ivar, band.mask, given, has_resolution, rows.order, rows.start, used, rows.or_all(used), scale,
        flux, ivar, mask, resolution,
    )  # fmt: skip
    return Band(band.wave, flux, ivar, mask, resolution if has_resolution else None)


@njit(nogil=True, cache=True)
def _mean(
    flux, ivar, mask, resolution, has_resolution, order, start, used, seen, scale,
    out, out_ivar, out_mask, out_resolution,
):  # type: ignore[no-untyped-def]  # fmt: skip
    nwave, ndiag = flux.shape[1], resolution.shape[1]
    total, share = np.empty(nwave), np.empty(nwave)
    lost = np.empty(nwave, np.bool_)
    everything = np.uint32(0xFFFFFFFF)
    for t in range(start.size - 1):
        out_mask[t] = everything
        total[:] = 0.0
        for e in order[start[t] : start[t + 1]]:
            if not seen[e]:
                continue
            for j in range(nwave):
                out_mask[t, j] &= mask[e, j]
                if used[e] and mask[e, j] == 0 and ivar[e, j] > 0:
                    out_ivar[t, j] += ivar[e, j] / scale[e] ** 2
        for j in range(nwave):
            lost[j] = out_ivar[t, j] <= 0
            total[j] = out_ivar[t, j]
            if not lost[j]:
                out_mask[t, j] = 0
        for e in order[start[t] : start[t + 1]]:
            if seen[e]:
                for j in range(nwave):
                    if lost[j] and ivar[e, j] > 0:
                        total[j] += ivar[e, j] / scale[e] ** 2
        for e in order[start[t] : start[t + 1]]:
            if not seen[e]:
                continue
            for j in range(nwave):
                counts = ivar[e, j] > 0 and (lost[j] or mask[e, j] == 0)
                share[j] = ivar[e, j] / scale[e] ** 2 / total[j] if counts else 0.0
                if counts:
                    out[t, j] += share[j] * scale[e] * flux[e, j]
            if not has_resolution:
                continue
            for k in range(ndiag):  # R[i, j] with i = j - offset: the share is of row i, the storage by columns j
                offset = ndiag // 2 - k
                for j in range(max(offset, 0), nwave + min(offset, 0)):
                    out_resolution[t, k, j] += resolution[e, k, j] * share[j - offset]
