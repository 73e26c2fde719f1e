"""The resolution matrices of a frame's fibers, one after the other, at the price of a look into a table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.frame import Frame
from qlstream.datamodel.resolution import Resolution

Array = NDArray[np.float64]

_NODES = 512  # of the table over line widths: with widths within a factor of two, exact to 1e-6
_NEGLIGIBLE = 1e-8  # diagonals that hold no more than this are left out


def bands_of(frame: Frame) -> Callable[[int], Array]:
    """What gives the (ndiag, nwave) bands of a fiber's resolution matrix by the fiber's index.

    The bands of a frame that came with matrices are those; of one that came with line widths they are interpolated
    in a table over the widths, and diagonals that are nothing anywhere are left out.

    Raises
    ------
    ValueError : the frame has neither, or a width is not positive
    """
    if frame.resolution is not None:
        bands = frame.resolution
        return lambda index: np.asarray(bands[index], dtype=np.float64)
    if frame.ysigma is None:
        raise ValueError(f"Frame {frame.camera}: neither a RESOLUTION nor a YSIGMA came with it")
    widths = frame.ysigma
    low, high = float(widths.min()), float(widths.max())
    step = max((high - low) / (_NODES - 2), 1e-6)
    table = Resolution.from_widths(low + step * np.arange(_NODES), frame.ndiag).data
    half = frame.ndiag // 2
    told = np.flatnonzero(table.max(axis=1) > _NEGLIGIBLE)
    reach = int(np.abs(told - half).max())
    by_width = np.ascontiguousarray(table[half - reach : half + reach + 1].T)

    def interpolated(index: int) -> Array:
        place = (widths[index] - low) / step
        node = place.astype(np.int64)
        part = (place - node)[:, None]
        return np.ascontiguousarray(((1.0 - part) * by_width[node] + part * by_width[node + 1]).T)

    return interpolated
