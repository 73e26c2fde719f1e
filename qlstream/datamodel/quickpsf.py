"""The quick PSF: where a wavelength of a fiber falls on the CCD and how wide it is there, asked one by one or many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qlstream.datamodel.traces import XYTraceSet

Array = NDArray[np.float64]


@dataclass(frozen=True)
class QuickPSF:
    """An `XYTraceSet` by spectrum number and wavelength, as users of a 2-D PSF ask for it.

    Every method takes `ispec`, an index, several, or None for all spectra, and the coordinate, a number, several, or
    None for that of every CCD row. The result has an axis for each of the two that was not a single number.

    Attributes
    ----------
    traces : with widths, if xsigma and ysigma are to be asked for
    """

    traces: XYTraceSet

    @property
    def nspec(self) -> int:
        return self.traces.nspec

    @property
    def npix_y(self) -> int:
        """Rows of the CCD."""
        return self.traces.npix_y

    def x(self, ispec: ArrayLike | None = None, wavelength: ArrayLike | None = None) -> Any:
        """Column [pixel]."""
        return self._at(XYTraceSet.x_vs_wave, ispec, wavelength)

    def y(self, ispec: ArrayLike | None = None, wavelength: ArrayLike | None = None) -> Any:
        """Row [pixel]."""
        return self._at(XYTraceSet.y_vs_wave, ispec, wavelength)

    def wavelength(self, ispec: ArrayLike | None = None, y: ArrayLike | None = None) -> Any:
        """Wavelength [Angstrom] at rows `y` [pixel]."""
        rows = np.arange(float(self.npix_y)) if y is None else np.asarray(y, dtype=float)
        values = self._select(ispec).wave_vs_y(np.atleast_1d(rows))
        return _squeezed(values, ispec, rows)

    def angstroms_per_pixel(self, ispec: ArrayLike | None = None, wavelength: ArrayLike | None = None) -> Any:
        """Width of a CCD row [Angstrom/pixel]."""
        return 1.0 / self._at(XYTraceSet.dy_dwave, ispec, wavelength)

    def xsigma(self, ispec: ArrayLike | None = None, wavelength: ArrayLike | None = None) -> Any:
        """Gaussian sigma across the dispersion [pixel]; raises ValueError if the traces carry no widths."""
        return self._at(XYTraceSet.xsig_vs_wave, ispec, wavelength)

    def ysigma(self, ispec: ArrayLike | None = None, wavelength: ArrayLike | None = None) -> Any:
        """Gaussian sigma along the dispersion [pixel]; raises ValueError if the traces carry no widths."""
        return self._at(XYTraceSet.ysig_vs_wave, ispec, wavelength)

    def _at(
        self, series: Callable[[XYTraceSet, Array], Array], ispec: ArrayLike | None, wavelength: ArrayLike | None
    ) -> Any:
        traces = self._select(ispec)
        if wavelength is None:
            wave = traces.wave_vs_y(np.arange(float(self.npix_y)))
            return _squeezed(series(traces, wave), ispec, wave)
        wave = np.asarray(wavelength, dtype=float)
        return _squeezed(series(traces, np.atleast_1d(wave)), ispec, wave)

    def _select(self, ispec: ArrayLike | None) -> XYTraceSet:
        return self.traces if ispec is None else self.traces.select(np.atleast_1d(np.asarray(ispec)))


def _squeezed(values: Array, ispec: ArrayLike | None, coordinate: Array) -> Any:
    """(nspec, n) without the axes that were asked for as single numbers."""
    if np.ndim(coordinate) == 0:
        values = values[:, 0]
    if ispec is not None and np.ndim(ispec) == 0:
        return values[0]
    return values
