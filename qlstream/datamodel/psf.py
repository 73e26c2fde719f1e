"""Spot shapes as a Gauss-Hermite expansion whose parameters vary with wavelength and fiber."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.traces import XYTraceSet

Array = NDArray[np.float64]


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
