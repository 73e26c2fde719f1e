"""How well the fibers stand on their targets, as FIBERSTATUS bits (spec masks-and-targets §4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.masks import FiberMask

POOR, BAD = 0.030, 0.100  # offsets above which a position is poor, and bad [mm]

Array = NDArray[np.float64]


def position_status(x: Array, y: Array, dx: Array, dy: Array) -> NDArray[np.int32]:
    """FIBERSTATUS bits of each fiber from its measured place and its distance from the wanted one.

    MISSINGPOSITION where nothing was measured: a place that is no number, or exactly (0, 0), which is how the
    platemaker says so. BADPOSITION beyond 100 micron or with an offset that is no number, POORPOSITION beyond
    30 micron, unless the place is (0, 0).

    Parameters
    ----------
    x, y : (nspec,) measured place on the focal plane [mm]
    dx, dy : (nspec,) wanted less measured place [mm]
    """
    status = np.zeros(len(x), dtype=np.int32)
    offset = np.hypot(dx, dy)
    nowhere = (x == 0) & (y == 0)
    bad = ~nowhere & ~(offset <= BAD)  # so written, NaN is bad
    status[nowhere | ~(np.isfinite(x) & np.isfinite(y))] |= int(FiberMask.MISSINGPOSITION)
    status[bad] |= int(FiberMask.BADPOSITION)
    status[~nowhere & ~bad & (offset > POOR)] |= int(FiberMask.POORPOSITION)
    return status
