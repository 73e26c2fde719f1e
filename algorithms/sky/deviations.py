"""What a fiber's own sky lines say about its throughput, wavelength scale and line spread.

The line spread that the PSF gives is good to about a percent, the wavelengths to a thousandth of an Angstrom, the flat
to a thousandth: in lines of 10^4 electrons that is as much as the noise. So the residuals of each fiber, in its bright
lines alone and above what its target has beside them, are fitted with five small changes of the model: scale, shift,
width, and two of shape (first, second, fourth and sixth differences of the spline's coefficients). How large such
changes are, the sky fibers tell (expectation maximization, as for the fiber flat): what a fiber cannot measure, or what
does not occur, stays zero.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from algorithms.sky.model import SkySpectrum
from qlstream.numeric.bspline import cubic_basis, locate

Array = NDArray[np.float64]

_MODES = 5
_BACKGROUND, _NEAR = 6, 14  # rows on either side of a line that tell what lies below it, and how far they may be
_TOLERANCE = 0.05  # residuals within this fraction of a line may be the model's, larger ones are the target's
_LEARNING = 20  # rounds of expectation maximization


def correct_lines(
    wave: Array,
    flux: NDArray[np.float32],
    ivar: NDArray[np.float32],
    sky: NDArray[np.float32],
    variance: NDArray[np.float32],
    spectrum: SkySpectrum,
    teachers: NDArray[np.int64],
    line_level: float,
    nsig: float,
) -> NDArray[np.float64]:
    """Change `sky` and `variance` in place, in the bright lines of every fiber.

    Parameters
    ----------
    wave, flux, ivar : (nspec, ny), before sky subtraction
    sky : (nspec, ny) the common model [electron per row]; nan where there is none
    variance : (nspec, ny) what the model adds to the variance of what remains [electron^2]; it loses what the samples
        of a line determine of their own model
    teachers : indices of the fibers that see sky alone
    line_level : a row is in a bright line if the sky exceeds this many times its continuum
    nsig : larger residuals are no deviations of the model

    Returns
    -------
    (nspec, 5) the changes: relative scale, shift [knot step], and of width and shape [as coefficient filters]
    """
    level = line_level * float(np.median(spectrum.coef))  # [electron/Angstrom]
    modes = _modes(spectrum.coef)
    normal, rhs = np.zeros((len(wave), _MODES, _MODES)), np.zeros((len(wave), _MODES))
    _gather(wave, flux, ivar, sky, level, spectrum.knots, modes, nsig, normal, rhs)
    prior = np.full(_MODES, 0.1**2)
    for _ in range(_LEARNING):
        covariance = np.linalg.inv(normal[teachers] + np.diag(1.0 / prior))
        change = np.einsum("fpq,fq->fp", covariance, rhs[teachers])
        prior = np.mean(change**2 + np.diagonal(covariance, axis1=1, axis2=2), axis=0)
    covariance = np.linalg.inv(normal + np.diag(1.0 / prior))
    change = np.einsum("fpq,fq->fp", covariance, rhs)
    _apply(wave, level, spectrum.knots, modes, change, covariance, sky, variance)
    return change


def _modes(coef: Array) -> Array:
    """(n, 5) coefficients of the spline, its first difference over two steps, and its second, fourth and sixth."""
    padded = np.pad(coef, 3, mode="edge")
    n = coef.size

    def filtered(weights: tuple[float, ...]) -> Array:
        reach = len(weights) // 2
        return sum((w * padded[3 + m : 3 + m + n] for m, w in zip(range(-reach, reach + 1), weights, strict=True)),
                   np.zeros(n))  # fmt: skip

    filters = (1.0,), (-0.5, 0.0, 0.5), (1.0, -2.0, 1.0), (1, -4, 6, -4, 1), (1, -6, 15, -20, 15, -6, 1)
    return np.ascontiguousarray(np.stack([filtered(f) for f in filters], axis=1))


@njit(nogil=True, cache=True, inline="always")
def _width(x, j):  # type: ignore[no-untyped-def]
    first, last = max(j - 1, 0), min(j + 1, x.size - 1)
    return (x[last] - x[first]) / (last - first)


@njit(nogil=True, cache=True, inline="always")
def _templates(x, dwave, knots, modes, out):  # type: ignore[no-untyped-def]
    k, t = locate(x, knots)
    b0, b1, b2, b3 = cubic_basis(t)
    for p in range(_MODES):
        out[p] = dwave * (b0 * modes[k, p] + b1 * modes[k + 1, p] + b2 * modes[k + 2, p] + b3 * modes[k + 3, p])


@njit(nogil=True, cache=True)
def _beside(flux, ivar, sky, wave, level, j, step):  # type: ignore[no-untyped-def]
    """Mean position, residual and sky of the good rows beside a line, from row j on towards `step`; their number."""
    n = 0
    at = residual = background = 0.0
    for i in range(_NEAR):
        r = j + i * step
        if not 0 <= r < flux.size or n == _BACKGROUND:
            break
        if ivar[r] > 0 and sky[r] <= level * _width(wave, r):
            n += 1
            at += r
            residual += flux[r] - sky[r]
            background += sky[r]
    scale = 1.0 / max(n, 1)
    return at * scale, residual * scale, background * scale, n


@njit(nogil=True, cache=True)
def _gather(wave, flux, ivar, sky, level, knots, modes, nsig, normal, rhs):  # type: ignore[no-untyped-def]
    ny = wave.shape[1]
    t = np.empty(_MODES)
    for f in range(wave.shape[0]):
        x, q, w, s = wave[f], flux[f], ivar[f], sky[f]
        j = 0
        while j < ny:
            if not s[j] > level * _width(x, j):
                j += 1
                continue
            first = j
            while j < ny and s[j] > level * _width(x, j):
                j += 1
            at0, y0, s0, n0 = _beside(q, w, s, x, level, first - 1, -1)
            at1, y1, s1, n1 = _beside(q, w, s, x, level, j, 1)
            if n0 < 3 or n1 < 3:
                continue
            for r in range(first, j):
                if w[r] > 0:
                    part = (r - at0) / (at1 - at0)
                    y = q[r] - s[r] - (y0 + part * (y1 - y0))
                    line = s[r] - (s0 + part * (s1 - s0))
                    if y * y > nsig * nsig * (1.0 / w[r] + (_TOLERANCE * line) ** 2):
                        continue
                    _templates(x[r], _width(x, r), knots, modes, t)
                    t[0] = line
                    for a in range(_MODES):
                        rhs[f, a] += w[r] * t[a] * y
                        for b in range(_MODES):
                            normal[f, a, b] += w[r] * t[a] * t[b]


@njit(nogil=True, cache=True)
def _apply(wave, level, knots, modes, change, covariance, sky, variance):  # type: ignore[no-untyped-def]
    t = np.empty(_MODES)
    for f in range(wave.shape[0]):
        x, c = wave[f], covariance[f]
        for j in range(x.size):
            dwave = _width(x, j)
            if sky[f, j] > level * dwave:
                _templates(x[j], dwave, knots, modes, t)
                more = 0.0
                square = 0.0
                for a in range(_MODES):
                    more += change[f, a] * t[a]
                    for b in range(_MODES):
                        square += c[a, b] * t[a] * t[b]
                sky[f, j] += more
                variance[f, j] -= square
