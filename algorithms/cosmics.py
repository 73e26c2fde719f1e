"""Cosmic rays that the image hid: spikes of spectra that are narrower than the resolution allows (spec §5.1)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from qlstream.datamodel.frame import Frame
from qlstream.datamodel.masks import SpecMask

Array = NDArray[np.float64]

_WIDTH = 201  # of the running median that stands for the continuum [bin]
_REACH = 2  # bins on either side of a spike that are looked at


def mask_cosmics(frame: Frame, nsig: float = 3.0, psf_error: float = 0.05) -> Frame:
    """`frame` with COSMIC set where a spike falls off faster than its fiber's resolution does.

    A local maximum is compared with what the resolution leaves of it one bin further: a drop that is larger by `nsig`
    sigma on either side is no light that came through the spectrograph. Bins of the spike within 2 of its top are
    flagged where they stand out by `nsig`. Flux and ivar stay; known bad bins neither make nor hide a spike.

    Parameters
    ----------
    psf_error : what the resolution is off, as a fraction of the flux

    Raises
    ------
    ValueError : the frame has no resolution
    """
    mask = frame.mask.copy()
    for f in range(frame.nspec):
        bands = frame.resolution_of(f).data
        mask[f, _spikes(frame.flux[f], np.where(frame.mask[f] == 0, frame.ivar[f], 0.0), bands, nsig, psf_error)] |= (
            np.uint32(SpecMask.COSMIC)
        )
    return replace(frame, mask=mask)


def _spikes(flux: Array, ivar: Array, bands: Array, nsig: float, psf_error: float) -> NDArray[np.bool_]:
    good = ivar > 0
    if good.sum() < 5:
        return np.zeros(flux.size, dtype=bool)
    at = np.arange(flux.size)
    filled = np.interp(at, at[good], flux[good])
    top = filled - median_filter(filled, min(_WIDTH, flux.size | 1), mode="nearest")
    variance = np.where(good, 1.0 / np.where(good, ivar, 1.0), np.inf) + (psf_error * filled) ** 2
    middle = bands.shape[0] // 2
    out = np.zeros(flux.size, dtype=bool)
    peak = np.zeros(flux.size, dtype=bool)
    peak[1:-1] = good[1:-1] & (top[1:-1] > top[:-2]) & (top[1:-1] >= top[2:]) & (top[1:-1] > 0)
    for i in np.flatnonzero(peak):
        for side in (-1, 1):
            j = i + side
            if not good[j]:
                continue
            error = np.sqrt(variance[i] + variance[j])
            drop = top[i] - top[j]
            if drop < nsig * error or bands[middle, i] <= 0:
                continue
            expected = top[i] * (1.0 - bands[middle + side, i] / bands[middle, i])
            if drop - expected > nsig * error:
                window = slice(max(i - _REACH, 0), i + _REACH + 1)
                out[window] |= top[window] > nsig * np.sqrt(
                    np.where(np.isfinite(variance[window]), variance[window], 0)
                )
                break
    return out
