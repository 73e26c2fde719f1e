"""How much more than noise the bright sky lines leave behind: a fraction of the line, and a fraction of its slope.

The residuals of the sky fibers in the lines are r = noise + a s xi + b (ds/dbin) eta with unit normals xi, eta; a and b
are found by maximum likelihood (expectation maximization for variance components). The reference assumes 0.5 % of the
flux everywhere, and scans each line for a wavelength error that makes its chi2 one (spec offline-reduction §7.3): so it
can only add, and where the model is better than that its errors are too large.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_START = 0.01, 0.01  # fraction of the line; of its slope [bin]
_ROUNDS = 200
_LOOSE_FRACTION, _LOOSE_SHIFT = 0.2, 0.5  # no model is so wrong: larger residuals are cosmic rays [-], [bin]
_NSIG = 3.0


def line_variance(sky: NDArray[np.floating[Any]], is_line: NDArray[np.bool_], fraction: float, shift: float) -> Array:
    """(nspec, n) extra variance of the sky model in the lines, 0 elsewhere.

    Parameters
    ----------
    sky : (nspec, n) [counts per bin]
    is_line : (nspec, n)
    fraction, shift : relative error of the lines, and error of their position [bin]
    """
    return np.where(is_line, (fraction * sky) ** 2 + (shift * np.gradient(sky, axis=1)) ** 2, 0.0)


def learn_line_errors(
    residual: NDArray[np.floating[Any]],
    variance: NDArray[np.floating[Any]],
    sky: NDArray[np.floating[Any]],
    is_line: NDArray[np.bool_],
) -> tuple[float, float]:
    """Fraction and shift [bin] that make the residuals of sky fibers as large as they are.

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
    per_part = np.stack([sky[use].astype(float) ** 2, slope[use].astype(float) ** 2])
    squares = np.square(_START)[:, None]
    for _ in range(_ROUNDS):
        parts = squares * per_part
        total = v + parts.sum(axis=0)
        # expectation of xi^2 and eta^2, given the residual
        squares = squares * (1.0 + parts / total * (r2 / total - 1.0)).mean(axis=1, keepdims=True)
    fraction, shift = np.sqrt(squares[:, 0])
    return float(fraction), float(shift)
