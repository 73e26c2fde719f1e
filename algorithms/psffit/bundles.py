"""Which fibers of a PSF stand side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qlstream.datamodel.psf import GaussHermitePSF
from qlstream.instrument import Instrument


def bundles_of(psf: GaussHermitePSF, instrument: Instrument, camera: str) -> NDArray[np.int64]:
    """First fiber of each bundle and, last, the number of fibers.

    Raises
    ------
    ValueError : the PSF is of another camera
    """
    fibers = instrument.fibers(camera)
    own = str(psf.meta.get("CAMERA", camera)).strip().lower()
    if psf.nspec != len(fibers) or own != camera:
        raise ValueError(
            f"the PSF is of {own} with {psf.nspec} fibers, the exposure of {camera} with {len(fibers)}; "
            "give the PSF of this camera"
        )
    return np.r_[0, np.flatnonzero(np.diff(instrument.bundle_of(fibers))) + 1, len(fibers)]
