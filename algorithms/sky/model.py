"""One sky spectrum seen by all fibers, each through its own line spread.

The sky in fiber f is the common density S(lambda) convolved with what the fiber's line spread has beyond the narrowest
one, times the width of the row's bin. S is a cubic B-spline with knots closer than the rows; the fibers' different
sub-pixel phases resolve it. So nothing is resampled, lines keep their shape in every fiber, and the fit's covariance is
the model's error (a forward model as in Bolton & Schlegel 2010, with the line spread in place of the full 2-D PSF).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from algorithms.sky.bins import bin_width
from algorithms.sky.linespread import REACH, U_MAX, U_MIN, broadening_table, shifted_sums, weights_at
from qlstream.numeric.banded import factorize, inverse_band, solve
from qlstream.numeric.bspline import Knots, bridge_gaps, cubic_basis, locate

Array = NDArray[np.float64]

MARGIN = REACH + 1  # knots beyond the samples on either side: one more than the filter reaches
_WIDTH = 4 + 2 * REACH  # coefficients that one sample sees
_PIXEL = 1.0 / 12.0  # variance of a row's box [pixel^2]
_PHASES, _BROADENINGS = 2, 13  # nodes of the variance table: per knot step, and over the range of broadenings


@dataclass(frozen=True)
class SkySpectrum:
    """The common sky spectrum at the reference line spread, with its error.

    Attributes
    ----------
    knots : of the spline [Angstrom]
    coef : (n,) [electron/Angstrom]
    covariance : (n, 10) lower band
    variance_reference : of the reference line spread [Angstrom^2]
    """

    knots: Knots
    coef: Array
    covariance: Array
    variance_reference: float

    @property
    def table(self) -> Array:
        return broadening_table(np.sqrt(self.variance_reference) / self.knots.step)

    @property
    def range(self) -> tuple[float, float]:
        """First and last wavelength that the fit had samples for [Angstrom]."""
        inside = 1 + MARGIN
        return self.knots.start + inside * self.knots.step, self.knots.positions[-1] - inside * self.knots.step

    def counts(self, wave: Array, ysigma: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sky counts per row of fibers with other wavelengths and line spreads.

        Parameters
        ----------
        wave : (nspec, ny) [Angstrom]
        ysigma : (nspec, ny) line spread [pixel]; where it is not positive, the reference line spread holds

        Returns
        -------
        (nspec, ny) float32 [electron]; nan where the sky fibers had no samples
        """
        out = np.empty(wave.shape, np.float32)
        sums = shifted_sums(self.coef)
        _predict_counts(wave, ysigma, self.knots, sums, self.table, self.variance_reference, *self.range, out)
        return out

    def variance(self, wave: Array, ysigma: NDArray[np.float32]) -> NDArray[np.float32]:
        """Variance of `counts` [electron^2], to 2 %: interpolated between places and line spreads."""
        out = np.empty(wave.shape, np.float32)
        nodes = _variance_nodes(self.covariance, self.table)
        _predict_variance(wave, ysigma, self.knots, nodes, self.variance_reference, *self.range, out)
        return out

    def leverage(self, wave: Array, ysigma: NDArray[np.float32], weight: Array) -> Array:
        """(nsky, ny) variance of the model at the samples of its own fit, times their weights: 0 to 1, exact."""
        out = np.zeros(wave.shape)
        _leverage(wave, ysigma, weight, self.knots, self.table, self.variance_reference, self.covariance, out)
        return out


def fit_sky(
    wave: Array, ysigma: NDArray[np.float32], counts: Array, weight: Array, knots: Knots, variance_reference: float
) -> SkySpectrum:
    """Weighted least squares of the common spectrum.

    Parameters
    ----------
    wave : (nsky, ny) [Angstrom]
    ysigma : (nsky, ny) line spread [pixel]
    counts : (nsky, ny) [electron per row]
    weight : (nsky, ny) inverse variance, 0 leaves a sample out
    knots : with MARGIN more coefficients on both sides than the samples need
    variance_reference : line spread of the common spectrum [Angstrom^2], the narrowest of the fibers'
    """
    table = broadening_table(np.sqrt(variance_reference) / knots.step)
    normal, rhs = np.zeros((knots.n, _WIDTH)), np.zeros(knots.n)
    _gather(wave, ysigma, counts, weight, knots, table, variance_reference, normal, rhs)
    bridge_gaps(normal)
    factorize(normal)
    solve(normal, rhs)
    return SkySpectrum(knots, rhs, inverse_band(normal), variance_reference)


@njit(nogil=True, cache=True, inline="always")
def _broadening(ysigma, dwave, reference, per_step2):  # type: ignore[no-untyped-def]
    """Variance of the line spread, pixel included, beyond the reference, in squared knot steps."""
    if not ysigma > 0:
        return 0.0
    return ((ysigma * ysigma + _PIXEL) * dwave * dwave - reference) * per_step2


@njit(nogil=True, cache=True, inline="always")
def _design_row(t, table, u, row):  # type: ignore[no-untyped-def]
    """What each of the ten coefficients contributes to the density at the fraction t between two knots."""
    b = cubic_basis(t)
    w = weights_at(table, u)
    row[:] = 0.0
    for a in range(4):
        row[a + REACH] += b[a] * w[0]
        for m in range(1, REACH + 1):
            row[a + REACH - m] += b[a] * w[m]
            row[a + REACH + m] += b[a] * w[m]


