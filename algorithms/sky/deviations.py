"""What a fiber's own sky lines say about its throughput, wavelength scale and line spread.

The line spread that the PSF gives is good to about a percent, the wavelengths to a thousandth of an Angstrom, the flat
to a thousandth: in lines of 10^4 electrons that is as much as the noise. So the residuals of each fiber, in its
bright lines alone and above what its target has beside them, are fitted with small changes of its model: scale, shift,
width, and two of shape (the model itself and its first, second, fourth and sixth differences along the bins). Shift and
width may vary along the spectrum, as errors of traces and of the PSF do. How large such changes are, the sky fibers
tell (expectation maximization, as for the fiber flat): what a fiber cannot measure, or what does not occur, stays zero.
The reference fits scale, shift and width line by line and interpolates (spec offline-reduction §7.2, §7.6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from algorithms.sky.bins import bin_width

Array = NDArray[np.float64]

SCALE = 0  # the first of the changes
THROUGHPUT, WAVELENGTH, LSF = (SCALE,), (1, 5, 6), (2, 3, 4, 7)  # which changes are of the same thing
_MODES = 8
_REACH = 3  # bins on either side that the differences take
_BACKGROUND, _NEAR = 6, 14  # bins on either side of a line that tell what lies below it, and how far they may be
_TOLERANCE = 0.05  # residuals within this fraction of a line may be the model's, larger ones are the target's
_NONE = 1e-20  # variance of a change that does not occur
_LEARNING = 20  # rounds of expectation maximization


@dataclass(frozen=True)
class LineChanges:
    """How the lines of each fiber differ from the common model's.

    Attributes
    ----------
    change : (nspec, 8) relative scale, shift [bin], of width and shape (3) [as differences], and what shift (linear,
        quadratic Legendre) and width (linear) change along the spectrum
    covariance : (nspec, 8, 8)
    level : lines are where the sky exceeds this [electron/Angstrom]
    """

    change: Array
    covariance: Array
    level: float

    def apply(
        self, wave: Array, sky: NDArray[np.float32], variance: NDArray[np.float32], with_scale: bool = True
    ) -> None:
        """Change `sky` and `variance` in place, in the bright lines of every fiber.

        Parameters
        ----------
        wave : (nspec, n) [Angstrom]
        sky : (nspec, n) the common model [electron per bin]; nan where there is none
        variance : (nspec, n) what the model adds to the variance of what remains [electron^2]; it loses what the
            samples of a line determine of their own model
        with_scale : False leaves the scale out of the sky, not out of the variance
        """
        change = self.change.copy()
        if not with_scale:
            change[:, SCALE] = 0.0
        _apply(wave, self.level, change, self.covariance, sky, variance)


def measure_changes(
    wave: Array,
    flux: NDArray[np.float32],
    ivar: NDArray[np.float32],
    sky: NDArray[np.float32],
    level: float,
    teachers: NDArray[np.int64],
    nsig: float,
    allowed: Sequence[int] = (*THROUGHPUT, *WAVELENGTH, *LSF),
) -> LineChanges:
    """Fit the changes to the bright lines of every fiber.

    Parameters
    ----------
    wave, flux, ivar : (nspec, n), counts per bin before sky subtraction
    sky : (nspec, n) the common model [electron per bin]; nan where there is none
    level : a bin is in a bright line if the sky exceeds this [electron/Angstrom]
    teachers : indices of the fibers that see sky alone
    nsig : larger residuals are no deviations of the model
    allowed : changes that may occur; the others stay zero
    """
    normal, rhs = np.zeros((len(flux), _MODES, _MODES)), np.zeros((len(flux), _MODES))
    _gather(wave, flux, ivar, sky, level, nsig, normal, rhs)
    prior = np.full(_MODES, _NONE)
    prior[list(allowed)] = 0.1**2
    for _ in range(_LEARNING):
        change, covariance = _estimate(normal[teachers], rhs[teachers], prior)
        prior = np.maximum(np.mean(change**2 + np.diagonal(covariance, axis1=1, axis2=2), axis=0), _NONE)
    return LineChanges(*_estimate(normal, rhs, prior), level)


def _estimate(normal: Array, rhs: Array, prior: Array) -> tuple[Array, Array]:
    """The most probable changes and their covariance, if changes have the variance `prior`."""
    covariance = np.asarray(np.linalg.inv(normal + np.diag(1.0 / prior)), dtype=np.float64)
    return np.einsum("fpq,fq->fp", covariance, rhs), covariance


@njit(nogil=True, cache=True, inline="always")
def _templates(s, j, out):  # type: ignore[no-untyped-def]
    """What the changes do to bin j of the model s; False if it does not reach far enough."""
    if j < _REACH or j >= s.size - _REACH:
        return False
    c = s[j]
    one, two, three = s[j - 1] + s[j + 1], s[j - 2] + s[j + 2], s[j - 3] + s[j + 3]
    if np.isnan(c + one + two + three):
        return False
    out[0] = c
    out[1] = (8.0 * (s[j + 1] - s[j - 1]) - (s[j + 2] - s[j - 2])) / 12.0
    out[2] = one - 2.0 * c
    out[3] = two - 4.0 * one + 6.0 * c
    out[4] = three - 6.0 * two + 15.0 * one - 20.0 * c
    u = 2.0 * j / (s.size - 1.0) - 1.0
    out[5] = u * out[1]
    out[6] = (1.5 * u * u - 0.5) * out[1]
    out[7] = u * out[2]
    return True


@njit(nogil=True, cache=True)
def _beside(flux, ivar, sky, wave, level, j, step):  # type: ignore[no-untyped-def]
    """Mean position, residual and sky of the good bins beside a line, from bin j on towards `step`; their number."""
    n = 0
    at = residual = background = 0.0
    for i in range(_NEAR):
        r = j + i * step
        if not 0 <= r < flux.size or n == _BACKGROUND:
            break
        if ivar[r] > 0 and sky[r] <= level * bin_width(wave, r):
            n += 1
            at += r
            residual += flux[r] - sky[r]
            background += sky[r]
    scale = 1.0 / max(n, 1)
    return at * scale, residual * scale, background * scale, n


@njit(nogil=True, cache=True)
def _gather(wave, flux, ivar, sky, level, nsig, normal, rhs):  # type: ignore[no-untyped-def]
    ny = flux.shape[1]
    t = np.empty(_MODES)
    for f in range(flux.shape[0]):
        x, q, w, s = wave[f], flux[f], ivar[f], sky[f]
        j = 0
        while j < ny:
            if not s[j] > level * bin_width(x, j):
                j += 1
                continue
            first = j
            while j < ny and s[j] > level * bin_width(x, j):
                j += 1
            at0, y0, s0, n0 = _beside(q, w, s, x, level, first - 1, -1)
            at1, y1, s1, n1 = _beside(q, w, s, x, level, j, 1)
            if n0 < 3 or n1 < 3:
                continue
            for r in range(first, j):
                if w[r] > 0 and _templates(s, r, t):
                    part = (r - at0) / (at1 - at0)
                    y = q[r] - s[r] - (y0 + part * (y1 - y0))
                    line = s[r] - (s0 + part * (s1 - s0))
                    if y * y > nsig * nsig * (1.0 / w[r] + (_TOLERANCE * line) ** 2):
                        continue
                    t[0] = line
                    for a in range(_MODES):
                        rhs[f, a] += w[r] * t[a] * y
                        for b in range(_MODES):
                            normal[f, a, b] += w[r] * t[a] * t[b]


@njit(nogil=True, cache=True)
def _apply(wave, level, change, covariance, sky, variance):  # type: ignore[no-untyped-def]
    t = np.empty(_MODES)
    for f in range(sky.shape[0]):
        x, c, s = wave[f], covariance[f], sky[f].copy()
        for j in range(s.size):
            if s[j] > level * bin_width(x, j) and _templates(s, j, t):
                more = 0.0
                square = 0.0
                for a in range(_MODES):
                    more += change[f, a] * t[a]
                    for b in range(_MODES):
                        square += c[a, b] * t[a] * t[b]
                sky[f, j] += more
                variance[f, j] -= square
