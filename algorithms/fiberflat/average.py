"""One fiber flat out of several of the same lamp (spec offline-reduction §6.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from qlstream.datamodel.fiberflat import FiberFlat

_MEDIAN = 2.0 / np.pi  # ivar of a median over that of a mean


def average_fiberflat(flats: Sequence[FiberFlat]) -> FiberFlat:
    """Median of three or more flats, weighted mean of two, over the bins that are good in each.

    A bin is masked if no flat is good there, with the bits of all; it keeps the value 1.

    Raises
    ------
    ValueError : none given, or of other fibers or wavelengths
    """
    if not flats:
        raise ValueError("average_fiberflat: no flats given")
    first = flats[0]
    for other in flats[1:]:
        if not np.array_equal(other.fibers, first.fibers):
            raise ValueError("average_fiberflat: the flats are of other fibers; average those of one camera")
        if other.wave.shape != first.wave.shape or not np.allclose(other.wave, first.wave, atol=1e-3):
            raise ValueError("average_fiberflat: the flats stand on different wavelengths; extract them on one grid")
    if len(flats) == 1:
        return first
    good = np.stack([(f.ivar > 0) & (f.mask == 0) for f in flats])
    ivar = np.where(good, np.stack([f.ivar for f in flats]), 0.0)
    total = ivar.sum(axis=0)
    any_good = good.any(axis=0)
    if len(flats) > 2:
        values = np.where(good, np.stack([f.fiberflat for f in flats]), np.nan)
        value = np.ones(first.fiberflat.shape)
        value[any_good] = np.nanmedian(values[:, any_good], axis=0)
        total = total * np.where(good.sum(axis=0) > 2, _MEDIAN, 1.0)  # a median of two is their mean
    else:
        weighted = (ivar * np.where(good, np.stack([f.fiberflat for f in flats]), 0.0)).sum(axis=0)
        value = np.where(any_good, weighted / np.where(total > 0, total, 1.0), 1.0)
    mask = np.where(any_good, 0, np.bitwise_or.reduce([f.mask for f in flats]) | (~any_good).astype(np.uint32))
    lamps = np.stack([f.meanspec for f in flats])
    chi2 = [f.chi2pdf for f in flats if f.chi2pdf is not None]
    return replace(
        first,
        fiberflat=value,
        ivar=np.where(any_good, total, 0.0),
        mask=mask.astype(np.uint32),
        meanspec=lamps.mean(axis=0),
        chi2pdf=float(np.mean(chi2)) if chi2 else None,
        meta={**first.meta, "NFLATS": len(flats)},
    )
