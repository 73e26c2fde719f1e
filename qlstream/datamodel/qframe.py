"""Quicklook spectra on the native row grid of each fiber."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.cameraspectra import CameraSpectra
from qlstream.datamodel.fibermap import Fibermap

Array = NDArray[np.float64]

ELECTRON = "electron"
CALIBRATED = "10**-17 erg/(s cm2 Angstrom)"


@dataclass(frozen=True)
class QFrame(CameraSpectra):
    """Spectra of one camera, one wavelength grid per fiber: no resampling, so uncorrelated bins (spec datamodel §5.3).

    Attributes
    ----------
    wave : (nspec, ny) float64 [Angstrom, vacuum], increasing along each row
    flux : (nspec, ny) float32 [electron per CCD row] unless `bunit` says otherwise
    ivar : (nspec, ny) float32 [1/flux unit^2]; 0 = no information
    mask : (nspec, ny) uint32, SpecMask bits
    fibers : (nspec,) int32, FIBER numbers
    ysigma : (nspec, ny) float32 [pixel], Gaussian sigma of the line spread, or None
    fibermap : the rows of these fibers, same order, or None
    sky : (nspec, ny) float32, the sky model that was subtracted [flux unit], or None
    bunit : unit of flux
    meta : header cards
    """

    wave: Array
    flux: NDArray[np.float32]
    ivar: NDArray[np.float32]
    mask: NDArray[np.uint32]
    fibers: NDArray[np.int32]
    ysigma: NDArray[np.float32] | None = None
    fibermap: Fibermap | None = None
    sky: NDArray[np.float32] | None = None
    bunit: str = ELECTRON
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = self.flux.shape
        if len(shape) != 2 or not (self.wave.shape == self.ivar.shape == self.mask.shape == shape):
            raise ValueError(
                f"QFrame: wave {self.wave.shape}, flux {shape}, ivar {self.ivar.shape}, mask {self.mask.shape} "
                "must be of one shape (nspec, ny)"
            )
        if self.fibers.shape != (shape[0],):
            raise ValueError(f"QFrame: fibers {self.fibers.shape} must be ({shape[0]},)")
        if self.fibermap is not None and len(self.fibermap) != shape[0]:
            raise ValueError(f"QFrame: the fibermap has {len(self.fibermap)} rows for {shape[0]} spectra")

    @property
    def nspec(self) -> int:
        return int(self.flux.shape[0])

    @property
    def camera(self) -> str:
        return str(self.meta.get("CAMERA", "")).lower()

    def per_bin(self) -> QFrame:
        """Itself."""
        return self

    @cached_property
    def dwave(self) -> Array:
        """(nspec, ny) width of each row's bin [Angstrom]."""
        return np.gradient(self.wave, axis=1)
