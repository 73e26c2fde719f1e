"""Relative throughput of the fibers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.fibermap import Fibermap


@dataclass(frozen=True)
class FiberFlat:
    """Throughput of each fiber relative to the median fiber, on a common grid (spec datamodel §5.4).

    Attributes
    ----------
    wave : (nwave,) float64 [Angstrom], observer frame
    fiberflat, ivar : (nspec, nwave) float64, dimensionless; median over fibers is 1 at each wavelength
    mask : (nspec, nwave) uint32, SpecMask bits
    meanspec : (nwave,) float64, spectrum of the lamp in the median fiber [electron/Angstrom]
    chi2pdf : reduced chi2 of the smooth flat
    fibers : (nspec,) int32, FIBER numbers
    fibermap : rows of these fibers, or None
    meta : header cards
    """

    wave: NDArray[np.float64]
    fiberflat: NDArray[np.float64]
    ivar: NDArray[np.float64]
    mask: NDArray[np.uint32]
    meanspec: NDArray[np.float64]
    fibers: NDArray[np.int32]
    chi2pdf: float | None = None
    fibermap: Fibermap | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.fibers), len(self.wave))
        if not (self.fiberflat.shape == self.ivar.shape == self.mask.shape == shape):
            raise ValueError(
                f"FiberFlat: fiberflat {self.fiberflat.shape}, ivar {self.ivar.shape}, mask {self.mask.shape} "
                f"must be (nspec, nwave) = {shape}"
            )
        if self.meanspec.shape != self.wave.shape:
            raise ValueError(f"FiberFlat: meanspec {self.meanspec.shape} must be {self.wave.shape}")

    @property
    def nspec(self) -> int:
        return len(self.fibers)
