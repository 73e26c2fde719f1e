"""Coaddition of the exposures of each target on their common grid (spec offline-reduction §11)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, norm

from algorithms.coadd.tables import coadd_fibermap
from qlstream.datamodel.masks import SpecMask, fatal_fiber_bits
from qlstream.datamodel.spectra import Band, Spectra

Array = NDArray[np.float64]

_COSMIC = np.uint32(SpecMask.COSMIC)


def coadd(spectra: Spectra, cosmics_nsig: float = 4.0) -> Spectra:
    """One spectrum per target and band: the inverse-variance weighted mean of its good exposures.

    Exposures with a fatal FIBERSTATUS for a band take no part in it, unless the target has no other. Bins with a mask
    do not count; where all are masked, the mean of all is kept with the bits that all have, and ivar 0. The resolution
    is averaged with the same weights, so that R x still is the expectation of the coadd.

    Parameters
    ----------
    cosmics_nsig : steps between neighbouring bins of one exposure that deviate from those of three or more by this
        many sigma are masked first; 0 looks for none

    Returns
    -------
    Spectra with one row per target, in the order of their first appearance; `exp_fibermap` has the old rows
    """
    targets = spectra.target_ids()
    order = {t: n for n, t in enumerate(targets.tolist())}
    group = np.array([order[t] for t in spectra.fibermap["TARGETID"].tolist()])
    bands, used = {}, {}
    for name, band in spectra.bands.items():
        used[name] = _good_exposures(spectra.fibermap, group, len(targets), name)
        clean = band if cosmics_nsig <= 0 else mask_cosmics(band, group, used[name], cosmics_nsig)
        bands[name] = _coadd_band(clean, group, len(targets), used[name])
    fibermap, exposures = coadd_fibermap(spectra.fibermap, group, used)
    return replace(spectra, bands=bands, fibermap=fibermap, exp_fibermap=exposures, scores=None)


def mask_cosmics(band: Band, group: NDArray[np.int64], used: NDArray[np.bool_], nsig: float) -> Band:
    """`band` with COSMIC set where one of three or more exposures steps up alone.

    Where the chi2 of the exposures' differences between neighbouring bins about their weighted mean exceeds what `nsig`
    sigma of noise would reach, the exposure that deviates most is masked at the higher of the two bins.
    """
    mask = band.mask.copy()
    for target in np.flatnonzero(np.bincount(group[used], minlength=group.max() + 1) >= 3):
        rows = np.flatnonzero((group == target) & used)
        for _ in range(len(rows) - 2):  # a bin may be hit in more than one exposure
            good = (band.ivar[rows] > 0) & (mask[rows] == 0)
            ivar = np.where(good, band.ivar[rows], 0.0)
            both = good[:, 1:] & good[:, :-1]
            with np.errstate(divide="ignore"):
                weight = np.where(both, 1.0 / (1.0 / ivar[:, 1:] + 1.0 / ivar[:, :-1]), 0.0)
            step = np.diff(band.flux[rows], axis=1)
            total = weight.sum(axis=0)
            mean = (weight * step).sum(axis=0) / np.where(total > 0, total, 1.0)
            square = weight * (step - mean) ** 2
            freedom = np.maximum(both.sum(axis=0) - 1, 1)
            # the probability of nsig sigma on either side, whatever the number of exposures
            limit = chi2.isf(2 * norm.sf(nsig), freedom)
            hit = np.flatnonzero((square.sum(axis=0) > limit) & (both.sum(axis=0) >= 3))
            if not hit.size:
                break
            worst = square[:, hit].argmax(axis=0)
            up = (step - mean)[worst, hit] > 0
            mask[rows[worst], hit + up] |= _COSMIC
    return replace(band, mask=mask)


def _good_exposures(fibermap: NDArray[Any], group: NDArray[np.int64], ntarget: int, band: str) -> NDArray[np.bool_]:
    """(nspec,) rows that take part: the good ones, or all of a target that has none."""
    if "FIBERSTATUS" not in (fibermap.dtype.names or ()):
        return np.ones(len(fibermap), dtype=bool)
    status = fibermap["FIBERSTATUS"].astype(np.int64)
    good = (status & int(fatal_fiber_bits("all", band[0]))) == 0
    some = np.bincount(group[good], minlength=ntarget) > 0
    return np.asarray(good | ~some[group])


def _coadd_band(band: Band, group: NDArray[np.int64], ntarget: int, used: NDArray[np.bool_]) -> Band:
    shape = (ntarget, len(band.wave))
    good = used[:, None] & (band.mask == 0) & (band.ivar > 0)
    any_weight = np.where(used[:, None], band.ivar, 0.0)
    weight = np.where(good, any_weight, 0.0)
    ivar = _summed(weight, group, shape)
    spare = _summed(any_weight, group, shape)
    lost = ivar <= 0
    # bins without a good exposure keep a value to look at, with ivar 0
    both = np.where(lost[group], any_weight, weight)
    total = np.where(lost, spare, ivar)
    safe = np.where(total > 0, total, 1.0)
    flux = _summed(both * band.flux, group, shape) / safe
    mask = np.full(shape, np.iinfo(np.uint32).max, np.uint32)
    np.bitwise_and.at(mask, group[used], band.mask[used])
    mask[np.bincount(group[used], minlength=ntarget) == 0] = 0
    mask[~lost] = 0
    resolution = None
    if band.resolution is not None:
        resolution = np.zeros((ntarget, band.resolution.shape[1], shape[1]))
        _add_resolution(resolution, band.resolution, both / safe[group], group)
    return Band(band.wave, flux, ivar, mask, resolution)


def _summed(values: Array, group: NDArray[np.int64], shape: tuple[int, int]) -> Array:
    out = np.zeros(shape)
    np.add.at(out, group, values)
    return out


def _add_resolution(total: Array, resolution: Array, share: Array, group: NDArray[np.int64]) -> None:
    """Add share_i R_ij: the weight belongs to the row of the matrix, the storage is by columns."""
    ndiag, nwave = resolution.shape[1:]
    for k in range(ndiag):
        offset = ndiag // 2 - k  # R[j - offset, j]
        columns = np.arange(max(offset, 0), nwave + min(offset, 0))
        part = resolution[:, k, columns] * share[:, columns - offset]
        np.add.at(total[:, k, columns[0] : columns[-1] + 1], group, part)
