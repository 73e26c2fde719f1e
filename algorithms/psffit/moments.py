"""What every arc spot holds beside its model, as coefficients of the Gauss-Hermite functions about its expected place.

Where a model spot of width s stands at a place that is wrong by dx, the data hold dx/s of the function He_1 more; where
s is wrong by the fraction e, they hold e of He_2. All other coefficients are corrections of those of the PSF itself. So
one linear fit per spot measures place, widths and shape together, with its errors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from numba import njit
from numpy.typing import NDArray

from algorithms.extract.spectroperfect.spots import Spots, pixel_integrals

Array = NDArray[np.float64]

_FLUX_ROUNDS = 3
_DARK = 1e-3  # throughput of a fiber, relative to the others, below which it is none
_CLIP, _SCATTER = 5.0, 0.1  # [sigma], and how much a line may deviate from brightness times throughput


@dataclass(frozen=True)
class Moments:
    """What the spots of one bundle look like.

    Attributes
    ----------
    terms : (nterm, 2) degrees i, j of each function; (0, 0), the first, is the model spot itself
    value, error : (nline, nfiber, nterm) coefficients in units of the first; error inf where nothing could be measured
    flux, snr : (nline, nfiber) of the model spot [electron], [-]
    background : (nline, nfiber) constant under each spot [electron/pixel]
    extra, extra_error : (nline, nfiber, nextra) of further functions, in the same units
    """

    terms: NDArray[np.int64]
    value: Array
    error: Array
    flux: Array
    snr: Array
    background: Array
    extra: Array
    extra_error: Array

    def of(self, i: int, j: int) -> tuple[Array, Array]:
        """(nline, nfiber) coefficient of He_i He_j and its error."""
        at = int(np.flatnonzero((self.terms[:, 0] == i) & (self.terms[:, 1] == j))[0])
        return self.value[:, :, at], self.error[:, :, at]

    def smooth_flux(self, wanted: NDArray[np.bool_]) -> tuple[Array, NDArray[np.bool_]]:
        """Expected fluxes (nline, nfiber), the brightness of a line times the throughput of a fiber; which fit them.

        Coefficients in units of the measured flux, with errors in it, are biased for faint spots: those that fluctuate
        high count more, and all terms fluctuate together.
        """
        good = wanted[:, None] & np.isfinite(self.error[:, :, 0]) & (self.flux > 0)
        expected = np.zeros(self.flux.shape)
        for _ in range(_FLUX_ROUNDS):
            throughput = np.ones(good.shape[1])
            for _again in range(_FLUX_ROUNDS):
                scaled = self.flux / np.maximum(throughput, _DARK)
                line = np.array([np.median(row[k]) if k.any() else 0.0 for row, k in zip(scaled, good, strict=True)])
                total = (good * line[:, None]).sum(axis=0)
                throughput = np.divide((good * self.flux).sum(axis=0), total, out=np.zeros_like(total), where=total > 0)
            expected = line[:, None] * throughput
            noise = np.divide(self.flux, self.snr, out=np.full(good.shape, np.inf), where=self.snr > 0)
            good &= np.abs(self.flux - expected) < _CLIP * np.hypot(noise, _SCATTER * expected)
        return expected, good & (expected > 0)

    def in_units_of(self, flux: Array) -> Moments:
        """The same in units of other fluxes (nline, nfiber) [electron]; error inf where there is none."""
        ratio = np.divide(self.flux, flux, out=np.full(flux.shape, np.inf), where=flux > 0)[:, :, None]
        usable = np.isfinite(self.error) & np.isfinite(ratio) & (ratio > 0)
        ratio = np.where(usable, ratio, 1.0)
        value = np.where(usable, self.value * ratio, 0.0)
        error = np.where(usable, self.error, np.inf) * ratio
        noise = np.divide(self.flux, self.snr, out=np.full(flux.shape, np.inf), where=self.snr > 0)
        extra = np.where(usable[:, :, :1], self.extra * ratio[:, :, :1], 0.0)
        extra_error = np.where(usable[:, :, :1], self.extra_error * ratio[:, :, :1], np.inf)
        return replace(
            self, value=value, error=error, flux=flux, snr=flux / noise, extra=extra, extra_error=extra_error
        )


def terms_up_to(degree: int) -> NDArray[np.int64]:
    """Degrees i, j with i + j <= degree, (0, 0) first."""
    pairs = [(i, n - i) for n in range(degree + 1) for i in range(n + 1)]
    return np.array(pairs, dtype=np.int64)


def measure_moments(
    spots: Spots,
    x: Array,
    y: Array,
    sigma_x: Array,
    sigma_y: Array,
    flux: Array,
    residual: NDArray[np.float32],
    ivar: NDArray[np.float32],
    degree: int,
    background: bool,
    wanted: NDArray[np.bool_],
    extra: Array | None = None,
) -> Moments:
    """Fit the wanted spots, all others subtracted.

    Parameters
    ----------
    spots : model spots of all lines and fibers of the bundle
    x, y, sigma_x, sigma_y : (nfiber, nline) of the model [pixel]
    flux : (nline, nfiber) of the model
    residual : (ny, nx) image less all model spots
    ivar : (ny, nx)
    degree : of the expansion, i + j <= degree
    background : let a constant lie under each spot
    wanted : (nline,) lines that are measured
    extra : (nextra, nline, nfiber, height, width) further functions, images as those of `spots`
    """
    terms = terms_up_to(degree)
    nline, nfiber = spots.row.shape
    if extra is None:
        extra = np.zeros((0, *spots.image.shape))
    value = np.zeros((nline, nfiber, len(terms) + len(extra)))
    error = np.full(value.shape, np.inf)
    total, snr, under = (np.zeros((nline, nfiber)) for _ in range(3))
    _measure(
        spots.image, spots.row, spots.column, x, y, sigma_x, sigma_y, flux, residual, ivar, terms, int(background),
        wanted, extra, value, error, total, snr, under,
    )  # fmt: skip
    n = len(terms)
    return Moments(terms, value[:, :, :n], error[:, :, :n], total, snr, under, value[:, :, n:], error[:, :, n:])


@njit(nogil=True, cache=True)
def _measure(  # type: ignore[no-untyped-def]
    image,
    row,
    column,
    x,
    y,
    sigma_x,
    sigma_y,
    flux,
    residual,
    ivar,
    terms,
    background,
    wanted,
    extra,
    value,
    error,
    total,
    snr,
    under,
):
    nfiber, height, width = image.shape[1:]
    ny, nx = residual.shape
    nterm, nextra = terms.shape[0], extra.shape[0]
    nfunction = nterm + nextra
    n = nfunction + background
    degree = terms.max()
    along_x, along_y = np.empty((degree + 1, width)), np.empty((degree + 1, height))
    normal, right, basis = np.empty((n, n)), np.empty(n), np.empty(n)
    for k in np.flatnonzero(wanted):
        for f in range(nfiber):
            pixel_integrals(column[k, f] - x[f, k], sigma_x[f, k], along_x)
            pixel_integrals(row[k, f] - y[f, k], sigma_y[f, k], along_y)
            normal[:] = 0.0
            right[:] = 0.0
            lit, dark = 0.0, 0.0
            for m in range(height):
                j = row[k, f] + m
                for c in range(width):
                    i = column[k, f] + c
                    share = max(image[k, f, m, c], 0.0)
                    w = ivar[j, i] if 0 <= j < ny and 0 <= i < nx else 0.0
                    if not w > 0.0:
                        dark += share
                        continue
                    lit += share
                    data = residual[j, i] + flux[k, f] * image[k, f, m, c]
                    basis[0] = image[k, f, m, c]
                    for a in range(1, nterm):
                        basis[a] = along_x[terms[a, 0], c] * along_y[terms[a, 1], m]
                    for a in range(nextra):
                        basis[nterm + a] = extra[a, k, f, m, c]
                    if background:
                        basis[nfunction] = 1.0
                    for a in range(n):
                        part = w * basis[a]
                        right[a] += part * data
                        for b in range(a + 1):
                            normal[a, b] += part * basis[b]
            if dark > 0.1 * (lit + dark) or lit <= 0.0 or not _invert(normal, right):
                continue
            # `normal` is the covariance now, and `right` the solution
            first = right[0]
            variance = normal[0, 0]
            if not (first > 0.0 and variance > 0.0):
                continue
            total[k, f] = first
            snr[k, f] = first / sqrt(variance)
            if background:
                under[k, f] = right[nfunction]
            for a in range(nfunction):
                value[k, f, a] = right[a] / first
                error[k, f, a] = sqrt(max(normal[a, a], 0.0)) / first


@njit(nogil=True, cache=True)
def _invert(normal, right):  # type: ignore[no-untyped-def]
    """Solve in place; the lower triangle of `normal` becomes that of its inverse. False if it is singular."""
    n = normal.shape[0]
    for a in range(n):  # Cholesky
        for b in range(a + 1):
            value = normal[a, b]
            for c in range(b):
                value -= normal[a, c] * normal[b, c]
            if a == b:
                if not value > 1e-12 * (abs(normal[a, a]) + 1e-300):
                    return False
                normal[a, a] = sqrt(value)
            else:
                normal[a, b] = value / normal[b, b]
    for a in range(n):  # inverse of the factor
        normal[a, a] = 1.0 / normal[a, a]
        for b in range(a):
            value = 0.0
            for c in range(b, a):
                value -= normal[a, c] * normal[c, b]
            normal[a, b] = value * normal[a, a]
    work = np.zeros(n)
    for a in range(n):
        for b in range(a + 1):
            work[a] += normal[a, b] * right[b]
    for a in range(n):
        right[a] = 0.0
        for c in range(a, n):
            right[a] += normal[c, a] * work[c]
    for a in range(n):  # inverse = L^-T L^-1; row a is complete once all later rows of L^-1 were read
        for b in range(a + 1):
            value = 0.0
            for c in range(a, n):
                value += normal[c, a] * normal[c, b]
            normal[a, b] = value
    return True
