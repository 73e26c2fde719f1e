"""Model of the sky in every fiber of a camera."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SkyModel:
    """The sky as each fiber saw it, after division by the fiber flat (spec datamodel §5.5).

    Attributes
    ----------
    wave : (nwave,) float64 [Angstrom]
    flux : (nspec, nwave) float64 [electron/Angstrom], without the throughput corrections below
    ivar : (nspec, nwave) float64; 0 = no information
    mask : (nspec, nwave) uint32, SpecMask bits
    stat_ivar : (nspec, nwave) float64, the statistical part alone, or None
    throughput : (nspec,) achromatic factors to be applied to sky lines, or None
    throughput_model : (nspec,) factors of the model that `flux` has in it already, or None
    dwavecoeff, dlsfcoeff, skygradpcacoeff : coefficients of the corrections by principal components, or None
    skytargetid : TARGETID of the sky fibers used, or None
    meta : header cards
    """

    wave: Array
    flux: Array
    ivar: Array
    mask: NDArray[np.uint32]
    stat_ivar: Array | None = None
    throughput: Array | None = None
    throughput_model: Array | None = None
    dwavecoeff: Array | None = None
    dlsfcoeff: Array | None = None
    skygradpcacoeff: Array | None = None
    skytargetid: NDArray[np.int64] | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = self.flux.shape
        if len(shape) != 2 or self.ivar.shape != shape or self.mask.shape != shape or self.wave.shape != shape[1:]:
            raise ValueError(
                f"SkyModel: wave {self.wave.shape}, flux {shape}, ivar {self.ivar.shape}, mask {self.mask.shape} "
                "must be (nwave,) and (nspec, nwave)"
            )

    @property
    def nspec(self) -> int:
        return int(self.flux.shape[0])
