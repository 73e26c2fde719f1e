"""What the sky may be over the focal plane: the same everywhere, the same times a polynomial, or a sum of spectra.

Each gives a fit that tells what every fiber sees and how well it is known. Places are relative to the mean sky fiber,
and in units of the largest distance from it, so that a polynomial of low degree says little beyond its data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from algorithms.sky.robust import TooFewSkyFibers
from qlstream.numeric.deconvolution import CommonComponents, CommonSpectrum, ComponentEquations, NormalEquations

Array = NDArray[np.float64]
Bands = Callable[[int], Array]  # fiber index -> (ndiag, n) bands of its resolution matrix

_FIBERS_PER_TERM = 2  # fewer sky fibers do not tell so many terms
_ALTERNATIONS = 30
_SETTLED = 1e-6  # change of the coefficients


class FittedVariation(Protocol):
    """What the fit to the sky fibers says of any fiber."""

    def seen_by(self, fiber: int) -> Array:
        """(n,) the sky that the fiber sees."""

    def variance_by(self, fiber: int) -> Array:
        """(n,) its variance; inf where no data determine it."""


class Variation(Protocol):
    """A kind of sky."""

    def fit(self, data: Array, weight: Array, fibers: NDArray[np.int64]) -> FittedVariation:
        """Fit (nsky, n) data with inverse variances; 0 leaves a sample out. `fibers` are the indices of the rows."""


@dataclass(frozen=True)
class Uniform:
    """D_f = R_f s."""

    bands_of: Bands

    def fit(self, data: Array, weight: Array, fibers: NDArray[np.int64]) -> FittedVariation:
        normal = NormalEquations(self.bands_of(int(fibers[0])).shape[0], data.shape[1])
        for f, d, w in zip(fibers, data, weight, strict=True):
            normal.add(self.bands_of(int(f)), 1.0, d, w)
        return _UniformFit(self.bands_of, normal.solve())


@dataclass(frozen=True)
class _UniformFit:
    bands_of: Bands
    common: CommonSpectrum

    def seen_by(self, fiber: int) -> Array:
        return self.common.seen_through(self.bands_of(fiber))

    def variance_by(self, fiber: int) -> Array:
        return self.common.variance_through(self.bands_of(fiber))


@dataclass(frozen=True)
class Components:
    """D_f = R_f sum_m p_m(x, y) s_m: one spectrum per monomial (spec offline-reduction §7.5, there a dense system).

    Attributes
    ----------
    place : (nspec, 2) of all fibers [mm], nan where it is not known: there the mean sky is taken
    degree : of the polynomial in x and y
    """

    bands_of: Bands
    place: Array
    degree: int

    def fit(self, data: Array, weight: Array, fibers: NDArray[np.int64]) -> FittedVariation:
        """Raises TooFewSkyFibers if there are less than two for every monomial."""
        shares = monomials(self.place, self.degree, fibers)
        _enough(fibers, shares.shape[1])
        normal = ComponentEquations(self.bands_of(int(fibers[0])).shape[0], data.shape[1], shares.shape[1])
        for f, d, w in zip(fibers, data, weight, strict=True):
            normal.add(self.bands_of(int(f)), shares[f], d, w)
        return _ComponentsFit(self.bands_of, shares, normal.solve())


@dataclass(frozen=True)
class _ComponentsFit:
    bands_of: Bands
    shares: Array
    common: CommonComponents

    def seen_by(self, fiber: int) -> Array:
        return self.common.seen_through(self.bands_of(fiber), self.shares[fiber])

    def variance_by(self, fiber: int) -> Array:
        return self.common.variance_through(self.bands_of(fiber), self.shares[fiber])


@dataclass
class PolynomialTimesSky:
    """D_f = P(x_f, y_f, lambda) R_f s with P = 1 at the mean sky fiber (spec offline-reduction §7.5).

    The polynomial is smooth over a line spread, so it is taken out of the resolution. Terms in the wavelength alone are
    those of s itself and left out, instead of being held by a prior. s and P are fitted in turn.

    Attributes
    ----------
    place : (nspec, 2) of all fibers [mm], nan where it is not known: there P = 1
    wave : (n,) [Angstrom]
    degree, chromatic_degree : of P in x and y together, and in the wavelength
    """

    bands_of: Bands
    place: Array
    wave: Array
    degree: int
    chromatic_degree: int
    _coefficients: Array | None = field(default=None, init=False)  # of the fit before: a good start

    def fit(self, data: Array, weight: Array, fibers: NDArray[np.int64]) -> FittedVariation:
        """Raises TooFewSkyFibers if there are less than two for every monomial in x and y."""
        angular = monomials(self.place, self.degree, fibers)
        _enough(fibers, angular.shape[1])
        u = (2.0 * self.wave - self.wave[0] - self.wave[-1]) / (self.wave[-1] - self.wave[0])
        powers = u[None, :] ** np.arange(self.chromatic_degree + 1)[:, None]
        angular = angular[:, 1:]  # what is the same for all fibers is s
        nterm = angular.shape[1] * len(powers)
        coefficients = np.zeros(nterm) if self._coefficients is None else self._coefficients
        for _ in range(_ALTERNATIONS):
            equations = NormalEquations(self.bands_of(int(fibers[0])).shape[0], data.shape[1])
            for f, d, w in zip(fibers, data, weight, strict=True):
                equations.add(self.bands_of(int(f)), 1.0 + coefficients @ _terms(angular[f], powers), d, w)
            common = equations.solve()
            normal, rhs = np.zeros((nterm, nterm)), np.zeros(nterm)
            for f, d, w in zip(fibers, data, weight, strict=True):
                seen = common.seen_through(self.bands_of(int(f)))
                design = _terms(angular[f], powers) * seen
                normal += (design * w) @ design.T
                rhs += (design * w) @ np.where(w > 0, d - seen, 0.0)
            covariance = np.linalg.inv(normal + 1e-12 * np.trace(normal) * np.eye(nterm) + 1e-300 * np.eye(nterm))
            before, coefficients = coefficients, covariance @ rhs
            if np.abs(coefficients - before).max() < _SETTLED:
                break
        self._coefficients = coefficients
        return _PolynomialFit(self.bands_of, angular, powers, coefficients, covariance, common)


@dataclass(frozen=True)
class _PolynomialFit:
    bands_of: Bands
    angular: Array
    powers: Array
    coefficients: Array
    covariance: Array
    common: CommonSpectrum

    def seen_by(self, fiber: int) -> Array:
        factor = 1.0 + self.coefficients @ _terms(self.angular[fiber], self.powers)
        return np.asarray(factor * self.common.seen_through(self.bands_of(fiber)))

    def variance_by(self, fiber: int) -> Array:
        terms, bands = _terms(self.angular[fiber], self.powers), self.bands_of(fiber)
        factor = 1.0 + self.coefficients @ terms
        of_factor = np.einsum("an,ab,bn->n", terms, self.covariance, terms)
        common = self.common.variance_through(bands)
        return np.asarray(factor**2 * common + of_factor * self.common.seen_through(bands) ** 2)


def monomials(place: Array, degree: int, fibers: NDArray[np.int64]) -> Array:
    """(nspec, nterm) x^i y^j with i + j <= degree, 1 first, of places relative to those of `fibers`."""
    known = np.asarray(np.isfinite(place).all(axis=1))
    of_sky = place[fibers][known[fibers]]
    if not len(of_sky):
        raise TooFewSkyFibers("no sky fiber with a place in the focal plane, so that its sky cannot vary over it")
    away = np.where(known[:, None], place - of_sky.mean(axis=0), 0.0)
    x, y = away.T / max(float(np.abs(of_sky - of_sky.mean(axis=0)).max()), 1e-6)
    return np.stack([x ** (n - j) * y**j for n in range(degree + 1) for j in range(n + 1)], axis=1)


def _terms(angular: Array, powers: Array) -> Array:
    """(nterm, n) products of a fiber's monomials and the powers of the wavelength."""
    return np.asarray((angular[:, None, None] * powers[None]).reshape(-1, powers.shape[1]))


def _enough(fibers: NDArray[np.int64], nterm: int) -> None:
    if fibers.size < _FIBERS_PER_TERM * nterm:
        raise TooFewSkyFibers(
            f"{fibers.size} sky fibers, needed {_FIBERS_PER_TERM * nterm} for a sky of {nterm} terms over the focal "
            "plane; lower angular_degree"
        )
