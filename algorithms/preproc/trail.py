"""Dark trails: what bright pixels take from those that an amplifier reads after them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from qlstream.datamodel.amplifier import Amp

_ROUNDS = 5  # of the level of a row and what its data take; each makes the error 10 times smaller or more


@dataclass(frozen=True)
class Trail:
    """A pixel lacks sum over d > 0 of amplitude (d / width) exp(-d / width) x the true charge d pixels before it.

    Spec preproc §4.4; DARKTRAILAMPx and DARKTRAILWIDTHx of the calibration tree.

    Attributes
    ----------
    amplitude : fraction of the charge
    width : [pixel]
    """

    amplitude: float
    width: float

    @property
    def recursion(self) -> tuple[float, float]:
        """(amplitude / width, exp(-1 / width))."""
        return self.amplitude / self.width, float(np.exp(-1.0 / self.width))


@njit(nogil=True, cache=True)
def untrail(row, rate, decay, forward, charged, trailed):  # type: ignore[no-untyped-def]
    """Add to each pixel of a row, in place, what the true charge before it took: exact, since that is known by then.

    The two sums over all pixels before follow from those of the pixel before, in double precision: decay^d x(n - d),
    and d decay^d x(n - d).

    Parameters
    ----------
    row : (n,) float32, in the order of the image
    rate, decay : `Trail.recursion`
    forward : read from the first to the last pixel
    charged, trailed : the two sums before the row; 0 at the start of a line

    Returns
    -------
    the two sums after the row
    """
    n = len(row)
    for k in range(n):
        i = k if forward else n - 1 - k
        charge = row[i] + rate * trailed
        row[i] = charge
        trailed = decay * (charge + charged + trailed)
        charged = decay * (charge + charged)
    return charged, trailed


def trail_in_overscan(
    raw: NDArray[Any], bias: NDArray[np.float32] | None, amp: Amp, trail: Trail
) -> NDArray[np.float32]:
    """(nrow, ncolumn) float32 [ADU], what the data of each row took from its overscan columns.

    Parameters
    ----------
    raw : (ny_raw, nx_raw) integers [ADU]
    bias : (ny_raw, nx_raw) float32 [ADU], or None
    """
    data, over = amp.datasec, amp.biassec
    block = raw[data.slices].astype(np.float32)
    overscan = raw[data.y0 : data.y1, over.x0 : over.x1].astype(np.float32)
    if bias is not None:
        block -= bias[data.slices]
        overscan -= bias[data.y0 : data.y1, over.x0 : over.x1]
    gap = max(over.x0 - data.x1 if amp.reads_left else data.x0 - over.x1, 0)
    of_row = *trail.recursion, amp.reads_left, gap, over.x1 - over.x0
    taken, of_one = _beyond(np.nan_to_num(block), *of_row), _beyond(np.ones((1, block.shape[1]), np.float32), *of_row)
    level = np.zeros(
        (len(block), 1), np.float32
    )  # of the row, which is no charge; it shows only where nothing was taken
    for _ in range(_ROUNDS):
        level = np.median(overscan + taken - level * of_one, axis=1, keepdims=True)
    return np.asarray(taken - level * of_one)


@njit(nogil=True, cache=True)
def _beyond(block, rate, decay, forward, gap, ncolumn):  # type: ignore[no-untyped-def]
    nrow = len(block)
    taken = np.empty((nrow, ncolumn), np.float32)
    for j in range(nrow):
        charged, trailed = untrail(block[j], rate, decay, forward, 0.0, 0.0)
        for k in range(gap + ncolumn):
            if k >= gap:
                taken[j, k - gap if forward else ncolumn - 1 - (k - gap)] = rate * trailed
            trailed = decay * (charged + trailed)
            charged = decay * charged
    return taken
