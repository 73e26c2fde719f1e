"""Fibers and amplifiers that are known to be bad, as FIBERSTATUS bits.

Spec raw-and-calib §7.2, masks-and-targets §4, paths-and-names §6.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.amplifier import Amp
from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.masks import FiberMask
from qlstream.datamodel.traces import XYTraceSet

_log = logging.getLogger(__name__)

_BITS = {
    "BROKENFIBERS": "BROKENFIBER",
    "LOWTRANSMISSIONFIBERS": "LOWTRANSMISSION",
    "BADCOLUMNFIBERS": "BADAMP{arm}",
    "BADAMPFIBERS": "BADAMP{arm}",
    "EXCLUDEFIBERS": "BADAMP{arm}",
    "NEARCHARGETRAPFIBERS": "NEARCHARGETRAP",
    "VARIABLETHRUFIBERS": "VARIABLETHRU",
}
_OF_THIS_SPECTROGRAPH = ("NEARCHARGETRAPFIBERS", "VARIABLETHRUFIBERS")  # a number of another one is a mistake
_SAMPLES, _SHARE = 50, 0.10  # a fiber is bad if more than this share of so many samples of its trace is on a bad amp


def flag_bad_fibers(fibermap: Fibermap, cards: Mapping[str, Any], camera: str, nspec: int) -> Fibermap:
    """The fibermap of a camera with the bits of the tree's fiber lists added to FIBERSTATUS.

    Parameters
    ----------
    fibermap : rows of this camera's fibers
    cards : `Calibration.cards`, where lists are tuples of numbers
    camera : its arm tells which BADAMP bit is set
    nspec : fibers of a spectrograph; listed numbers count from 0 or are FIBER of any petal, so they are taken modulo
        (NEARCHARGETRAPFIBERS and VARIABLETHRUFIBERS: of this petal; others are passed over with a warning)
    """
    index = fibermap.fiber % nspec
    status = np.zeros(len(fibermap), dtype=np.int32)
    for key, name in _BITS.items():
        bit = _arm_bit(camera) if "{arm}" in name else int(FiberMask[name])
        listed = np.asarray(cards.get(key, ()), dtype=np.int64)
        if key in _OF_THIS_SPECTROGRAPH and listed.size:
            listed = _inside(listed, fibermap.fiber, nspec, f"{key} of {camera}")
        if listed.size:
            status[np.isin(index, listed % nspec)] |= np.int32(bit)
    return fibermap.flagged(status)


def flag_listed(fibermap: Fibermap, bits: Mapping[int, int]) -> Fibermap:
    """The fibermap with these bits added: FIBER -> bits."""
    return fibermap.flagged(np.array([bits.get(int(fiber), 0) for fiber in fibermap.fiber], dtype=np.int32))


def flag_bad_amps(
    fibermap: Fibermap,
    letters: str,
    camera: str,
    nspec: int,
    amps: Sequence[Amp] = (),
    traces: XYTraceSet | None = None,
) -> Fibermap:
    """The fibermap of a camera with the BADAMP bit of its arm on every fiber that runs over a bad amplifier.

    With traces, a fiber is bad if more than 10 % of its rows fall into such an amplifier; without, amplifiers A and C
    have the lower half of the fibers and B and D the upper one.

    Parameters
    ----------
    fibermap : rows of this camera's fibers, in CCD order if there are traces
    letters : of the bad amplifiers, e.g. "AD"
    nspec : fibers of a spectrograph
    amps : of the readout, whose `ccdsec` tells where they are
    traces : of this camera's fibers
    """
    if traces is not None and amps and traces.nspec == len(fibermap):
        on_bad = _share_on(traces, [amp for amp in amps if amp.name in letters]) > _SHARE
    else:
        lower = (fibermap.fiber % nspec) < nspec // 2
        on_bad = (lower & (not set("AC").isdisjoint(letters))) | (~lower & (not set("BD").isdisjoint(letters)))
    return fibermap.flagged(np.where(on_bad, _arm_bit(camera), 0).astype(np.int32))


def _share_on(traces: XYTraceSet, amps: Sequence[Amp]) -> NDArray[np.float64]:
    """(nspec,) share of each trace that lies on these amplifiers."""
    y = np.linspace(0.0, traces.npix_y - 1.0, _SAMPLES)
    x = traces.x_vs_y(y)
    inside = np.zeros(x.shape, dtype=bool)
    for section in (amp.ccdsec for amp in amps):
        rows = (y >= section.y0 - 0.5) & (y < section.y1 - 0.5)
        inside |= rows & (x >= section.x0 - 0.5) & (x < section.x1 - 0.5)
    return np.asarray(inside.mean(axis=1))


def _arm_bit(camera: str) -> int:
    """The BADAMP bit of the camera's arm; arms beyond b, r and z have none."""
    return int(FiberMask.__members__.get(f"BADAMP{camera[:1].upper()}", 0))


def _inside(listed: NDArray[np.int64], fibers: NDArray[np.int32], nspec: int, what: str) -> NDArray[np.int64]:
    """The listed numbers that can mean a fiber of this spectrograph: 0 to nspec - 1, or FIBER of its petal."""
    own = (listed // nspec == fibers[0] // nspec) | (listed < nspec) if len(fibers) else np.zeros(listed.shape, bool)
    if not own.all():
        _log.warning("%s: FIBER %s belong to another spectrograph and are passed over", what, listed[~own].tolist())
    return listed[own]
