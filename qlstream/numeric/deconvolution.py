"""One spectrum that many fibers saw, each through its own resolution matrix: weighted least squares, and its error.

Data d_f = a_f R_f m + noise, with R_f banded: so the normal equations of m are banded, too, with as many diagonals on
either side as a resolution matrix has in all but one, and their inverse is needed in that band alone (Bolton & Schlegel
2010 for the model; the reference solves a dense system, spec offline-reduction §16). Everything is O(n ndiag^2) for a
fiber and for the solution. What m has beyond the resolution is hardly determined and means nothing: use R m.

Where the fibers did not see the same spectrum but sums of a few, each with shares of its own, `ComponentEquations` find
these spectra together: their unknowns stand side by side at each wavelength, which leaves the system a band.

Bands are those of a resolution matrix (spec datamodel §6): R[j - ndiag//2 + k, j] = bands[k, j], ndiag odd. One band of
ones is the unit matrix, and m the weighted mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from qlstream.numeric.banded import factorize, inverse_band, solve

Array = NDArray[np.float64]

_RIDGE = 1e-10  # of its diagonal: keeps the factor positive where the resolution wipes out a frequency
_COMPONENT_RIDGE = 1e-6  # of further spectra: where too few fibers tell them apart, there are none
_MAX_UNKNOWN = 1e-3  # share of the light of a bin that may come from bins that no data determine


@dataclass(frozen=True)
class CommonSpectrum:
    """The spectrum that all fibers saw.

    Attributes
    ----------
    model : (n,) before any resolution; 0 where no data determine it
    covariance : (ndiag, n) its covariance, [d, j] belongs to j and j + d
    known : (n,) bool, bins that data determine
    """

    model: Array
    covariance: Array
    known: NDArray[np.bool_]

    def seen_through(self, bands: Array) -> Array:
        """(n,) R m."""
        return spread(bands, self.model)

    def variance_through(self, bands: Array) -> Array:
        """(n,) variance of R m; inf where it stands on bins that no data determine."""
        out = np.zeros(self.model.size)
        _variance(bands, self.covariance, out)
        out[spread(bands, (~self.known).astype(float)) > _MAX_UNKNOWN] = np.inf
        return out


class NormalEquations:
    """Gathers the data of fiber after fiber.

    Parameters
    ----------
    ndiag : number of diagonals of the resolution matrices, odd
    nwave : bins

    Attributes
    ----------
    normal : (ndiag, nwave) what was gathered, [d, j] belongs to j and j + d
    rhs : (nwave,)
    """

    def __init__(self, ndiag: int, nwave: int) -> None:
        self.normal, self.rhs = np.zeros((ndiag, nwave)), np.zeros(nwave)

    def add(self, bands: Array, scale: Array | float, data: Array, weight: Array) -> None:
        """Add data = scale * (R m) of one fiber.

        Parameters
        ----------
        bands : (ndiag, n) of the fiber's resolution matrix
        scale : (n,) or one number, e.g. the fiber's throughput
        data, weight : (n,) and inverse variances; 0 leaves a bin out, whatever its data

        Raises
        ------
        ValueError : shapes do not fit
        """
        ndiag, nwave = self.normal.shape
        if bands.shape != (ndiag, nwave) or data.shape != (nwave,) or weight.shape != (nwave,):
            raise ValueError(
                f"NormalEquations: bands {bands.shape}, data {data.shape}, weight {weight.shape} do not fit; "
                f"here are {ndiag} diagonals of {nwave} bins"
            )
        scaled = np.where(weight > 0, weight * scale, 0.0)
        value = np.where(weight > 0, scaled * data, 0.0)
        _add(np.ascontiguousarray(bands, dtype=float), scaled * scale, value, self.normal, self.rhs)

    def solve(self) -> CommonSpectrum:
        """The spectrum; bins without data are 0 and not `known`."""
        known = self.normal[0] > 0
        band = np.ascontiguousarray(self.normal.T)
        band[:, 0] = np.where(known, band[:, 0] * (1.0 + _RIDGE), 1.0)
        model = self.rhs.copy()
        factorize(band)
        solve(band, model)
        return CommonSpectrum(model, np.ascontiguousarray(inverse_band(band).T), known)


@dataclass(frozen=True)
class CommonComponents:
    """The spectra that all fibers saw sums of; as `CommonSpectrum`, with the fiber's shares beside its bands.

    Attributes
    ----------
    model : (ncomponent, n)
    covariance : (n ncomponent, ndiag ncomponent) band of the inverse, unknowns of one wavelength side by side
    known : (n,) bool
    """

    model: Array
    covariance: Array
    known: NDArray[np.bool_]

    def seen_through(self, bands: Array, shares: Array) -> Array:
        """(n,) R sum_m p_m s_m."""
        return spread(bands, shares @ self.model)

    def variance_through(self, bands: Array, shares: Array) -> Array:
        """(n,) its variance; inf where it stands on bins that no data determine."""
        ncomponent, n = self.model.shape
        ndiag = len(bands)
        together = np.zeros((ndiag, n))
        for a in range(ncomponent):
            for b in range(ncomponent):
                for d in range(ndiag):
                    first, other = (a, b) if d > 0 or b >= a else (b, a)
                    together[d] += (
                        shares[a] * shares[b] * self.covariance[first::ncomponent, d * ncomponent + other - first]
                    )
        out = np.zeros(n)
        _variance(bands, together, out)
        out[spread(bands, (~self.known).astype(float)) > _MAX_UNKNOWN] = np.inf
        return out


class ComponentEquations:
    """As `NormalEquations`, for data = R sum_m p_m s_m of a few spectra s_m, with the shares p_m of each fiber.

    Parameters
    ----------
    ndiag, nwave : as there
    ncomponent : number of spectra; the first is the one that is most of all fibers' light
    """

    def __init__(self, ndiag: int, nwave: int, ncomponent: int) -> None:
        self._normal = np.zeros((ncomponent, ncomponent, ndiag, nwave))
        self._rhs = np.zeros((ncomponent, nwave))

    def add(self, bands: Array, shares: Array, data: Array, weight: Array) -> None:
        """Add the data of one fiber.

        Parameters
        ----------
        bands : (ndiag, n) of the fiber's resolution matrix
        shares : (ncomponent,) of the spectra in it
        data, weight : (n,) and inverse variances; 0 leaves a bin out, whatever its data
        """
        alone = NormalEquations(*self._normal.shape[2:])
        alone.add(bands, 1.0, data, weight)
        self._rhs += shares[:, None] * alone.rhs
        for a, b in zip(*np.triu_indices(len(shares)), strict=True):
            self._normal[a, b] += shares[a] * shares[b] * alone.normal

    def solve(self) -> CommonComponents:
        """The spectra; bins without data are 0 and not `known`."""
        ncomponent, _, ndiag, nwave = self._normal.shape
        known = self._normal[0, 0, 0] > 0
        band = np.zeros((nwave * ncomponent, ndiag * ncomponent))
        for a in range(ncomponent):
            for b in range(ncomponent):
                part = self._normal[min(a, b), max(a, b)]
                for d in range(ndiag):
                    if (to := d * ncomponent + b - a) >= 0:
                        band[a::ncomponent, to] = part[d]
            ridge = _RIDGE if a == 0 else _COMPONENT_RIDGE
            diagonal = band[a::ncomponent, 0]
            band[a::ncomponent, 0] = np.where(known & (diagonal > 0), diagonal * (1.0 + ridge), 1.0)
        model = np.ascontiguousarray(self._rhs.T).ravel()
        factorize(band)
        solve(band, model)
        return CommonComponents(model.reshape(nwave, ncomponent).T.copy(), inverse_band(band), known)


def spread(bands: Array, model: Array) -> Array:
    """(n,) the resolution matrix of these bands times a spectrum."""
    out = np.zeros(model.size)
    _spread(bands, model, out)
    return out


# The inner loops run along the bins, which are neighbours in memory, so that the compiler can take several at once.


@njit(nogil=True, cache=True)
def _spread(bands, model, out):  # type: ignore[no-untyped-def]
    ndiag, n = bands.shape
    half = ndiag // 2
    for k in range(ndiag):
        shift = k - half  # bin j lights bin j + shift
        for j in range(max(0, -shift), min(n, n - shift)):
            out[j + shift] += bands[k, j] * model[j]


@njit(nogil=True, cache=True)
def _add(bands, weight, value, normal, rhs):  # type: ignore[no-untyped-def]
    ndiag, n = bands.shape
    half = ndiag // 2
    weighted = np.zeros(n)
    for k in range(ndiag):
        shift = k - half
        first, last = max(0, -shift), min(n, n - shift)
        for j in range(first, last):
            weighted[j] = bands[k, j] * weight[j + shift]
            rhs[j] += bands[k, j] * value[j + shift]
        for d in range(k + 1):  # the bin j + d lights the same bin by its band k - d
            for j in range(first, min(last, n - d)):
                normal[d, j] += weighted[j] * bands[k - d, j + d]


@njit(nogil=True, cache=True)
def _variance(bands, covariance, out):  # type: ignore[no-untyped-def]
    ndiag, n = bands.shape
    half = ndiag // 2
    for k in range(ndiag):
        shift = k - half
        first, last = max(0, -shift), min(n, n - shift)
        for d in range(k + 1):
            twice = 1.0 if d == 0 else 2.0
            for j in range(first, min(last, n - d)):
                out[j + shift] += twice * bands[k, j] * bands[k - d, j + d] * covariance[d, j]