@njit(nogil=True, cache=True)
def _gather(wave, ysigma, counts, weight, knots, table, reference, normal, rhs):  # type: ignore[no-untyped-def]
    row = np.empty(_WIDTH)
    per_step2 = 1.0 / knots.step**2
    for f in range(wave.shape[0]):
        x = wave[f]
        for j in range(x.size):
            if weight[f, j] > 0:
                dwave = bin_width(x, j)
                k, t = locate(x[j], knots)
                k -= REACH
                _design_row(t, table, _broadening(ysigma[f, j], dwave, reference, per_step2), row)
                for a in range(_WIDTH):
                    part = weight[f, j] * dwave * row[a]
                    rhs[k + a] += part * counts[f, j]
                    part *= dwave
                    for b in range(a, _WIDTH):
                        normal[k + a, b - a] += part * row[b]


@njit(nogil=True, cache=True, inline="always")
def _quadratic(covariance, k, row):  # type: ignore[no-untyped-def]
    """Variance of the sum of ten coefficients from k on with the factors `row`."""
    total = 0.0
    for a in range(_WIDTH):
        part = 0.5 * row[a] * covariance[k + a, 0]
        for b in range(a + 1, _WIDTH):
            part += row[b] * covariance[k + a, b - a]
        total += 2.0 * row[a] * part
    return total


@njit(nogil=True, cache=True)
def _leverage(wave, ysigma, weight, knots, table, reference, covariance, out):  # type: ignore[no-untyped-def]
    row = np.empty(_WIDTH)
    per_step2 = 1.0 / knots.step**2
    for f in range(wave.shape[0]):
        x = wave[f]
        for j in range(x.size):
            if weight[f, j] > 0:
                dwave = bin_width(x, j)
                k, t = locate(x[j], knots)
                _design_row(t, table, _broadening(ysigma[f, j], dwave, reference, per_step2), row)
                out[f, j] = weight[f, j] * dwave * dwave * _quadratic(covariance, k - REACH, row)


@njit(nogil=True, cache=True)
def _variance_nodes(covariance, table):  # type: ignore[no-untyped-def]
    """Variance of the density, tabulated at _PHASES places per knot step and _BROADENINGS line spreads."""
    n = covariance.shape[0]
    out = np.zeros((n * _PHASES + 1, _BROADENINGS))
    row = np.empty(_WIDTH)
    for level in range(_BROADENINGS):
        u = U_MIN + level * (U_MAX - U_MIN) / (_BROADENINGS - 1)
        for phase in range(_PHASES):
            _design_row(phase / _PHASES, table, u, row)
            for k in range(n - _WIDTH + 1):
                out[(k + REACH) * _PHASES + phase, level] = _quadratic(covariance, k, row)
    return out


@njit(nogil=True, cache=True)
def _predict_counts(wave, ysigma, knots, sums, table, reference, low, high, counts):  # type: ignore[no-untyped-def]
    per_step2 = 1.0 / knots.step**2
    for f in range(wave.shape[0]):
        x = wave[f]
        for j in range(x.size):
            if low <= x[j] <= high:
                dwave = bin_width(x, j)
                k, t = locate(x[j], knots)
                w = weights_at(table, _broadening(ysigma[f, j], dwave, reference, per_step2))
                b = cubic_basis(t)
                density = b[0] * (w[0] * sums[k, 0] + w[1] * sums[k, 1] + w[2] * sums[k, 2] + w[3] * sums[k, 3])
                k += 1
                density += b[1] * (w[0] * sums[k, 0] + w[1] * sums[k, 1] + w[2] * sums[k, 2] + w[3] * sums[k, 3])
                k += 1
                density += b[2] * (w[0] * sums[k, 0] + w[1] * sums[k, 1] + w[2] * sums[k, 2] + w[3] * sums[k, 3])
                k += 1
                density += b[3] * (w[0] * sums[k, 0] + w[1] * sums[k, 1] + w[2] * sums[k, 2] + w[3] * sums[k, 3])
                counts[f, j] = density * dwave
            else:
                counts[f, j] = np.nan


@njit(nogil=True, cache=True)
def _predict_variance(wave, ysigma, knots, nodes, reference, low, high, variance):  # type: ignore[no-untyped-def]
    per_step2 = 1.0 / knots.step**2
    scale = (_BROADENINGS - 1) / (U_MAX - U_MIN)
    for f in range(wave.shape[0]):
        x = wave[f]
        for j in range(x.size):
            if low <= x[j] <= high:
                dwave = bin_width(x, j)
                k, t = locate(x[j], knots)
                i = min(int(t * _PHASES), _PHASES - 1)
                p = t * _PHASES - i
                i += k * _PHASES
                u = _broadening(ysigma[f, j], dwave, reference, per_step2)
                level = (min(max(u, U_MIN), U_MAX) - U_MIN) * scale
                v = min(int(level), _BROADENINGS - 2)
                q = level - v
                lower = (1.0 - q) * nodes[i, v] + q * nodes[i, v + 1]
                upper = (1.0 - q) * nodes[i + 1, v] + q * nodes[i + 1, v + 1]
                variance[f, j] = dwave * dwave * ((1.0 - p) * lower + p * upper)
            else:
                variance[f, j] = np.nan
