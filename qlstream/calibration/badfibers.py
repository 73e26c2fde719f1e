"""Fibers that the calibration tree declares bad, as FIBERSTATUS bits (spec raw-and-calib §7.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.lib.recfunctions import append_fields

from qlstream.datamodel.fibermap import Fibermap
from qlstream.datamodel.masks import FiberMask

_BITS = {
    "BROKENFIBERS": "BROKENFIBER",
    "LOWTRANSMISSIONFIBERS": "LOWTRANSMISSION",
    "BADCOLUMNFIBERS": "BADAMP{arm}",
    "BADAMPFIBERS": "BADAMP{arm}",
    "EXCLUDEFIBERS": "BADAMP{arm}",
    "NEARCHARGETRAPFIBERS": "NEARCHARGETRAP",
    "VARIABLETHRUFIBERS": "VARIABLETHRU",
}


def flag_bad_fibers(fibermap: Fibermap, cards: Mapping[str, Any], camera: str, nspec: int) -> Fibermap:
    """The fibermap of a camera with the bits of the tree's fiber lists added to FIBERSTATUS.

    Parameters
    ----------
    fibermap : rows of this camera's fibers
    cards : `Calibration.cards`, where lists are tuples of numbers
    camera : its arm tells which BADAMP bit is set
    nspec : fibers of a spectrograph; listed numbers are FIBER of any petal or count from 0, so they are taken modulo
    """
    index = fibermap.fiber % nspec
    status = fibermap.column("FIBERSTATUS", 0).astype(np.int32)
    for key, name in _BITS.items():
        bit = FiberMask.__members__.get(name.format(arm=camera[:1].upper()))
        listed = np.asarray(cards.get(key, ()), dtype=np.int64)
        if bit is not None and listed.size:  # arms beyond b, r and z have no BADAMP bit of their own
            status[np.isin(index, listed % nspec)] |= np.int32(bit)
    if "FIBERSTATUS" not in fibermap:
        return replace(fibermap, rows=append_fields(fibermap.rows, "FIBERSTATUS", status, usemask=False))
    rows = fibermap.rows.copy()
    rows["FIBERSTATUS"] = status
    return replace(fibermap, rows=rows)
