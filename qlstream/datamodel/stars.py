"""Standard stars: the grid of model spectra, and the models that fit the stars of an exposure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class StarTemplates:
    """Model spectra on a grid of temperature, gravity and metallicity.

    Attributes
    ----------
    wave : (nwave,) float64 [Angstrom, vacuum], increasing
    flux : (n, nwave) float32 per Angstrom, in any unit
    teff, logg, feh : (n,) [K], [cm/s2], [dex]
    """

    wave: Array
    flux: NDArray[np.float32]
    teff: Array
    logg: Array
    feh: Array

    def __post_init__(self) -> None:
        n = len(self.flux)
        if self.flux.shape != (n, len(self.wave)) or not all(len(a) == n for a in (self.teff, self.logg, self.feh)):
            raise ValueError(
                f"StarTemplates: flux {self.flux.shape} must be (n, {len(self.wave)}) with n parameters each"
            )

    def __len__(self) -> int:
        return len(self.flux)

    def take(self, index: NDArray[np.int64]) -> StarTemplates:
        """The templates `index`, in that order."""
        return StarTemplates(self.wave, self.flux[index], self.teff[index], self.logg[index], self.feh[index])


@dataclass(frozen=True)
class StdStars:
    """Absolute model spectra of the standard stars of one petal (spec datamodel §5.6).

    Attributes
    ----------
    wave : (nwave,) float64 [Angstrom]
    flux : (nstar, nwave) float64 [1e-17 erg/s/cm2/Angstrom], as they reach the atmosphere
    fibers : (nstar,) int32
    metadata : table with TARGETID, FIBER, LOGG, TEFF, FEH and REDSHIFT, their errors TEFF_ERR ..., CHI2DOF, EBV,
        DATA_<color> and MODEL_<color> (G-R or GAIA-BP-RP, without dust), BLUE_SNR ...
    coef : (nstar, ntemplate) float64, weights of the templates as they are in their file, summing to 1; a surface
        through neighbouring templates makes some negative
    fibermap : rows of the stars, or None
    inputs : table NIGHT, EXPID, CAMERA of the frames used, or None
    meta : header cards
    """

    wave: Array
    flux: Array
    fibers: NDArray[np.int32]
    metadata: NDArray[Any]
    coef: Array
    fibermap: NDArray[Any] | None = None
    inputs: NDArray[Any] | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.fibers)
        if self.flux.shape != (n, len(self.wave)) or len(self.metadata) != n or len(self.coef) != n:
            raise ValueError(
                f"StdStars: flux {self.flux.shape}, metadata {len(self.metadata)}, coef {self.coef.shape} do not fit "
                f"{n} stars on {len(self.wave)} wavelengths"
            )
