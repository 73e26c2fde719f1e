"""Flux calibration: the average of an arm, and the vectors of one exposure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FluxCalib:
    """Electrons per unit flux at a reference airmass and seeing (spec raw-and-calib §8).

    Attributes
    ----------
    wave : (nwave,) float64 [Angstrom]
    value : (nwave,) float64 [electron / second / Angstrom per 1e-17 erg/s/cm2/Angstrom]
    airmass_term, seeing_term : (nwave,) float64 [mag per airmass], [mag per arcsec]; zeros if unknown
    airmass, seeing : the reference, [-] and [arcsec]
    meta : header cards
    """

    wave: Array
    value: Array
    airmass_term: Array
    seeing_term: Array
    airmass: float = 1.0
    seeing: float = 1.1
    meta: dict[str, Any] = field(default_factory=dict)

    def at(self, wave: ArrayLike, airmass: float, seeing: float) -> Array:
        """Calibration vector at `wave`, for the airmass and seeing [arcsec] of an exposure; 0 outside its range.

        C = C0 10^(-0.4 [(seeing - seeing0) k_s + (airmass - airmass0) k_x]), spec quicklook-pipeline §9.11.
        """
        exponent = (seeing - self.seeing) * self.seeing_term + (airmass - self.airmass) * self.airmass_term
        vector = self.value * 10.0 ** (-0.4 * exponent)
        flat = np.interp(np.ravel(np.asarray(wave, dtype=float)), self.wave, vector, left=0.0, right=0.0)
        return flat.reshape(np.shape(wave))


@dataclass(frozen=True)
class FrameFluxCalib:
    """Calibration vectors of the fibers of one camera in one exposure (spec datamodel §5.7): calibrated = flux / value.

    Attributes
    ----------
    wave : (nwave,) float64 [Angstrom]
    value : (nspec, nwave) float64 [electron/Angstrom per 1e-17 erg/s/cm2/Angstrom]
    ivar : (nspec, nwave) float64; 0 = no information
    mask : (nspec, nwave) uint32, SpecMask bits
    fibercorr : table with FLAT_TO_PSF_FLUX (in `value` already) and PSF_TO_FIBER_FLUX (not in it), or None
    stdstar_fibermap : rows of the standard stars, or None
    deconvolved : (nwave,) float64, the mean vector before the resolution of the spectrograph, or None
    meta : header cards
    """

    wave: Array
    value: Array
    ivar: Array
    mask: NDArray[np.uint32]
    fibercorr: NDArray[Any] | None = None
    stdstar_fibermap: NDArray[Any] | None = None
    deconvolved: Array | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = self.value.shape
        if len(shape) != 2 or self.ivar.shape != shape or self.mask.shape != shape or self.wave.shape != shape[1:]:
            raise ValueError(
                f"FrameFluxCalib: wave {self.wave.shape}, value {shape}, ivar {self.ivar.shape}, "
                f"mask {self.mask.shape} must be (nwave,) and (nspec, nwave)"
            )
