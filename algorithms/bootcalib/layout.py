"""Which peak is which fiber: peaks matched to the bundles that the instrument has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from qlstream.instrument import Instrument

Array = NDArray[np.float64]

_TOLERANCE = 0.12  # scatter of distances between neighbours [distance]
_SKIP = 9.0  # price of a fiber without peak or a peak without fiber, as a chi2
_REACH = 8  # so many fibers or peaks in a row may be missing
_PLACE = 1e-3  # weight of the nominal columns: they decide only where the gaps leave it open


class FiberMismatch(ValueError):
    """The flat does not show the fibers that the instrument has."""


@dataclass(frozen=True)
class FiberPeaks:
    """Columns of all fibers in the middle row.

    Attributes
    ----------
    column : (nspec,) [pixel]; that of a dark fiber is interpolated from its neighbours
    lit : (nspec,) bool; False: no light arrives
    """

    column: Array
    lit: NDArray[np.bool_]


def match_fibers(peaks: Array, instrument: Instrument, max_dark: int) -> FiberPeaks:
    """Give every peak its fiber, by the pattern of neighbours and gaps.

    The path of least cost through (peak, fiber) pairs: the distance of two peaks in units of the spacing must be that
    of their fibers. So a dark fiber is found where it is, also at the edge of a bundle, where its gap alone looks like
    another.

    Parameters
    ----------
    peaks : (npeak,) increasing [pixel]
    max_dark : so many fibers of a bundle may be dark

    Raises
    ------
    FiberMismatch : bundles lack more fibers or have too many; the message says which has how many
    """
    expected = instrument.trace_columns()
    if len(peaks) < 3:
        raise FiberMismatch(
            f"the flat shows {len(peaks)} fibers, {instrument.name} has {len(expected)}; was the lamp on?"
        )
    gaps = np.diff(peaks)
    near = gaps[np.abs(gaps / np.median(gaps) - 1.0) < 0.25]
    scale = float(np.median(near)) / instrument.fiber_spacing
    unit = instrument.fiber_spacing * scale
    fiber = _assign(peaks / unit, expected * scale / unit)
    bundle_of = instrument.bundle_of(np.arange(len(expected)))
    seen = np.zeros(len(expected), dtype=np.bool_)
    seen[fiber[fiber >= 0]] = True
    found = np.bincount(bundle_of[seen], minlength=instrument.bundles)
    nearest = np.abs(peaks[fiber < 0, None] - _columns(peaks, fiber, expected * scale)).argmin(axis=1)
    surplus = np.bincount(bundle_of[nearest], minlength=instrument.bundles)
    wrong = np.flatnonzero((found < instrument.fibers_per_bundle - max_dark) | (surplus > 0))
    if wrong.size:
        counts = ", ".join(f"bundle {b} has {found[b] + surplus[b]}" for b in wrong[:8])
        more = f" and {len(wrong) - 8} more bundles differ" if len(wrong) > 8 else ""
        raise FiberMismatch(
            f"the flat shows {len(peaks)} fibers: {counts}{more}; {instrument.name} has {instrument.bundles} bundles "
            f"of {instrument.fibers_per_bundle}. If so many fibers are broken, allow more dark ones; else correct the "
            "instrument's file or look at the flat"
        )
    return FiberPeaks(_columns(peaks, fiber, expected * scale), seen)


def _columns(peaks: Array, fiber: NDArray[np.int64], expected: Array) -> Array:
    """(nspec,) measured columns, and between them those that the pattern implies."""
    known = fiber[fiber >= 0]
    if not known.size:
        return expected
    offset = peaks[fiber >= 0] - expected[known]
    return np.asarray(expected + np.interp(np.arange(len(expected)), known, offset))


def _assign(peaks: Array, expected: Array) -> NDArray[np.int64]:
    """(npeak,) fiber of each peak, -1 for none; both in units of the spacing."""
    cost, before_peak, before_fiber = _walk(peaks, expected)
    npeak, nfiber = cost.shape
    end = cost + _SKIP * (np.arange(npeak)[::-1, None] + np.arange(nfiber)[::-1])
    k, i = (int(n) for n in np.unravel_index(int(end.argmin()), end.shape))
    fiber = np.full(npeak, -1, np.int64)
    while k >= 0:
        fiber[k] = i
        k, i = int(before_peak[k, i]), int(before_fiber[k, i])
    return fiber


@njit(nogil=True, cache=True)
def _walk(peaks, expected):  # type: ignore[no-untyped-def]
    """Least cost of a path that ends with peak k on fiber i, and the pair before it (-1: it begins here)."""
    npeak, nfiber = peaks.size, expected.size
    cost = np.empty((npeak, nfiber))
    before_peak = np.full((npeak, nfiber), -1, np.int64)
    before_fiber = np.full((npeak, nfiber), -1, np.int64)
    for k in range(npeak):
        for i in range(nfiber):
            cost[k, i] = _SKIP * (k + i) + _PLACE * (peaks[k] - expected[i]) ** 2
            for dk in range(1, min(k, _REACH) + 1):
                gap = peaks[k] - peaks[k - dk]
                for di in range(1, min(i, _REACH) + 1):
                    off = (gap - expected[i] + expected[i - di]) / _TOLERANCE
                    total = cost[k - dk, i - di] + off * off + _SKIP * (dk + di - 2)
                    if total < cost[k, i]:
                        cost[k, i] = total
                        before_peak[k, i], before_fiber[k, i] = k - dk, i - di
    return cost, before_peak, before_fiber
