"""How much more than noise the bright sky lines leave behind: a fraction of the line, and a fraction of its slope.

The residuals of the sky fibers in the lines are r = noise + a s xi + b (ds/dbin) eta with unit normals xi, eta; a and b
are found by maximum likelihood (Fisher scoring of the variance components, which are not negative). The reference
assumes 0.5 % of the flux everywhere, and scans each line for a wavelength error that makes its chi2 one (spec
offline-reduction §7.3): so it can only add, and where the model is better than that its errors are too large.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from algorithms.sky.bins import bin_width

Array = NDArray[np.float64]

_START = 0.01, 0.01  # fraction of the line; of its slope [bin]
_ROUNDS = 30
_LOOSE_FRACTION, _LOOSE_SHIFT = 0.2, 0.5  # no model is so wrong: larger residuals are cosmic rays [-], [bin]
_NSIG = 3.0


def learn_line_errors(
    residual: NDArray[np.floating[Any]],
    variance: NDArray[np.floating[Any]],
    sky: NDArray[np.floating[Any]],
    is_line: NDArray[np.bool_],
) -> tuple[float, float]:
    """Relative error of the lines, and error of their position [bin], that the residuals of sky fibers tell.

    Parameters
    ----------
    residual, variance : (nsky, n) data less sky, and the variance that noise alone would give it; not positive or inf
        leaves a sample out
    sky : (nsky, n) the model
    is_line : (nsky, n) bins of bright lines
    """
    slope = np.gradient(sky, axis=1)
    use = is_line & (variance > 0) & np.isfinite(variance)
    loose = variance + (_LOOSE_FRACTION * sky) ** 2 + (_LOOSE_SHIFT * slope) ** 2
    use &= residual**2 < _NSIG**2 * loose
    if not use.any():
        return 0.0, 0.0
    r2, v = residual[use].astype(float) ** 2, variance[use].astype(float)
    parts = np.stack([sky[use].astype(float) ** 2, slope[use].astype(float) ** 2])
    squares = np.square(_START)
    for _ in range(_ROUNDS):
        total = v + squares @ parts
        weighted = parts / total
        information, score = weighted @ weighted.T, weighted @ (r2 / total - 1.0)
        step = np.linalg.lstsq(information, score, rcond=None)[0]
        for i in (0, 1):  # one that would become negative is 0, and the other answers for all
            if squares[i] + step[i] < 0:
                step[i] = -squares[i]
                other = 1 - i
                step[other] = (score[other] - information[other, i] * step[i]) / max(information[other, other], 1e-300)
        before, squares = squares, np.maximum(squares + step, 0.0)
        if np.abs(squares - before).max() < 1e-10:
            break
    fraction, shift = np.sqrt(squares)
    return float(fraction), float(shift)


def add_line_variance(
    wave: NDArray[np.floating[Any]],
    sky: NDArray[np.floating[Any]],
    level: float,
    fraction: float,
    shift: float,
    variance: NDArray[np.floating[Any]],
) -> None:
    """Add to `variance` (nspec, n), in place, what errors of this size leave of bright lines.

    Parameters
    ----------
    wave : (nspec, n) [Angstrom]
    sky : (nspec, n) the model [counts per bin]
    level : a bin is in a bright line if the sky exceeds this [counts/Angstrom]
    fraction, shift : relative error of the lines, and error of their position [bin]
    """
    if fraction > 0 or shift > 0:
        _add(wave, sky, level, fraction**2, shift**2, variance)


@njit(nogil=True, cache=True)
def _add(wave, sky, level, fraction2, shift2, variance):  # type: ignore[no-untyped-def]
    for f in range(sky.shape[0]):
        x, s = wave[f], sky[f]
        for j in range(1, s.size - 1):
            if s[j] > level * bin_width(x, j):
                slope = 0.5 * (s[j + 1] - s[j - 1])
                more = fraction2 * s[j] * s[j] + shift2 * slope * slope
                if more > 0:  # not beside a bin without model
                    variance[f, j] += more
