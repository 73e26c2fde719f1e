"""How much bright sky lines ring: errors that alternate from bin to bin, beside the lines, too.

The flux of the two-dimensional extraction stands on bins that are hardly narrower than half a line. What a line between
two bins has beyond the frequencies of the grid depends on where its light falls on the pixels of a fiber, so it is no
part of a common sky; the decorrelation spreads it over ten bins on either side. It grows with what the sky itself has
at the highest frequencies: the variance that it adds is taken to be c^2 sum_k rho^|k| g_(j+k)^2, g_j = s_j - (s_(j-1)
+ s_(j+1)) / 2. The sky fibers tell c by maximum likelihood, beyond all other errors; without ringing it is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

Array = NDArray[np.float64]

_REACH = 6.0  # bins in which the variance falls by e: as the rows of the resolution matrices do
_LOOSE, _NSIG = 0.01, 5.0  # no c is larger than that; what deviates by more sigma is no ringing
_ROUNDS = 40


def learn_ringing(residual: NDArray[np.floating[Any]], variance: Array, sky: NDArray[np.floating[Any]]) -> float:
    """The c of the sky fibers.

    Parameters
    ----------
    residual, variance : (nsky, n) data less sky, and the variance expected without ringing; not positive or inf leaves
        a sample out
    sky : (nsky, n) the model; nan where there is none
    """
    envelope = ringing_envelope(sky)
    loose = variance + _LOOSE**2 * envelope
    use = (variance > 0) & np.isfinite(variance) & (envelope > 0) & (residual**2 < _NSIG**2 * loose)
    if not use.any():
        return 0.0
    r2, v, part = residual[use].astype(float) ** 2, variance[use], envelope[use]
    square = 0.0
    for _ in range(_ROUNDS):  # Fisher scoring
        weighted = part / (v + square * part)
        step = float(weighted @ (r2 / (v + square * part) - 1.0) / (weighted @ weighted))
        before, square = square, max(square + step, 0.0)
        if abs(square - before) <= 1e-6 * square:
            break
    return float(np.sqrt(square))


def ringing_envelope(sky: NDArray[np.floating[Any]]) -> Array:
    """(nspec, n) variance that the lines of `sky` add if c is 1; nothing from beside bins without model (nan)."""
    second = np.zeros(sky.shape)
    second[:, 1:-1] = sky[:, 1:-1] - 0.5 * (sky[:, :-2].astype(float) + sky[:, 2:])
    square = np.where(np.isfinite(second), second, 0.0) ** 2
    forward = lfilter([1.0], [1.0, -np.exp(-1.0 / _REACH)], square, axis=1)
    backward = lfilter([1.0], [1.0, -np.exp(-1.0 / _REACH)], square[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(forward + backward - square)
