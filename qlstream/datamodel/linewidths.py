"""The resolution of one camera as an arc exposure shows it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.qframe import QFrame
from qlstream.datamodel.traces import XYTraceSet

Array = NDArray[np.float64]


class WidthSource(IntEnum):
    """Where the widths of a fiber come from."""

    LINES = 0  # enough lines of its own
    FEW_LINES = 1  # some of its own, held by those of the camera
    NEIGHBOURS = 2  # none of its own: the calibration's, changed as those of the fibers around it
    UNCHANGED = 3  # nothing was measured in this camera: those that the traces came with


@dataclass(frozen=True)
class LineWidths:
    """Gaussian core widths of arc lines, and the series over wavelength fitted to them.

    Attributes
    ----------
    traces : of this exposure, with the fitted widths as `ysigcoef` [pixel]
    spectra : the arc, with these widths as `ysigma`
    reference : traces with the widths that the lines were compared with: those of the calibration PSF
    lines : (nline,) structured array, lines that were tried: wave [Angstrom], name, strength
    sigma, error : (nspec, nline) float64, measured widths and their standard errors [pixel]; NaN where there is none
    used : (nspec, nline) bool, widths that went into the fit
    source : (nspec,) int8, WidthSource of each fiber
    chi2, dof : (nspec,) float64, of the used widths about the fitted series; dof 0 where nothing can be said
    warnings : what could not be measured and why, in plain words
    """

    traces: XYTraceSet
    spectra: QFrame
    reference: XYTraceSet
    lines: NDArray[np.void]
    sigma: Array
    error: Array
    used: NDArray[np.bool_]
    source: NDArray[np.int8]
    chi2: Array
    dof: Array
    warnings: tuple[str, ...] = ()

    @property
    def camera(self) -> str:
        return self.spectra.camera

    @property
    def meta(self) -> dict[str, Any]:
        """Header cards of the arc."""
        return self.spectra.meta

    @property
    def nlines(self) -> NDArray[np.int64]:
        """(nspec,) lines used per fiber."""
        return np.asarray(self.used.sum(axis=1))

    def ratio(self, wave: Array) -> Array:
        """(nspec, n) fitted widths over those of the reference, at `wave` (n,) [Angstrom]."""
        return self.traces.ysig_vs_wave(wave) / self.reference.ysig_vs_wave(wave)
