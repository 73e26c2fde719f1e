"""Where each fiber's light falls on the CCD: traces and widths as Legendre series in wavelength."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qlstream.numeric import cubic, legendre

Array = NDArray[np.float64]
Filled = NDArray[Any]  # the floating type of the array that is filled

NODES = 513  # samples of a trace from which its inverse is interpolated: 8 rows apart on a 4k CCD


@dataclass(frozen=True)
class XYTraceSet:
    """Traces x(wave), y(wave) of every fiber, and the Gaussian widths of their spots (spec datamodel §3.2).

    Integer pixel coordinates are pixel centres, the first pixel is 0. x runs along columns
    (cross-dispersion, fiber number), y along rows (dispersion, wavelength).

    Attributes
    ----------
    xcoef, ycoef : (nspec, ncoef) float64, Legendre coefficients against wavelength [pixel]
    wavemin, wavemax : domain of all series [Angstrom, vacuum]
    npix_y : number of CCD rows
    xsigcoef, ysigcoef : (nspec, ncoef) float64 or None, Gaussian sigmas [pixel]
    meta : header cards to be kept
    """

    xcoef: Array
    ycoef: Array
    wavemin: float
    wavemax: float
    npix_y: int
    xsigcoef: Array | None = None
    ysigcoef: Array | None = None
    meta: dict[str, object] | None = None

    def __post_init__(self) -> None:
        if self.xcoef.ndim != 2 or self.ycoef.ndim != 2 or len(self.xcoef) != len(self.ycoef):
            raise ValueError(
                f"XYTraceSet: xcoef {self.xcoef.shape} and ycoef {self.ycoef.shape} must be (nspec, ncoef)"
            )
        if not self.wavemax > self.wavemin:
            raise ValueError(f"XYTraceSet: wavemax {self.wavemax} must exceed wavemin {self.wavemin} [Angstrom]")

    @property
    def nspec(self) -> int:
        return int(self.xcoef.shape[0])

    def _u(self, wave: ArrayLike) -> Array:
        return legendre.reduced(wave, self.wavemin, self.wavemax)

    def x_vs_wave(self, wave: ArrayLike) -> Array:
        """x of every fiber [pixel], (nspec, n), at `wave` (n,) or (nspec, n) [Angstrom]."""
        return legendre.evaluate(self.xcoef, self._u(wave))

    def y_vs_wave(self, wave: ArrayLike) -> Array:
        """y of every fiber [pixel], (nspec, n), at `wave` (n,) or (nspec, n) [Angstrom]."""
        return legendre.evaluate(self.ycoef, self._u(wave))

    def xsig_vs_wave(self, wave: ArrayLike) -> Array:
        """Cross-dispersion Gaussian sigma [pixel], (nspec, n).

        Raises
        ------
        ValueError : the trace set carries no widths
        """
        return legendre.evaluate(self._width(self.xsigcoef, "XSIG"), self._u(wave))

    def ysig_vs_wave(self, wave: ArrayLike) -> Array:
        """Dispersion-direction Gaussian sigma [pixel], (nspec, n).

        Raises
        ------
        ValueError : the trace set carries no widths
        """
        return legendre.evaluate(self._width(self.ysigcoef, "YSIG"), self._u(wave))

    def dy_dwave(self, wave: ArrayLike) -> Array:
        """Dispersion [pixel/Angstrom], (nspec, n)."""
        scale = 2.0 / (self.wavemax - self.wavemin)
        return legendre.evaluate(legendre.derivative(self.ycoef), self._u(wave)) * scale

    def wave_vs_y(self, y: ArrayLike) -> Array:
        """Wavelength of every fiber at rows `y`, the inverse of `y_vs_wave`, to 1e-8 Angstrom.

        Parameters
        ----------
        y : (n,) or (nspec, n) [pixel]; rows beyond the trace domain are extrapolated linearly

        Returns
        -------
        (nspec, n) float64 [Angstrom]

        Raises
        ------
        ValueError : y(wave) of some fiber does not increase
        """
        wave, ynodes, slope = self._nodes()
        values = np.broadcast_to(wave, ynodes.shape)
        return np.asarray(cubic.interpolate(np.asarray(y, dtype=float), ynodes, values, 1.0 / slope))

    def x_vs_y(self, y: ArrayLike, out: Filled | None = None) -> Filled:
        """x of every fiber [pixel], (nspec, n), at rows `y` (n,) or (nspec, n), in `out` if given.

        Beyond the domain it is extrapolated as by `wave_vs_y`.
        """
        return self._vs_y(self.xcoef, y, out)

    def xsig_vs_y(self, y: ArrayLike) -> Filled:
        """Cross-dispersion Gaussian sigma [pixel], (nspec, n), at rows `y`; raises as `xsig_vs_wave`."""
        return self._vs_y(self._width(self.xsigcoef, "XSIG"), y)

    def ysig_vs_y(self, y: ArrayLike, out: Filled | None = None) -> Filled:
        """Dispersion-direction Gaussian sigma [pixel], (nspec, n), at rows `y`; raises as `ysig_vs_wave`."""
        return self._vs_y(self._width(self.ysigcoef, "YSIG"), y, out)

    def _vs_y(self, coef: Array, y: ArrayLike, out: Filled | None = None) -> Filled:
        wave, ynodes, slope = self._nodes()
        u = self._u(wave)
        values = legendre.evaluate(coef, u)
        slopes = legendre.evaluate(legendre.derivative(coef), u) * (2.0 / (self.wavemax - self.wavemin)) / slope
        return cubic.interpolate(np.asarray(y, dtype=float), ynodes, values, slopes, out)

    def _nodes(self) -> tuple[Array, Array, Array]:
        """Wavelengths (m,) that sample the domain finely, with y and dy/dwave (nspec, m) there."""
        wave = np.linspace(self.wavemin, self.wavemax, NODES)
        y, slope = self.y_vs_wave(wave), self.dy_dwave(wave)
        falling = np.flatnonzero((slope <= 0).any(axis=1))
        if falling.size:
            raise ValueError(f"XYTraceSet: y does not increase with wavelength for fiber index {falling[:5].tolist()}")
        return wave, y, slope

    def shifted(self, dx: Array, dy: Array, wave: Array) -> XYTraceSet:
        """The same fibers with `dx`, `dy` [pixel], both (nspec, n) sampled at `wave` (n,), added to the traces."""
        u = self._u(wave)
        ncoef_x, ncoef_y = self.xcoef.shape[1], self.ycoef.shape[1]
        degree = min(len(wave) - 1, max(ncoef_x, ncoef_y) - 1)
        add_x, add_y = legendre.fit(u, dx, degree), legendre.fit(u, dy, degree)
        return replace(self, xcoef=_added(self.xcoef, add_x), ycoef=_added(self.ycoef, add_y))

    def select(self, index: ArrayLike | slice) -> XYTraceSet:
        """The fibers `index` (integers, slice or boolean mask), in that order."""
        take = index if isinstance(index, slice) else np.asarray(index)
        return replace(
            self,
            xcoef=self.xcoef[take],
            ycoef=self.ycoef[take],
            xsigcoef=None if self.xsigcoef is None else self.xsigcoef[take],
            ysigcoef=None if self.ysigcoef is None else self.ysigcoef[take],
        )

    @staticmethod
    def _width(coef: Array | None, name: str) -> Array:
        if coef is None:
            raise ValueError(f"this trace set has no {name} table; give a PSF file with spot widths")
        return coef


def _added(coef: Array, extra: Array) -> Array:
    n = max(coef.shape[1], extra.shape[1])
    total = np.zeros((len(coef), n))
    total[:, : coef.shape[1]] += coef
    total[:, : extra.shape[1]] += extra
    return total
