"""How smooth the response of telescope and spectrograph is: a prior that takes the noise off a calibration vector.

A vector relative to its level is taken for a random walk of its slope, which makes the fit a smoothing spline (Wahba
1978, J. R. Stat. Soc. B 40, 364) with the errors that belong to it. Where the atmosphere absorbs in lines and bands,
nothing is supposed but that it does not swing by more than its level, and so nothing is smoothed that the resolution
leaves to see; nor where the stars show more than the prior lets through.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

# oxygen and water, where they take more than a percent in bins of an Angstrom
TELLURIC = (
    (5910.0, 6000.0), (6270.0, 6340.0), (6450.0, 6600.0), (6850.0, 7000.0), (7160.0, 7400.0), (7560.0, 7740.0),
    (8100.0, 8400.0), (8900.0, 9900.0),
)  # fmt: skip
_REACH = 50.0  # distance at which `bend` is told [Angstrom]
_ROUGH = 0.5  # second difference of neighbouring bins, of the level, where nothing is supposed
_TOGETHER = 5  # bins whose residuals are added up
_STANDS_OUT = 4.5  # [sigma] of such a sum: what the stars show is more than noise


def is_telluric(wave: Array) -> Flags:
    """(n,) whether the atmosphere has lines there."""
    return np.asarray(np.any([(wave > low) & (wave < high) for low, high in TELLURIC], axis=0))


def stiffness(wave: Array, level: Array, bend: float, free: Flags) -> Array:
    """(n,) weight of the squared second difference around each bin.

    Parameters
    ----------
    wave : (n,) evenly spaced [Angstrom]
    level : (n,) of the vector
    bend : how far a response leaves its tangent within 50 Angstrom, rms, as a fraction of the level
    free : (n,) where it may be rough
    """
    step = float(np.median(np.diff(wave)))
    walk = 3.0 * bend**2 / _REACH**3  # variance that the slope gains per Angstrom
    return np.asarray(1.0 / (np.where(free, _ROUGH**2, walk * step**3) * level**2))


def add_stiffness(normal: Array, weight: Array) -> None:
    """Add sum_j weight_j (c_{j-1} - 2 c_j + c_{j+1})^2 to normal equations (ndiag > 2, n), [d, j] of j and j + d."""
    inner = weight[1:-1]
    normal[0, :-2] += inner
    normal[0, 1:-1] += 4.0 * inner
    normal[0, 2:] += inner
    normal[1, :-2] -= 2.0 * inner
    normal[1, 1:-1] -= 2.0 * inner
    normal[2, :-2] += inner


def stands_out(residual: Array) -> Flags:
    """(n,) bins around which the prior took away more than noise.

    Parameters
    ----------
    residual : (n,) of all stars together, in sigma; 0 where there are no data
    """
    kernel = np.ones(_TOGETHER)
    sums = np.convolve(residual, kernel, mode="same")
    count = np.convolve((residual != 0).astype(float), kernel, mode="same")
    seen = np.abs(sums) > _STANDS_OUT * np.sqrt(np.maximum(count, 1.0))
    return np.asarray(np.convolve(seen.astype(float), np.ones(2 * _TOGETHER + 1), mode="same") > 0.5)
