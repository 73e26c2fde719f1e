"""Spot shapes as a Gauss-Hermite expansion whose parameters vary with wavelength and fiber.

core(x, y) = sum_ij GH-i-j He_i(x/sx) He_j(y/sy) G(x; sx) G(y; sy), with He the probabilists' Hermite polynomials and
G the unit Gaussian. Since d/dt [-He_{i-1}(t) g(t)] = He_i(t) g(t), its integral over a pixel is exact.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf

from qlstream.datamodel.traces import XYTraceSet
from qlstream.numeric import legendre

Array = NDArray[np.float64]

TAIL_DEFAULTS = {"TAILXSCA": 1.0, "TAILYSCA": 1.0, "TAILCORE": 1.0, "TAILINDE": 2.0}


@dataclass(frozen=True)
class GaussHermitePSF:
    """A PSF in the format of the DESI PSF files (spec datamodel §3).

    Attributes
    ----------
    traces : traces and Gaussian core widths (GHSIGX, GHSIGY), the latter resampled to the domain of the traces
    coef : parameter name (GHSIGX, GH-2-0, TAILAMP, ...) -> (nspec, n) float64 Legendre coefficients
    wavemin, wavemax : domain of `coef` [Angstrom]; may differ slightly from that of the traces
    ghdegx, ghdegy : degrees of the expansion
    hsizex, hsizey : half size of a spot [pixel]
    meta : header cards of the PSF table
    """

    traces: XYTraceSet
    coef: dict[str, Array]
    wavemin: float
    wavemax: float
    ghdegx: int = 0
    ghdegy: int = 0
    hsizex: int = 8
    hsizey: int = 5
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def nspec(self) -> int:
        return self.traces.nspec

    def select(self, index: slice) -> GaussHermitePSF:
        """The fibers of a slice."""
        coef = {name: values[index] for name, values in self.coef.items()}
        return replace(self, traces=self.traces.select(index), coef=coef)

    def parameter(self, name: str, wave: ArrayLike) -> Array:
        """A parameter of every fiber at `wave` (n,) or (nspec, n) [Angstrom], (nspec, n).

        Raises
        ------
        KeyError : the PSF has no such parameter
        """
        if name not in self.coef:
            raise KeyError(f"the PSF has no parameter {name}; it has {', '.join(self.coef)}")
        return legendre.evaluate(self.coef[name], legendre.reduced(wave, self.wavemin, self.wavemax))

    def spot(self, fiber: int, wave: float) -> tuple[slice, slice, Array]:
        """Image of a monochromatic spot of unit flux on the pixels of the CCD.

        The core is integrated over each pixel, the tail is sampled at its centre (spec datamodel §3.1).

        Parameters
        ----------
        fiber : index of the fiber in this PSF
        wave : [Angstrom]

        Returns
        -------
        rows, columns : where the image lies on the CCD; may reach beyond its edges
        image : (2 hsizey + 1, 2 hsizex + 1), fraction of the light in each pixel
        """
        x, y = self._position(fiber, wave)
        ix, iy = round(x), round(y)
        columns = np.arange(ix - self.hsizex, ix + self.hsizex + 1)
        rows = np.arange(iy - self.hsizey, iy + self.hsizey + 1)
        dx, dy = np.asarray(columns - x, dtype=np.float64), np.asarray(rows - y, dtype=np.float64)
        values = self._values(fiber, wave)
        along_x = _pixel_integrals(dx, values["GHSIGX"], self.ghdegx)
        along_y = _pixel_integrals(dy, values["GHSIGY"], self.ghdegy)
        image = np.asarray(along_y.T @ self._terms(values).T @ along_x) + _tail(dx, dy, values)
        return slice(iy - self.hsizey, iy + self.hsizey + 1), slice(ix - self.hsizex, ix + self.hsizex + 1), image

    def cross_profile(self, fiber: int, wave: float, dx: ArrayLike) -> Array:
        """Cross-dispersion profile: the core summed along the dispersion, integrated over pixels of unit width.

        Parameters
        ----------
        fiber, wave : as in `spot`
        dx : (n,) pixel centres relative to the trace [pixel]

        Returns
        -------
        (n,) fraction of the light per pixel column
        """
        values = self._values(fiber, wave)
        terms = self._terms(values)[:, 0]  # He_j with j > 0 integrate to zero along y
        return terms @ _pixel_integrals(np.asarray(dx, dtype=float), values["GHSIGX"], self.ghdegx)

    def _position(self, fiber: int, wave: float) -> tuple[float, float]:
        traces = self.traces
        u = legendre.reduced(wave, traces.wavemin, traces.wavemax)
        at = [legendre.evaluate(c[fiber : fiber + 1], u)[0, 0] for c in (traces.xcoef, traces.ycoef)]
        return float(at[0]), float(at[1])

    def _values(self, fiber: int, wave: float) -> dict[str, float]:
        """All parameters of one fiber at one wavelength."""
        u = legendre.reduced(wave, self.wavemin, self.wavemax)
        return {name: float(legendre.evaluate(c[fiber : fiber + 1], u)[0, 0]) for name, c in self.coef.items()}

    def _terms(self, values: dict[str, float]) -> Array:
        """(ghdegx + 1, ghdegy + 1) coefficients GH-i-j; GH-0-0 is 1 if the table lacks it."""
        degrees = [(i, j) for i in range(self.ghdegx + 1) for j in range(self.ghdegy + 1)]
        terms = [values.get(f"GH-{i}-{j}", 1.0 if i == j == 0 else 0.0) for i, j in degrees]
        return np.array(terms).reshape(self.ghdegx + 1, self.ghdegy + 1)


def _pixel_integrals(centre: Array, sigma: float, degree: int) -> Array:
    """(degree + 1, n) integrals of He_i(t) g(t), t = x/sigma, over the pixels at `centre` [pixel]."""
    t = np.stack([centre - 0.5, centre + 0.5]) / sigma
    gauss = np.exp(-0.5 * t**2) / np.sqrt(2 * np.pi)
    antiderivative = np.empty((degree + 1, *t.shape))
    antiderivative[0] = 0.5 * erf(t / np.sqrt(2))
    hermite_before, hermite = np.zeros_like(t), np.ones_like(t)
    for i in range(1, degree + 1):
        antiderivative[i] = -hermite * gauss
        hermite_before, hermite = hermite, t * hermite - (i - 1) * hermite_before
    return antiderivative[:, 1] - antiderivative[:, 0]


def _tail(dx: Array, dy: Array, values: dict[str, float]) -> Array:
    """(ny, nx) power-law tail at the pixel centres."""
    amplitude = values.get("TAILAMP", 0.0)
    if amplitude == 0.0:
        return np.zeros((len(dy), len(dx)))
    xscale, yscale, core, index = (values.get(k, d) for k, d in TAIL_DEFAULTS.items())
    r2 = (dx[None, :] / xscale) ** 2 + (dy[:, None] / yscale) ** 2
    return np.asarray(amplitude * r2 / (core**2 + r2) ** (1 + index / 2))
